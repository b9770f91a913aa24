//! The documented REST and WebSocket service.
//!
//! | route (also without `/api`, marked +) | permission | module |
//! |---|---|---|
//! | `GET /api/health`, `GET /health` | none | `health` |
//! | `GET /api/devices`, `GET /api/devices/{id}/info`, `POST /api/devices/{id}/test` | `device:read` | `devices` |
//! | `POST /api/fingerprint/enroll` + | `fingerprint:enroll` | `fingerprint` |
//! | `POST /api/fingerprint/verify` + | `fingerprint:verify` | `fingerprint` |
//! | `POST /api/fingerprint/identify` +, `POST /api/fingerprint/match` + | `fingerprint:identify` | `fingerprint`, `compare` |
//! | `POST /api/fingerprint/capture` + | `fingerprint:scan` | `fingerprint` |
//! | `GET /api/fingerprint/scan/start` +, `…/scan/status/{id}` +, `POST …/scan/stop/{id}` + | `fingerprint:scan` | `fingerprint` |
//! | `DELETE /api/fingerprint/users/{id}` + | `fingerprint:delete` | `fingerprint` |
//! | `GET /api/events?after=&limit=` | `device:read` | `events` |
//! | `GET /metrics` | `device:read` | `metrics` |
//! | WebSocket on `/` and `/ws` | at `auth` | `socket` |
//!
//! What every answer has: `Content-Length`, never compressed, `Cache-Control: no-store`, an
//! `X-Request-Id`, the rate limit's headers, and in a failure the documented envelope (`error`).

mod auth;
mod compare;
mod devices;
mod error;
mod events;
mod fields;
mod fingerprint;
mod health;
mod layers;
mod limit;
mod metrics;
mod socket;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Instant, SystemTime},
};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{delete, get, post},
    serve::ListenerExt as _,
};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use topics::{ReaderState, Timestamp};

pub(crate) use self::auth::random_text;
pub use self::auth::{Keys, first_key};
pub use self::{health::health_report, socket::Timing};
use self::{limit::Limit, socket::Sockets};
use crate::{config::ApiSection, journal::Journal, operation::Operations};

/// The name of the key in `api.key_file`.
pub const FIRST_KEY: &str = "default";
/// The largest request body.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Requests a minute and address that show no valid credential.
const FAILURES_PER_MINUTE: u32 = 60;

/// What the service is made of.
pub struct Parts {
    /// `[api]`
    pub section: ApiSection,
    /// Who may call.
    pub keys: Keys,
    /// What callers start.
    pub operations: Operations,
    /// What happened.
    pub journal: Journal,
    /// The embedded broker, where there is one.
    pub broker: Option<broker_config::Meter>,
    /// When the gateway started.
    pub started: Instant,
    /// The sockets' waits; other than the default in tests.
    pub timing: Timing,
    /// Where the service's tasks are counted.
    pub tracker: TaskTracker,
    /// Ends the service.
    pub token: CancellationToken,
}

/// What every handler sees.
pub(crate) struct Shared {
    keys: Keys,
    operations: Operations,
    journal: Journal,
    broker: Option<broker_config::Meter>,
    started: Instant,
    requests: Limit,
    polls: Limit,
    captures: Limit,
    failures: Limit,
    cors_origins: Vec<String>,
    sockets: Sockets,
    tracker: TaskTracker,
    token: CancellationToken,
}

/// The running service.
pub struct Api {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Api {
    /// Serves on `listener`. `127.0.0.1` is joined by `[::1]`, which some clients take `localhost`
    /// for.
    pub async fn start(listener: TcpListener, parts: Parts) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let also = also_loopback(address).await;
        // Who may ask often may poll often.
        let polls = parts.section.polls_per_minute.max(parts.section.requests_per_minute);
        let shared = Arc::new(Shared {
            keys: parts.keys,
            operations: parts.operations,
            journal: parts.journal,
            broker: parts.broker,
            started: parts.started,
            requests: Limit::new(parts.section.requests_per_minute),
            polls: Limit::new(polls),
            captures: Limit::new(parts.section.captures_per_minute),
            failures: Limit::new(FAILURES_PER_MINUTE),
            cors_origins: parts.section.cors_origins,
            sockets: Sockets::new(parts.section.max_sockets, parts.timing),
            tracker: parts.tracker,
            token: parts.token,
        });
        for listener in [Some(listener), also].into_iter().flatten() {
            shared.tracker.spawn(serve(listener, shared.clone()));
        }
        Ok(Self { address, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sockets that were cut because their peer read too slowly.
    pub fn sockets_overflowed(&self) -> u64 {
        self.shared.sockets.overflowed()
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY can't be set");
        }
    });
    let service = router(shared.clone()).into_make_service_with_connect_info::<SocketAddr>();
    let stop = shared.token.clone().cancelled_owned();
    let serve = axum::serve(listener, service).with_graceful_shutdown(stop);
    tokio::select! {
        ended = serve => if let Err(error) = ended {
            tracing::error!(%error, "the HTTP listener failed");
        },
        // A client that never ends its request must not hold up the journal's close.
        () = async {
            shared.token.cancelled().await;
            tokio::time::sleep(STOP_PATIENCE).await;
        } => tracing::info!("some HTTP connections did not end by themselves; they are cut"),
    }
}

/// How long requests may take to end once the service stops.
const STOP_PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

/// The other loopback listener of a service on 127.0.0.1, where the machine has one to give.
async fn also_loopback(address: SocketAddr) -> Option<TcpListener> {
    if address.ip() != IpAddr::V4(Ipv4Addr::LOCALHOST) {
        return None;
    }
    let second = SocketAddr::from((Ipv6Addr::LOCALHOST, address.port()));
    TcpListener::bind(second)
        .await
        .inspect_err(|error| tracing::info!(%second, %error, "no second loopback listener"))
        .ok()
}

fn router(shared: Arc<Shared>) -> Router {
    let mut guarded = Router::new()
        .route("/api/devices", get(devices::list))
        .route("/api/devices/{device}/info", get(devices::info))
        .route("/api/devices/{device}/test", post(devices::test))
        .route("/api/events", get(events::list))
        .route("/metrics", get(metrics::text));
    // Three documented applications leave the prefix out.
    for prefix in ["/api", ""] {
        let at = |path: &str| format!("{prefix}/fingerprint/{path}");
        guarded = guarded
            .route(&at("enroll"), post(fingerprint::enroll))
            .route(&at("verify"), post(fingerprint::verify))
            .route(&at("identify"), post(fingerprint::identify))
            .route(&at("capture"), post(fingerprint::capture))
            .route(&at("match"), post(compare::compare))
            .route(&at("scan/start"), get(fingerprint::scan_start))
            .route(&at("scan/status/{scan}"), get(fingerprint::scan_status))
            .route(&at("scan/stop/{scan}"), post(fingerprint::scan_stop))
            .route(&at("users/{user}"), delete(fingerprint::delete_user));
    }
    let guarded =
        guarded.route_layer(middleware::from_fn_with_state(shared.clone(), layers::guard));
    Router::new()
        .route("/api/health", get(health::long))
        .route("/health", get(health::short))
        .route("/", get(socket::at_root))
        .route("/ws", get(socket::at_ws))
        .route("/ws/", get(socket::at_ws))
        .merge(guarded)
        .fallback(layers::not_found)
        .method_not_allowed_fallback(layers::not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn_with_state(shared.clone(), layers::finish))
        .with_state(shared)
}

/// The wall clock.
fn now() -> Timestamp {
    SystemTime::now().into()
}

/// A reader's activity as info and events name it, which know no `disconnected`.
fn state_word(state: ReaderState) -> &'static str {
    match state {
        ReaderState::Idle => "idle",
        ReaderState::Busy => "busy",
        ReaderState::Error | ReaderState::Disconnected => "error",
    }
}

/// A reader's link as the list names it.
fn link_word(state: ReaderState) -> &'static str {
    match state {
        ReaderState::Idle => "connected",
        ReaderState::Busy => "busy",
        ReaderState::Error => "error",
        ReaderState::Disconnected => "disconnected",
    }
}
