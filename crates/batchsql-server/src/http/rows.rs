//! Owns how a request with rows is answered: who may send it, what it asks for, and its body part by part.
//! Must not know how rows are made or submitted.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, timeout, timeout_at};

use crate::coding::part::Coding;
use crate::config::problem::closest;
use crate::http::access::Granted;
use crate::http::answer;
use crate::http::idempotency::{Begin, Guard};
use crate::http::ingest::{Ingest, Stop, Wait};
use crate::http::items::{Form, Items, Unsplit};
use crate::http::shared::Shared;
use crate::table::target::Target;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const LONGEST_KEY: usize = 255;

/// A request that is not answered by what its lines are.
type Refused = (StatusCode, String);

pub(crate) async fn post(
    State(shared): State<Shared>,
    Path(table): Path<String>,
    request: Request<Body>,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    match begin(&shared, &table, &parts.uri, &parts.headers) {
        Ok(asked) => asked.answer(&shared, body.into_data_stream()).await,
        Err((status, text)) => answer::error(status, text),
    }
}

/// What a request asks for, after every check that needs no body.
struct Asked<'a> {
    target: &'a Target,
    wait: Wait,
    form: Form,
    coding: Coding,
    key: Option<Box<Guard>>,
}

fn begin<'a>(shared: &'a Shared, table: &str, uri: &Uri, headers: &HeaderMap) -> Result<Asked<'a>, Refused> {
    // First of all, so that names of tables are not told to everyone.
    let client = match shared.access.of(headers, table) {
        Granted::As(name) => name,
        Granted::Unknown => {
            let text = "send a token that may write: Authorization: Bearer ...";
            return Err((StatusCode::UNAUTHORIZED, text.to_owned()));
        }
        Granted::Forbidden => {
            return Err((StatusCode::FORBIDDEN, format!("this token may not write the table `{table}`")));
        }
    };
    if shared.is_draining() {
        let text = "the server is about to end; send the request again, to another server or later";
        return Err((StatusCode::SERVICE_UNAVAILABLE, text.to_owned()));
    }
    let Some(target) = shared.tables.get(table) else {
        let known: Vec<&str> = shared.tables.keys().map(String::as_str).collect();
        let meant = closest(table, &known).map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
        return Err((StatusCode::NOT_FOUND, format!("there is no table `{table}`{meant}")));
    };
    let wait = wait(uri.query().unwrap_or_default(), shared.intake.is_durable())
        .map_err(|text| (StatusCode::BAD_REQUEST, text))?;
    let form = form(headers).map_err(|text| (StatusCode::UNSUPPORTED_MEDIA_TYPE, text))?;
    let coding = text_of(headers, &CONTENT_ENCODING).unwrap_or_default();
    let coding = Coding::of(coding).ok_or_else(|| {
        let text = format!("the Content-Encoding `{coding}` is not known; send gzip, zstd, or no compression");
        (StatusCode::UNSUPPORTED_MEDIA_TYPE, text)
    })?;
    let length = text_of(headers, &CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    if length.is_some_and(|length| length > shared.limits.body) {
        return Err((StatusCode::PAYLOAD_TOO_LARGE, too_large(shared.limits.body, "body")));
    }
    let key = key(shared, client, table, headers)?;
    Ok(Asked { target, wait, form, coding, key })
}

fn text_of<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    // One that is not ASCII is not known.
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

fn wait(query: &str, is_durable: bool) -> Result<Wait, String> {
    let mut wait = Wait::Accepted;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        wait = match (pair, is_durable) {
            ("wait=logged", true) => Wait::Logged,
            ("wait=written", false) => Wait::Written,
            ("wait=accepted", _) => Wait::Accepted,
            ("wait=logged", false) => {
                return Err("wait=logged needs a durable intake ([durable]); use wait=written".to_owned());
            }
            ("wait=written", true) => {
                return Err(
                    "wait=written is not possible with a durable intake, which has the row on disk; use wait=logged"
                        .to_owned(),
                );
            }
            _ if pair.starts_with("wait=") => {
                return Err("`wait` is accepted, logged or written".to_owned());
            }
            _ => {
                let name = pair.split('=').next().unwrap_or_default();
                return Err(format!("the parameter `{name}` is not known; there is only `wait`"));
            }
        };
    }
    Ok(wait)
}

fn form(headers: &HeaderMap) -> Result<Form, String> {
    let sent = text_of(headers, &CONTENT_TYPE).unwrap_or_default();
    let media = sent.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media.as_str() {
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines" => {
            Ok(Form::Lines)
        }
        "application/json" => Ok(Form::Array),
        _ => Err(format!(
            "the Content-Type `{media}` is not known; send application/x-ndjson (an object per line) or application/json (an \
             array of objects)"
        )),
    }
}

fn key(shared: &Shared, client: &str, table: &str, headers: &HeaderMap) -> Result<Option<Box<Guard>>, Refused> {
    let mut sent = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = sent.next() else { return Ok(None) };
    let Some(keys) = &shared.keys else {
        let text = "Idempotency-Key is not possible with a durable intake, which does not store it with the rows; choose a rule \
                    with a key for the table, so that a repeat changes nothing";
        return Err((StatusCode::BAD_REQUEST, text.to_owned()));
    };
    let key = key.to_str().ok().filter(|key| !key.is_empty() && key.len() <= LONGEST_KEY && sent.next().is_none());
    let Some(key) = key else {
        let text = format!("send one Idempotency-Key of 1 to {LONGEST_KEY} characters of ASCII");
        return Err((StatusCode::BAD_REQUEST, text));
    };
    match keys.begin(client, table, key, std::time::Instant::now()) {
        Begin::Go(guard) => Ok(Some(guard)),
        Begin::InUse => {
            let text = "a request with this Idempotency-Key is being answered; send it again later";
            Err((StatusCode::CONFLICT, text.to_owned()))
        }
        Begin::Full => {
            let text = "too many requests with an Idempotency-Key are being answered; send it again later";
            Err((StatusCode::TOO_MANY_REQUESTS, text.to_owned()))
        }
    }
}

fn too_large(limit: u64, name: &str) -> String {
    format!("the body is above {limit} bytes (http.limits.{name}); send it in parts")
}

impl Asked<'_> {
    async fn answer(self, shared: &Shared, body: BodyDataStream) -> Response<Body> {
        let Self { target, wait, form, coding, key } = self;
        let was_sent = key.as_ref().is_some_and(|key| key.before().lines > 0);
        let limits = (shared.limits.capacity_time, shared.limits.rejections);
        let mut ingest = Ingest::new((&shared.intake, target), wait, limits, key);
        let stopped = read(shared, &mut ingest, form, coding, body).await.err();
        ingest.await_outcomes().await;
        if let Some((StatusCode::UNPROCESSABLE_ENTITY, text)) = stopped {
            // The progress is that of another body.
            return answer::unread(StatusCode::UNPROCESSABLE_ENTITY, text);
        }
        let mut response = answer::rows(ingest.progress(), wait, stopped);
        if was_sent {
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}

async fn read(
    shared: &Shared,
    ingest: &mut Ingest<'_>,
    form: Form,
    mut coding: Coding,
    mut body: BodyDataStream,
) -> Result<(), Refused> {
    let limits = &shared.limits;
    let mut items = Items::new(form, usize::try_from(limits.line).unwrap_or(usize::MAX));
    let deadline = Instant::now() + limits.body_time;
    let (mut received, mut decompressed) = (0_u64, 0_u64);
    let bad = |text: String| (StatusCode::BAD_REQUEST, text);
    let mut result = Ok(());
    loop {
        // Rows do not wait for what the client has not sent yet.
        let ready = body.next().now_or_never();
        let part = match ready {
            Some(part) => part,
            None => {
                ingest.flush().await.map_err(stopped)?;
                awaited(&mut body, limits.body_pause, deadline).await?
            }
        };
        let Some(part) = part else { break };
        let part = part.map_err(|_| (StatusCode::BAD_REQUEST, "the body has no end".to_owned()))?;
        received += part.len() as u64;
        if received > limits.body {
            result = Err((StatusCode::PAYLOAD_TOO_LARGE, too_large(limits.body, "body")));
            break;
        }
        let mut input = &part[..];
        while !input.is_empty() {
            let buffer = items.buffer();
            let before = buffer.len();
            let decoded = coding.next(&mut input, buffer);
            decompressed += (buffer.len() - before) as u64;
            result = decoded.map_err(bad);
            if decompressed > limits.decompressed {
                result = Err((StatusCode::PAYLOAD_TOO_LARGE, too_large(limits.decompressed, "decompressed")));
            }
            take(ingest, &mut items, false).await?;
            if result.is_err() {
                break;
            }
        }
        if result.is_err() {
            break;
        }
    }
    if result.is_ok() {
        result = coding.end(items.buffer()).map_err(bad);
        take(ingest, &mut items, result.is_ok()).await?;
    }
    // What was read before a mistake counts.
    let ended = if result.is_ok() { ingest.end().await } else { ingest.flush().await };
    ended.map_err(stopped)?;
    result
}

type Part = Option<Result<Bytes, axum::Error>>;

async fn awaited(body: &mut BodyDataStream, pause: Duration, deadline: Instant) -> Result<Part, Refused> {
    match timeout_at(deadline, timeout(pause, body.next())).await {
        Ok(Ok(part)) => Ok(part),
        Ok(Err(_)) => {
            let text = format!("no part of the body came for {pause:?} (http.limits.body_pause)");
            Err((StatusCode::REQUEST_TIMEOUT, text))
        }
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the body took too long (http.limits.body_time)".to_owned())),
    }
}

/// Submits the items that are complete.
async fn take(ingest: &mut Ingest<'_>, items: &mut Items, is_end: bool) -> Result<(), Refused> {
    loop {
        match items.next(is_end) {
            Ok(Some((number, item))) => ingest.line(number, item).await.map_err(stopped)?,
            Ok(None) => return Ok(()),
            Err(unsplit) => {
                ingest.flush().await.map_err(stopped)?;
                return Err(match unsplit {
                    Unsplit::TooLong(number) => {
                        let text = format!("line {number} is above the limit of a line (http.limits.line)");
                        (StatusCode::PAYLOAD_TOO_LARGE, text)
                    }
                    Unsplit::NoArray(text) => (StatusCode::BAD_REQUEST, text),
                });
            }
        }
    }
}

fn stopped(stop: Stop) -> Refused {
    match stop {
        Stop::Full => {
            let text = "there is no capacity now; send the rest, from `next_line` on, again later";
            (StatusCode::TOO_MANY_REQUESTS, text.to_owned())
        }
        Stop::FullBefore(rows) => {
            let text = format!(
                "there is no capacity for line `next_line`, but {rows} rows behind it are stored: if the rest is sent again, they \
                 are written again; with a rule with a key that changes nothing"
            );
            (StatusCode::SERVICE_UNAVAILABLE, text)
        }
        Stop::Closed => {
            let text = "the server is about to end; send the rest, from `next_line` on, to another server or later";
            (StatusCode::SERVICE_UNAVAILABLE, text.to_owned())
        }
        Stop::Undetermined(why) => {
            let text = format!("it is not known whether some lines from `next_line` on are stored: {why}");
            (StatusCode::SERVICE_UNAVAILABLE, text)
        }
        Stop::OtherBody => {
            let text = "this Idempotency-Key was used for a body with other lines; use a new one";
            (StatusCode::UNPROCESSABLE_ENTITY, text.to_owned())
        }
    }
}
