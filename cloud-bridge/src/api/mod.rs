//! REST, WebSocket and the page, on one port.
//!
//! | route | what |
//! |---|---|
//! | `GET /health`, `/api/health` | liveness, without a key |
//! | `GET /api/agents`, `/api/agents/{id}` | gateways |
//! | `POST /api/agents/{id}/commands`, `POST /commands` | asks a gateway for something: 202 |
//! | `GET /api/agents/{id}/commands`, `GET /api/commands/{id}` | commands and their results |
//! | `POST /api/commands/{id}/cancel` | gives one up |
//! | `POST`, `GET`, `DELETE /api/users/{id}/template` (alias `fingerprint`) | templates |
//! | `GET /api/events?after=&limit=&agentId=`, `?last=` | stored events, oldest first; the newest |
//! | `GET /`, `/ws` with an upgrade | the dashboards' WebSocket |
//! | `GET /`, `/assets/…` | the page |
//!
//! Everything else needs a key: `X-API-Key` or `Authorization: Bearer`.

pub(crate) mod auth;
mod error;
mod events;
mod metrics;
mod page;
mod rest;
mod socket;
mod templates;

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{HeaderValue, StatusCode, header},
    middleware,
    response::Response,
    routing::{get, post},
};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use topics::ErrorBody;

use crate::service::Shared;
use auth::Keys;
use error::ApiError;

/// The largest body of a request.
const MAX_BODY_BYTES: usize = 1 << 20;

/// What every handler sees.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) service: Shared,
    pub(crate) keys: Arc<Keys>,
    pub(crate) connections: Connections,
    /// The embedded broker, where there is one.
    pub(crate) broker: Option<broker_config::Meter>,
    pub(crate) started: Instant,
    pub(crate) stop: CancellationToken,
    pub(crate) sockets: TaskTracker,
}

/// Whether the two connections to the broker are there.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    pub(crate) link: watch::Receiver<bool>,
    pub(crate) public: watch::Receiver<bool>,
}

impl Connections {
    /// Whether both are there now.
    pub(crate) fn both(&self) -> bool {
        *self.link.borrow() && *self.public.borrow()
    }

    /// Waits until both are there.
    pub(crate) async fn wait(&self) {
        for mut up in [self.link.clone(), self.public.clone()] {
            // Fails only when the connection's loop has ended: the bridge stops.
            let _ = up.wait_for(|up| *up).await;
        }
    }
}

/// The routes.
pub(crate) fn router(api: Api) -> Router {
    Router::new()
        .route("/", get(socket::or_page))
        .route("/ws", get(socket::only))
        .route("/ws/", get(socket::only))
        .route("/assets/{file}", get(page::asset))
        .route("/health", get(rest::health))
        .route("/api/health", get(rest::health))
        .route("/api/agents", get(rest::agents))
        .route("/api/agents/{id}", get(rest::agent))
        .route("/api/agents/{id}/commands", get(rest::agent_commands).post(rest::create_for_agent))
        .route("/commands", post(rest::create))
        .route("/api/commands", post(rest::create))
        .route("/api/commands/{id}", get(rest::command))
        .route("/api/commands/{id}/cancel", post(rest::cancel))
        .route(
            "/api/users/{id}/template",
            get(templates::read).post(templates::store).delete(templates::erase),
        )
        .route(
            "/api/users/{id}/fingerprint",
            get(templates::read).post(templates::store).delete(templates::erase),
        )
        .route("/api/events", get(events::list))
        .route("/metrics", get(metrics::text))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::map_response(never_kept))
        .with_state(api)
}

/// Answers hold who is where and templates: nothing on the way keeps them.
async fn never_kept(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn no_route() -> ApiError {
    plain(StatusCode::NOT_FOUND, "NOT_FOUND", "there is nothing at this path")
}

async fn no_method() -> ApiError {
    plain(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "this path has no such method")
}

/// An error that the documentation has no code for: the HTTP status is the code.
fn plain(status: StatusCode, name: &str, message: &str) -> ApiError {
    let body = ErrorBody {
        code: status.as_u16(),
        name: name.to_owned(),
        message: message.to_owned(),
        retryable: false,
        details: serde_json::Map::new(),
    };
    ApiError::with_status(body, status)
}
