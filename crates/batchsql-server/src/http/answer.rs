//! Owns the responses.
//! Must not know how a request is answered.

use axum::body::Body;
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, Response, StatusCode};
use batchsql::OutcomeKind;
use serde_json::{Map, Value, json};

use crate::http::ingest::Wait;
use crate::http::progress::Progress;

/// A response without rows: an error, with what to do about it.
pub(crate) fn error(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut response = with_json(status, &json!({ "error": text.into() }));
    let headers = response.headers_mut();
    match status {
        StatusCode::UNAUTHORIZED => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"batchsql\""));
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            headers.insert(ALLOW, HeaderValue::from_static("POST"));
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::CONFLICT => {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        _ => {}
    }
    response
}

/// As [`error`], in the middle of a body.
pub(crate) fn unread(status: StatusCode, text: String) -> Response<Body> {
    let mut response = error(status, text);
    close(&mut response);
    response
}

/// What is left of the body is not read.
fn close(response: &mut Response<Body>) {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}

/// The response to a request whose body was read: what became of its lines, and why the rest was not accepted.
pub(crate) fn rows(progress: &Progress, wait: Wait, stopped: Option<(StatusCode, String)>) -> Response<Body> {
    let mut body = Map::new();
    body.insert("accepted".to_owned(), progress.accepted.into());
    body.insert("refused".to_owned(), progress.refused.into());
    if wait == Wait::Written {
        let kinds = [
            OutcomeKind::Written,
            OutcomeKind::Ignored,
            OutcomeKind::Superseded,
            OutcomeKind::Rejected,
            OutcomeKind::Expired,
            OutcomeKind::Purged,
            OutcomeKind::Unknown,
        ];
        let outcomes = kinds.into_iter().map(|kind| (kind.name().to_owned(), progress.outcomes.get(kind).into()));
        body.insert("outcomes".to_owned(), Value::Object(outcomes.collect()));
    }
    body.insert("rejections".to_owned(), json!(progress.rejections));
    if progress.left_out > 0 {
        body.insert("rejections_left_out".to_owned(), progress.left_out.into());
    }
    let Some((status, text)) = stopped else { return with_json(StatusCode::OK, &Value::Object(body)) };
    let mut response = error(status, "");
    body.insert("error".to_owned(), text.into());
    body.insert("next_line".to_owned(), (progress.lines + 1).into());
    *response.body_mut() = Body::from(Value::Object(body).to_string());
    close(&mut response);
    response
}

pub(crate) fn with_json(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A page for people.
pub(crate) fn with_html(page: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(page));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
