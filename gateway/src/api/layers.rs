//! What surrounds every route: the caller, the limits, the request's id, CORS, the envelope.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    body::Bytes,
    extract::{ConnectInfo, FromRequest, Request, State, rejection::BytesRejection},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    Shared,
    auth::Credential,
    error::{ApiError, ApiResult},
    fields::Fields,
    now, random_text,
};

const REQUEST_ID: &str = "x-request-id";
const REQUEST_ID_CHARS: usize = 16;

/// Lets in who shows a valid key, within its limit. The routes then ask for the permission.
pub(super) async fn guard(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let caller = match shared.keys.caller(Credential::from_headers(request.headers())) {
        Ok(caller) => caller,
        Err(error) => return refuse(&shared, peer, error),
    };
    let polls = request.uri().path().contains("/scan/status/");
    let limit = if polls { &shared.polls } else { &shared.requests };
    let standing = limit.take(caller.key(), now());
    let mut response = if standing.allowed {
        request.extensions_mut().insert(caller);
        next.run(request).await
    } else {
        ApiError::from(standing.error("requests")).into_response()
    };
    standing.write(response.headers_mut());
    response
}

/// Guessing is limited by address.
fn refuse(shared: &Shared, peer: SocketAddr, error: ApiError) -> Response {
    let standing = shared.failures.take(&peer.ip().to_string(), now());
    let mut response = if standing.allowed {
        error.into_response()
    } else {
        ApiError::from(standing.error("failed sign-ins")).into_response()
    };
    standing.write(response.headers_mut());
    response
}

/// The outermost layer: gives each request its id, answers preflights, renders errors.
pub(super) async fn finish(
    State(shared): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    let id = random_text(REQUEST_ID_CHARS).unwrap_or_default();
    let cors = Cors::of(&shared.cors_origins, request.headers());
    let preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if preflight {
        StatusCode::NO_CONTENT.into_response()
    } else {
        render(next.run(request).await, &id)
    };
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    if !headers.contains_key("x-ratelimit-limit") {
        shared.requests.untouched(now()).write(headers);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    cors.write(headers, preflight);
    response
}

/// An error in its envelope, also one that a layer below gave without.
fn render(mut response: Response, request_id: &str) -> Response {
    let status = response.status();
    let error = match response.extensions_mut().remove::<ApiError>() {
        Some(error) => error,
        None if status.is_client_error() || status.is_server_error() => {
            if response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == JSON) {
                return response;
            }
            ApiError::http(status, status.canonical_reason().unwrap_or("request failed"))
        }
        None => return response,
    };
    if status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE {
        tracing::error!(request_id, code = error.clone().into_body().code, "a request failed");
    }
    let mut rendered = error.render(request_id);
    for (name, value) in response.headers() {
        if ![header::CONTENT_LENGTH, header::CONTENT_TYPE, header::RETRY_AFTER].contains(name) {
            rendered.headers_mut().insert(name.clone(), value.clone());
        }
    }
    rendered
}

const JSON: &str = "application/json";

pub(super) async fn not_found() -> ApiError {
    ApiError::http(StatusCode::NOT_FOUND, "There is no such route")
}

pub(super) async fn not_allowed() -> ApiError {
    ApiError::http(StatusCode::METHOD_NOT_ALLOWED, "The route does not take this method")
}

/// The fields of a JSON body. Clients also send an empty one with a JSON content type, or none.
pub(super) struct Body(pub(super) Fields);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> ApiResult<Self> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        let json = kind.is_none_or(|kind| {
            kind.to_str().is_ok_and(|kind| kind.to_ascii_lowercase().contains("json"))
        });
        let bytes = Bytes::from_request(request, state).await.map_err(too_large_or_cut)?;
        if !json && !bytes.is_empty() {
            let message = "The body must be JSON (Content-Type: application/json)";
            return Err(ApiError::http(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
        Ok(Self(Fields::parse(&bytes)?))
    }
}

fn too_large_or_cut(rejection: BytesRejection) -> ApiError {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            ApiError::http(StatusCode::PAYLOAD_TOO_LARGE, "The body is larger than 1 MiB")
        }
        status => ApiError::http(status, "The body can't be read"),
    }
}

/// Whether pages of this origin may call; where they may, the headers that say so.
pub(super) struct Cors(Option<HeaderValue>);

impl Cors {
    fn of(allowed: &[String], headers: &HeaderMap) -> Self {
        let origin = headers.get(header::ORIGIN);
        Self(origin.filter(|origin| listed(allowed, origin)).cloned())
    }

    fn write(self, headers: &mut HeaderMap, preflight: bool) {
        let Some(origin) = self.0 else { return };
        let fixed = HeaderValue::from_static;
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.append(header::VARY, fixed("Origin"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, fixed("true"));
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            fixed(
                "X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, Retry-After, \
                   X-Request-Id, X-Next-After",
            ),
        );
        if preflight {
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, fixed("GET, POST, PUT, DELETE"));
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                fixed("Content-Type, X-API-Key, Authorization"),
            );
            headers.insert("access-control-allow-private-network", fixed("true"));
        }
    }
}

fn listed(allowed: &[String], origin: &HeaderValue) -> bool {
    allowed.iter().any(|listed| listed.as_bytes() == origin.as_bytes())
}

/// Whether a socket may be opened by this page: no page at all, one from this machine, or a listed
/// one. Sockets know no CORS; without this any page could try keys on one.
pub(super) fn socket_origin_allowed(allowed: &[String], headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    listed(allowed, origin) || origin.to_str().is_ok_and(is_loopback_origin)
}

fn is_loopback_origin(origin: &str) -> bool {
    let Some((_, host)) = origin.split_once("://") else { return false };
    let host = match host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => host,
    };
    matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_this_machine_and_listed_ones_may_open_sockets() {
        let allowed = ["https://app.example.org".to_owned()];
        for (origin, expected) in [
            ("http://localhost:3000", true),
            ("http://127.0.0.1", true),
            ("http://[::1]:8080", true),
            ("https://app.example.org", true),
            ("https://app.example.org.evil.example", false),
            ("http://localhost.evil.example", false),
            ("http://127.0.0.1.evil.example:80", false),
            ("null", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
            assert_eq!(socket_origin_allowed(&allowed, &headers), expected, "{origin}");
        }
        assert!(socket_origin_allowed(&[], &HeaderMap::new()), "no page at all");
    }
}
