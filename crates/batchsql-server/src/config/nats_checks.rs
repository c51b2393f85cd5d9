//! Owns the checks of the sections about NATS JetStream.
//! Must not know databases.

use std::ops::Range;
use std::path::Path;

use toml::Spanned;

use crate::config::access::{one_secret, place};
use crate::config::mistakes::Mistakes;
use crate::config::nats_sections::{self, NatsTls, Stream};
use crate::config::secret::Secret;
use crate::config::sections::Durable;
use crate::config::settings::{Database, Login, Nats, Publish};

const NO_SERVERS: &str = "NATS has no `servers`; add servers = \"nats://host-1,nats://host-2\", or `servers_file`";

pub(super) fn nats(checks: &mut Mistakes<'_>, section: Spanned<nats_sections::Nats>, folder: &Path) -> Option<Nats> {
    let span = section.span();
    let section = section.into_inner();
    let at = place(section.servers_file.as_ref(), &span);
    let servers = checks.ok(at, one_secret("servers", section.servers, section.servers_file, folder))?;
    let at = place(section.token_file.as_ref(), &span);
    let token = checks.ok(at, one_secret("token", section.token, section.token_file, folder))?;
    let at = place(section.password_file.as_ref(), &span);
    let password = checks.ok(at, one_secret("password", section.password, section.password_file, folder))?;
    let at = place(section.credentials_file.as_ref(), &span);
    let credentials = section.credentials_file.map(|file| Secret::read(&folder.join(file.get_ref()))).transpose();
    let credentials = checks.ok(at, credentials)?;
    let login = match (token, section.user, password, credentials) {
        (None, None, None, None) => Login::Open,
        (Some(token), None, None, None) => Login::Token(token),
        (None, Some(user), Some(password), None) => Login::Password(user, password),
        (None, None, None, Some(credentials)) => Login::Credentials(credentials),
        (None, Some(_), None, None) | (None, None, Some(_), None) => {
            checks.problem(span, "`user` and `password` belong together; add the other one");
            return None;
        }
        _ => {
            let text = "there are several ways to log in; keep one of `token`, `user` with `password`, and \
                        `credentials_file`";
            checks.problem(span, text);
            return None;
        }
    };
    let Some(servers) = servers else {
        checks.problem(span, NO_SERVERS);
        return None;
    };
    let servers = checks.ok(span.clone(), urls(servers.reveal()))?;
    let tls = section.tls.map(|tls| NatsTls {
        ca: tls.ca.map(|file| folder.join(file)),
        certificates: tls.certificates.map(|file| folder.join(file)),
        key: tls.key.map(|file| folder.join(file)),
    });
    if tls.as_ref().is_some_and(|tls| tls.certificates.is_some() != tls.key.is_some()) {
        checks.problem(span, "`tls.certificates` and `tls.key` belong together; add the other one");
        return None;
    }
    let files = tls.iter().flat_map(|tls| [&tls.ca, &tls.certificates, &tls.key]).flatten();
    for file in files {
        let opened = std::fs::File::open(file).map(drop);
        let opened = opened.map_err(|error| format!("the file {} cannot be read: {error}", file.display()));
        checks.ok(span.clone(), opened)?;
    }
    Some(Nats { servers, login, tls })
}

/// The URLs of a text with commas between them.
///
/// # Errors
/// One of them is none, or has a login, which the client of NATS does not use and writes to its log. The text shows none of them.
fn urls(text: &str) -> Result<Vec<String>, String> {
    let urls: Vec<&str> = text.split(',').map(str::trim).filter(|url| !url.is_empty()).collect();
    if urls.is_empty() {
        return Err(NO_SERVERS.to_owned());
    }
    // Before anything else: a comma in a password makes two of one URL.
    if text.contains('@') {
        return Err(
            "`servers` has a URL with a login, which is not used there; write `user` with `password`, or `token`, \
                    and only the hosts in `servers`"
                .to_owned(),
        );
    }
    for (number, url) in (1..).zip(&urls) {
        let scheme = url.split_once("://").map_or("nats", |(scheme, _)| scheme);
        let host = url.split_once("://").map_or(*url, |(_, rest)| rest);
        if !["nats", "tls"].contains(&scheme) || host.is_empty() || host.contains(char::is_whitespace) {
            return Err(format!(
                "URL {number} of `servers` is none; write for example \"nats://host:4222\" or \"tls://host\""
            ));
        }
    }
    Ok(urls.into_iter().map(str::to_owned).collect())
}

/// `[publish]` with the section that it needs.
pub(super) fn publish(
    checks: &mut Mistakes<'_>,
    (span, section): (Range<usize>, nats_sections::Publish),
    nats: Option<&Nats>,
    database: Option<Database>,
) -> Option<Publish> {
    if database.as_ref().is_some_and(Database::is_redis) {
        let text = "with [publish], [database] is where columns are read, and Redis has no catalogue of columns; remove \
                    [database]";
        checks.problem(span, text);
        return None;
    }
    stream(checks, span.clone(), &section.stream)?;
    Some(Publish { nats: needed(checks, span, nats)?, stream: section.stream, catalogue: database })
}

/// A log has the partitions of its stream.
pub(super) fn partitions(checks: &mut Mistakes<'_>, stream: &Stream, (span, durable): (Range<usize>, &mut Durable)) {
    let of_stream = stream.partitions;
    if *durable.partitions.get_or_insert(of_stream) != of_stream {
        let text =
            format!("with [publish] a log has as many partitions as its stream ({of_stream}); remove `partitions`");
        checks.problem(span, text);
    }
}

/// The servers, which `[publish]` and sources of streams need.
pub(super) fn needed(checks: &mut Mistakes<'_>, span: Range<usize>, nats: Option<&Nats>) -> Option<Nats> {
    if cfg!(not(feature = "nats")) {
        checks.problem(span, "this program was built without NATS; build it with the feature `nats`");
        return None;
    }
    // A section with a mistake has its own message.
    if nats.is_none() && checks.found.is_empty() {
        checks.problem(span, "a stream needs the section [nats] with its `servers`; add it");
    }
    nats.cloned()
}

/// The names and numbers of a stream.
pub(super) fn stream(checks: &mut Mistakes<'_>, span: Range<usize>, stream: &Stream) -> Option<()> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter);
    if stream.name.is_empty() || !stream.name.chars().all(is_plain) {
        let text = format!("`{}` cannot be the name of a stream; use letters, digits, `_` and `-`", stream.name);
        checks.problem(span.clone(), text);
        return None;
    }
    let create = stream.create.as_ref();
    if create.is_some_and(|create| !(1..=5).contains(&create.replicas)) {
        checks.problem(span, "`create.replicas` is 1 to 5, better odd; 3 survives the loss of a server");
        return None;
    }
    #[cfg(feature = "nats")]
    checks.ok(span, crate::config::nats_options::stream(stream).validate().map_err(|error| error.to_string()))?;
    Some(())
}
