//! Enrolment, verification, identification, capture, scan sessions.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    extract::{Path, Query, State},
    http::{HeaderMap, Method, StatusCode},
};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use topics::{ErrorCode, ReaderId, UserId, record::Cause};

use super::{
    Shared,
    auth::Caller,
    error::{ApiError, ApiResult},
    layers::{Body, not_allowed},
    now,
};
use crate::{
    config::Permission,
    journal::Owner,
    operation::{Origin, Outcome, Request, ScanState, Started},
};

/// Bounds of a wait that a caller may ask for, milliseconds.
pub(super) const WAIT_MS: (u64, u64) = (1_000, 60_000);

/// `POST /api/fingerprint/enroll`
pub(super) async fn enroll(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Body(body): Body,
) -> ApiResult<Json<Value>> {
    caller.need(Permission::FingerprintEnroll)?;
    let request = Request::Enroll { user_id: body.user()?, metadata: body.metadata()? };
    let done = shared.perform(&caller, body.device()?, request).await?;
    let Outcome::Enrolled { template, quality, enrollment_id, template_id, user_id } = done.outcome
    else {
        return Err(mismatched());
    };
    Ok(Json(json!({
        "success": true, "template": template.base64(), "quality": quality,
        "enrollmentId": enrollment_id, "templateId": template_id, "scansCompleted": 3,
        "message": "Fingerprint enrolled", "userId": user_id, "deviceId": done.device_id,
    })))
}

/// `POST /api/fingerprint/verify`: a template from a scan is compared with what is stored, any
/// other with a finger that is captured now (never a scan's output with a fresh capture).
pub(super) async fn verify(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Body(body): Body,
) -> ApiResult<Json<Value>> {
    caller.need(Permission::FingerprintVerify)?;
    let user_id = body.user()?;
    let text = body.required_template()?;
    let device = body.device()?;
    // A reader that is named is checked before the template is looked at.
    if device.is_some() {
        shared.usable_reader(device)?;
    }
    let template = text.decode()?;
    let done = shared
        .perform(&caller, device, Request::Verify { user_id, template: Some(template) })
        .await?;
    let Outcome::Verified { matched, confidence, quality, time_ms, user_id } = done.outcome else {
        return Err(mismatched());
    };
    let mut answer = json!({
        "success": true, "match": matched, "matched": matched, "confidence": confidence,
        "userId": user_id, "verificationTime": time_ms, "deviceId": done.device_id,
    });
    if let Some(quality) = quality {
        answer["quality"] = quality.into();
    }
    Ok(Json(answer))
}

/// `POST /api/fingerprint/identify`
pub(super) async fn identify(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Body(body): Body,
) -> ApiResult<Json<Value>> {
    caller.need(Permission::FingerprintIdentify)?;
    let (text, user_ids, device) = (body.template()?, body.users()?, body.device()?);
    if device.is_some() {
        shared.usable_reader(device)?;
    }
    let template = text.map(|text| text.decode()).transpose()?;
    let done = shared.perform(&caller, device, Request::Identify { template, user_ids }).await?;
    let Outcome::Identified { user_id, confidence, template_id, time_ms, quality } = done.outcome
    else {
        return Err(mismatched());
    };
    let matched = user_id.is_some();
    let mut answer = json!({
        "success": true, "match": matched, "matched": matched,
        "confidence": if matched { confidence } else { 0.0 }, "userId": user_id,
        "matchedTemplate": template_id, "identificationTime": time_ms, "deviceId": done.device_id,
    });
    if let Some(quality) = quality {
        answer["quality"] = quality.into();
    }
    Ok(Json(answer))
}

/// `POST /api/fingerprint/capture`
pub(super) async fn capture(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Body(body): Body,
) -> ApiResult<Json<Value>> {
    caller.need(Permission::FingerprintScan)?;
    let timeout = body.number("timeout", WAIT_MS.0, WAIT_MS.1)?.map(Duration::from_millis);
    let quality_threshold = body.number("qualityThreshold", 0, 100)?.map(|least| least as u8);
    let request = Request::Capture { timeout, quality_threshold };
    let done = shared.perform(&caller, body.device()?, request).await?;
    let Outcome::Scanned { template, quality, scan_time_ms } = done.outcome else {
        return Err(mismatched());
    };
    Ok(Json(json!({
        "success": true, "template": template.base64(), "quality": quality,
        "scanId": done.scan_id, "deviceId": done.device_id, "scanTime": scan_time_ms,
    })))
}

/// `GET /api/fingerprint/scan/start`: a GET that does something, as documented; so it is never
/// cached, and neither a prefetch nor a HEAD starts anything.
pub(super) async fn scan_start(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    method: Method,
    headers: HeaderMap,
    Query(query): Query<Vec<(String, String)>>,
) -> ApiResult<Json<Value>> {
    caller.need(Permission::FingerprintScan)?;
    if method == Method::HEAD {
        return Err(not_allowed().await);
    }
    let purpose = headers.get("sec-purpose").or(headers.get("purpose"));
    if purpose.is_some_and(|value| value.as_bytes().windows(8).any(|part| part == b"prefetch")) {
        return Err(ApiError::http(StatusCode::BAD_REQUEST, "A prefetch starts no scan"));
    }
    let device = query.iter().find(|(key, _)| key == "deviceId").map(|(_, value)| value.as_str());
    let device = device.filter(|text| !text.is_empty() && *text != "null");
    let request = Request::Scan { timeout: None, quality_threshold: None };
    let started = shared.begin(&caller, device, request, Cause::default()).await?;
    Ok(Json(json!({
        "success": true, "scanId": started.scan_id, "status": ScanState::Waiting,
        "deviceId": started.device_id, "expiresAt": started.expires_at,
    })))
}

/// `GET /api/fingerprint/scan/status/{scanId}`
pub(super) async fn scan_status(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(scan_id): Path<String>,
) -> ApiResult<Json<Value>> {
    caller.need(Permission::FingerprintScan)?;
    let status = shared
        .operations
        .status(&scan_id, &caller.owner())
        .ok_or_else(|| unknown_scan(&scan_id))?;
    let mut answer = json!({
        "success": true, "scanId": status.scan_id, "status": status.state,
        "deviceId": status.device_id,
    });
    if let Some((template, quality, scan_time_ms)) = status.scanned() {
        answer["quality"] = quality.into();
        answer["template"] = template.base64().into();
        answer["scanTime"] = scan_time_ms.into();
    }
    if let Some(error) = status.error() {
        answer["error"] = error.message.clone().into();
        answer["code"] = error.code.into();
    }
    Ok(Json(answer))
}

/// `POST /api/fingerprint/scan/stop/{scanId}`
pub(super) async fn scan_stop(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(scan_id): Path<String>,
    _body: Body,
) -> ApiResult<Json<Value>> {
    caller.need(Permission::FingerprintScan)?;
    shared.operations.stop(&scan_id, &caller.owner()).await?;
    Ok(Json(json!({ "success": true, "status": "success", "message": "Scan stopped" })))
}

/// `DELETE /api/fingerprint/users/{userId}`
pub(super) async fn delete_user(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(user): Path<String>,
) -> ApiResult<Json<Value>> {
    caller.need(Permission::FingerprintDelete)?;
    let user = UserId::new(user).map_err(|error| ApiError::field("userId", error.rule))?;
    let deleted = shared.operations.delete_user(&user).await?;
    Ok(Json(json!({ "success": true, "deleted": deleted })))
}

/// An operation that ended well.
struct Done {
    scan_id: String,
    device_id: ReaderId,
    outcome: Outcome,
}

impl Shared {
    /// Runs an operation to its end. When the caller goes away meanwhile, it is stopped.
    async fn perform(
        self: &Arc<Self>,
        caller: &Caller,
        device: Option<&str>,
        request: Request,
    ) -> ApiResult<Done> {
        let (reply, begun) = oneshot::channel();
        // In a task of its own: a caller who goes away between the operation's start and our hearing of
        // it would leave it to its deadline.
        tokio::spawn({
            let (shared, caller, device) =
                (self.clone(), caller.clone(), device.map(str::to_owned));
            async move {
                let begun =
                    shared.begin(&caller, device.as_deref(), request, Cause::default()).await;
                let _ = reply.send(begun.map(|started| {
                    let (scan_id, owner) = (started.scan_id.clone(), caller.owner());
                    (started, StopWhenDropped { armed: true, shared, scan_id, owner })
                }));
            }
        });
        let (started, mut abandoned) = begun.await.map_err(|_| stopping())??;
        let ended = started.outcome.await;
        abandoned.armed = false;
        match ended {
            Ok(Ok(outcome)) => {
                Ok(Done { scan_id: started.scan_id, device_id: started.device_id, outcome })
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(stopping()),
        }
    }

    /// Begins an operation; one that takes a finger counts against its reader's limit.
    pub(super) async fn begin(
        &self,
        caller: &Caller,
        device: Option<&str>,
        request: Request,
        cause: Cause,
    ) -> ApiResult<Started> {
        let origin = Origin { owner: caller.owner(), cause };
        if !self.operations.takes_finger(&request) {
            return Ok(self.operations.start(device, request, origin).await?);
        }
        let reader = self.usable_reader(device)?;
        let standing = self.captures.take(reader.id.as_str(), now());
        if !standing.allowed {
            let error = standing.error("captures on this reader");
            return Err(ApiError::from(error.with("deviceId", reader.id.as_str())));
        }
        self.operations
            .start(Some(reader.id.as_str()), request, origin)
            .await
            .inspect_err(|_| self.captures.give_back(reader.id.as_str()))
            .map_err(ApiError::from)
    }
}

pub(super) fn unknown_scan(scan_id: &str) -> ApiError {
    let scan_id: String = scan_id.chars().take(128).collect();
    ApiError::new(ErrorCode::RecordNotFound, "Scan session not found (record not found)")
        .with("scanId", scan_id)
        .with("table", "scans")
}

fn stopping() -> ApiError {
    ApiError::new(ErrorCode::ServiceUnavailable, "The service is stopping")
}

fn mismatched() -> ApiError {
    tracing::error!("an operation ended with another one's outcome");
    ApiError::new(ErrorCode::InternalError, "Internal error")
}

/// The HTTP connection carries a blocking operation: when it closes, the operation ends.
struct StopWhenDropped {
    armed: bool,
    shared: Arc<Shared>,
    scan_id: String,
    owner: Owner,
}

impl Drop for StopWhenDropped {
    fn drop(&mut self) {
        if self.armed {
            self.shared.operations.abandon(&self.scan_id, &self.owner);
        }
    }
}
