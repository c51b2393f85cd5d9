//! Owns the paths of the server.
//! Must not know how requests are answered.

use axum::Router;
use axum::body::Body;
use axum::http::{Response, StatusCode};
use axum::routing::{get, post};

use crate::http::shared::Shared;
use crate::http::{answer, docs, openapi, rows};

/// The paths of rows, and those of the exporter, unless it has a server of its own.
pub(crate) fn router(shared: Shared, exporter: Option<Router>) -> Router {
    let rows = post(rows::post).fallback(other_method);
    let app = Router::new()
        .route("/v1/tables/{table}/rows", rows)
        .route("/v1/openapi.json", get(openapi::get))
        .route("/v1/docs", get(docs::get))
        .with_state(shared);
    match exporter {
        Some(exporter) => app.merge(exporter).fallback(other_path),
        None => app.fallback(other_path),
    }
}

async fn other_method() -> Response<Body> {
    answer::error(StatusCode::METHOD_NOT_ALLOWED, "send rows with POST")
}

async fn other_path() -> Response<Body> {
    answer::error(
        StatusCode::NOT_FOUND,
        "there is nothing here; rows go to POST /v1/tables/{table}/rows, and /v1/docs describes it",
    )
}
