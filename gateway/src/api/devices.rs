//! Readers: list, details, test.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Path, Query, State},
};
use serde_json::{Value, json};
use topics::{ErrorBody, ErrorCode, ReaderState};

use super::{
    Shared,
    auth::Caller,
    error::{ApiResult, invalid},
    layers::Body,
    link_word, state_word,
};
use crate::{config::Permission, readers::ReaderView};

/// `GET /api/devices`: a bare array; unplugged readers only with `?all=true`, because clients take
/// its first element for one that works.
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<Vec<(String, String)>>,
) -> ApiResult<Json<Value>> {
    caller.need(Permission::DeviceRead)?;
    let all = query.iter().any(|(key, value)| key == "all" && (value == "true" || value == "1"));
    let readers = shared.operations.readers();
    let shown = readers.iter().filter(|reader| all || reader.is_connected());
    Ok(Json(shown.map(device).collect()))
}

/// `GET /api/devices/{id}/info`
pub(super) async fn info(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(wanted): Path<String>,
) -> ApiResult<Json<Value>> {
    caller.need(Permission::DeviceRead)?;
    let reader = shared.known_reader(&wanted)?;
    let mut info = device(&reader);
    info["status"] = state_word(reader.status).into();
    info["connectionStatus"] = link_word(reader.status).into();
    info["capabilities"] = json!({
        "resolution": format!("{} DPI", reader.dpi),
        "imageSize": format!("{}x{}", reader.width, reader.height),
    });
    Ok(Json(info))
}

/// `POST /api/devices/{id}/test`
pub(super) async fn test(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(wanted): Path<String>,
    _body: Body,
) -> ApiResult<Json<Value>> {
    caller.need(Permission::DeviceRead)?;
    let reader = shared.known_reader(&wanted)?;
    let result = shared.operations.test(Some(reader.id.as_str())).await?;
    Ok(Json(json!({
        "success": true, "status": "success", "message": "The reader answers",
        "quality": result.signal_percent, "responseTime": result.response_time.as_millis() as u64,
    })))
}

fn device(reader: &ReaderView) -> Value {
    let mut device = json!({
        "id": reader.id, "name": reader.name, "serialNumber": reader.serial_number,
        "model": reader.model, "status": link_word(reader.status),
        "state": state_word(reader.status), "firmwareVersion": reader.firmware,
    });
    if let Some(last) = reader.last_activity {
        device["lastActivity"] = json!(last);
    }
    device
}

impl Shared {
    /// A reader by its id or serial number, plugged in or not.
    pub(super) fn known_reader(&self, wanted: &str) -> Result<ReaderView, ErrorBody> {
        self.operations.reader_named(wanted).ok_or_else(|| not_found(Some(wanted)))
    }

    /// The reader to use: the one that is named, or the first that is free, or the first.
    pub(super) fn usable_reader(&self, wanted: Option<&str>) -> Result<ReaderView, ErrorBody> {
        if let Some(wanted) = wanted {
            if wanted.len() > 128 {
                return Err(invalid("deviceId", "must be a reader's id or serial number"));
            }
            let reader = self.known_reader(wanted)?;
            return if reader.is_connected() { Ok(reader) } else { Err(not_found(Some(wanted))) };
        }
        let connected: Vec<ReaderView> =
            self.operations.readers().into_iter().filter(ReaderView::is_connected).collect();
        let idle = connected.iter().find(|reader| reader.status == ReaderState::Idle);
        idle.or(connected.first()).cloned().ok_or_else(|| not_found(None))
    }
}

fn not_found(wanted: Option<&str>) -> ErrorBody {
    let message = "Fingerprint reader not connected (device not found)";
    let error = ErrorBody::new(ErrorCode::DeviceNotFound, message);
    match wanted {
        Some(wanted) => error.with("deviceId", wanted.chars().take(128).collect::<String>()),
        None => error,
    }
}
