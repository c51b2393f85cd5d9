//! Owns how a request with rows is answered: who may send it, what it asks for, and its body part by part.
//! Must not know how rows are made or submitted.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::rejection::PathRejection;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, timeout, timeout_at};

use crate::coding::items::{Form, Items, Unsplit};
use crate::coding::part::Coding;
use crate::config::problem::closest;
use crate::deadline::deadline;
use crate::http::access::Granted;
use crate::http::answer;
use crate::http::client::Client;
use crate::http::held::{DurableKey, Held, HeldLimits};
use crate::http::idempotency::{Begin, Guard};
use crate::http::ingest::{Ingest, Stop, Wait};
use crate::http::reading::Reading;
use crate::http::shared::Shared;
use crate::intake::Intake;
use crate::table::target::Target;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const LONGEST_KEY: usize = 255;
const IN_USE: &str = "a request with this Idempotency-Key is being answered; send it again later";

/// A request that is not answered by what its lines are.
type Refused = (StatusCode, String);

pub(crate) async fn post(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    path: Result<Path<String>, PathRejection>,
    request: Request<Body>,
) -> Response<Body> {
    let Ok(Path(table)) = path else {
        let text = "the name of the table in the path is not UTF-8; there is no such table";
        return answer::error(StatusCode::BAD_REQUEST, text);
    };
    let (parts, body) = request.into_parts();
    match begin(&shared, &table, &parts.uri, &parts.headers) {
        Ok(asked) => asked.answer(&shared, peer, body.into_data_stream()).await,
        Err((status, text)) => answer::error(status, text),
    }
}

/// What a request asks for, after every check that needs no body.
struct Asked<'a> {
    /// The name of its token.
    token: &'a str,
    target: &'a Target,
    wait: Wait,
    form: Form,
    coding: Coding,
    key: Option<Key>,
}

/// The key of a request.
enum Key {
    InMemory(Box<Guard>),
    Durable(DurableKey),
}

fn begin<'a>(shared: &'a Shared, table: &str, uri: &Uri, headers: &HeaderMap) -> Result<Asked<'a>, Refused> {
    // First of all, so that names of tables are not told to everyone.
    let token = match shared.access.of(headers, table) {
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
    let key = key(shared, token, table, headers)?;
    Ok(Asked { token, target, wait, form, coding, key })
}

fn text_of<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    // One that is not ASCII is not known.
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

fn wait(query: &str, is_durable: bool) -> Result<Wait, String> {
    let mut wait = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        if wait.is_some() && pair.starts_with("wait=") {
            return Err("`wait` is there twice; keep one of them".to_owned());
        }
        wait = Some(match (pair, is_durable) {
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
        });
    }
    Ok(wait.unwrap_or(Wait::Accepted))
}

fn form(headers: &HeaderMap) -> Result<Form, String> {
    let sent = text_of(headers, &CONTENT_TYPE).unwrap_or_default();
    let mut parts = sent.split(';');
    let media = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
        let value = value.trim().trim_matches('"').to_ascii_lowercase();
        if name.trim().eq_ignore_ascii_case("charset") && !["utf-8", "utf8", "us-ascii"].contains(&value.as_str()) {
            return Err(format!("the charset `{value}` is not known; send UTF-8"));
        }
    }
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

fn key(shared: &Shared, client: &str, table: &str, headers: &HeaderMap) -> Result<Option<Key>, Refused> {
    let mut sent = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = sent.next() else { return Ok(None) };
    let key = key.to_str().ok().filter(|key| !key.is_empty() && key.len() <= LONGEST_KEY && sent.next().is_none());
    let Some(key) = key else {
        let text = format!("send one Idempotency-Key of 1 to {LONGEST_KEY} characters of ASCII");
        return Err((StatusCode::BAD_REQUEST, text));
    };
    if shared.intake.is_durable() {
        return Ok(Some(Key::Durable(DurableKey::new(client, table, key))));
    }
    match shared.keys.begin(client, table, key, std::time::Instant::now()) {
        Begin::Go(guard) => Ok(Some(Key::InMemory(guard))),
        Begin::InUse => Err((StatusCode::CONFLICT, IN_USE.to_owned())),
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
    async fn answer(self, shared: &Shared, peer: SocketAddr, body: BodyDataStream) -> Response<Body> {
        let Self { token, target, wait, form, coding, key } = self;
        let client = Client::new(token.to_owned(), peer.ip());
        let mut reading = reading(shared, client, target, wait, key);
        let stopped = read(shared, &mut reading, form, coding, body).await.err();
        reading.await_outcomes().await;
        if let Some((status @ (StatusCode::UNPROCESSABLE_ENTITY | StatusCode::CONFLICT), text)) = stopped {
            // The progress is that of another body, or of another request.
            return answer::unread(status, text);
        }
        let mut response = answer::rows(reading.progress(), wait, stopped);
        if reading.is_repeated() {
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}

fn reading<'a>(shared: &'a Shared, client: Client, target: &'a Target, wait: Wait, key: Option<Key>) -> Reading<'a> {
    let limits = &shared.limits;
    match (&shared.intake, key) {
        (Intake::Durable(intake, _), key) => {
            let limits = HeldLimits {
                together: usize::try_from(limits.together).unwrap_or(usize::MAX),
                capacity_time: limits.capacity_time,
                rejections: limits.rejections,
            };
            let key = key.and_then(|key| if let Key::Durable(key) = key { Some(key) } else { None });
            Reading::Together(Box::new(Held::new(intake, target, limits, shared.held.none(client), key)))
        }
        (intake @ Intake::Memory(..), key) => {
            let key = key.and_then(|key| if let Key::InMemory(key) = key { Some(key) } else { None });
            let limits = (limits.capacity_time, limits.rejections);
            Reading::AsTheyCome(Box::new(Ingest::new((intake, target), wait, limits, key)))
        }
    }
}

async fn read(
    shared: &Shared,
    reading: &mut Reading<'_>,
    form: Form,
    mut coding: Coding,
    mut body: BodyDataStream,
) -> Result<(), Refused> {
    let limits = &shared.limits;
    let mut items = Items::new(form, usize::try_from(limits.line).unwrap_or(usize::MAX));
    let deadline = deadline(limits.body_time);
    let (mut received, mut decompressed) = (0_u64, 0_u64);
    let bad = |text: String| (StatusCode::BAD_REQUEST, text);
    let mut result = Ok(());
    loop {
        // Rows do not wait for what the client has not sent yet.
        let ready = body.next().now_or_never();
        let part = match ready {
            Some(part) => part,
            None => {
                reading.flush().await.map_err(stopped)?;
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
            take(reading, &mut items, limits.line, false).await?;
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
        take(reading, &mut items, limits.line, result.is_ok()).await?;
    }
    // In memory, what was read before a mistake counts.
    let ended = if result.is_ok() { reading.end().await } else { reading.flush().await };
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
async fn take(reading: &mut Reading<'_>, items: &mut Items, limit: u64, is_end: bool) -> Result<(), Refused> {
    loop {
        match items.next(is_end) {
            Ok(Some((number, item))) => reading.line(number, item).await.map_err(stopped)?,
            Ok(None) => return Ok(()),
            Err(unsplit) => {
                reading.flush().await.map_err(stopped)?;
                return Err(match unsplit {
                    Unsplit::TooLong(number) => {
                        let text = format!(
                            "line {number} is above the limit of {limit} bytes (http.limits.line); leave it out or raise the limit, then send \
                             the rest, from `next_line` on"
                        );
                        (StatusCode::PAYLOAD_TOO_LARGE, text)
                    }
                    Unsplit::NoArray(text) => {
                        let text = format!("{text}; correct the body, then send the rest of it, from `next_line` on");
                        (StatusCode::BAD_REQUEST, text)
                    }
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
        Stop::LogFull => {
            let text = "the log of the server has no space for it (durable.disk), or its disk has not (durable.min_free); send the rest, \
                        from `next_line` on, again later";
            (StatusCode::TOO_MANY_REQUESTS, text.to_owned())
        }
        Stop::Closed => {
            let text = "the server is about to end; send the rest, from `next_line` on, to another server or later";
            (StatusCode::SERVICE_UNAVAILABLE, text.to_owned())
        }
        Stop::Undetermined(why) => {
            let text = format!(
                "it is not known whether the lines from `next_line` on are stored: {why}; with an Idempotency-Key the request can be \
                 sent again"
            );
            (StatusCode::SERVICE_UNAVAILABLE, text)
        }
        Stop::OtherBody => {
            let text = "this Idempotency-Key was used for a body with other lines; use a new one";
            (StatusCode::UNPROCESSABLE_ENTITY, text.to_owned())
        }
        Stop::InUse => (StatusCode::CONFLICT, IN_USE.to_owned()),
        Stop::TooLarge(limit) => {
            let text = format!(
                "the rows of a request with an Idempotency-Key are stored together, and these have more than {limit} bytes \
                 (http.limits.together); nothing of it is stored, send it in parts, each with a key of its own"
            );
            (StatusCode::PAYLOAD_TOO_LARGE, text)
        }
    }
}
