//! Owns compression: which responses are compressed, and how.
//! Must not know the content of responses.
//!
//! The compression layer of tower-http would compress each response anew. A rendering of the metrics is compressed once
//! for all clients that ask within its time, see `renderings`. Its limits apply to requests; those here apply to
//! connections.

use std::io::Write;

use axum::http::{HeaderMap, header};
use flate2::Compression;
use flate2::write::GzEncoder;

/// Whether the client accepts gzip explicitly.
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let fields = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut by_name = None;
    let mut by_star = None;
    for choice in fields.flat_map(|field| field.split(',')) {
        let mut parts = choice.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        let wanted = quality.is_none_or(|quality| quality.parse::<f32>().is_ok_and(|quality| quality > 0.0));
        if ["gzip", "x-gzip"].iter().any(|gzip| name.eq_ignore_ascii_case(gzip)) {
            by_name = Some(wanted);
        } else if name == "*" {
            by_star = Some(wanted);
        }
    }
    by_name.or(by_star).unwrap_or(false)
}

/// The fastest level: names and labels repeat so often that slower levels gain little.
pub(crate) fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    encoder.write_all(text).and_then(|()| encoder.finish()).expect("writing to a vector never fails")
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn gzip_is_taken_when_it_was_asked_for() {
        let check = |fields: &[&'static str], expected: bool| {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(header::ACCEPT_ENCODING, HeaderValue::from_static(field));
            }
            assert_eq!(accepts_gzip(&headers), expected, "{fields:?}");
        };
        check(&["gzip"], true);
        check(&["deflate, GZIP;q=0.5, br"], true);
        check(&["br", "gzip"], true);
        check(&["*"], true);
        check(&["x-gzip ; q=1"], true);
        check(&["*;q=0, gzip"], true);
        check(&[], false);
        check(&[""], false);
        check(&["identity"], false);
        check(&["gzip;q=0"], false);
        check(&["gzip; q=0.000, *"], false);
        check(&["gzip;q=nonsense"], false);
        check(&["*;q=0"], false);
        check(&["gzipped"], false);
    }
}
