//! What each command does, and its result as the REST route of the same purpose gives it, without
//! the template.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use topics::{CommandId, CommandName, CommandStatus, ErrorBody, ErrorCode, UserId, record::Cause};

use super::{Accepted, Commands, Finished};
use crate::{
    journal::Owner,
    operation::{Operations, Origin, Outcome, Request, Started, TemplateBytes},
    readers::ReaderView,
    session::PLACEMENTS,
};

/// All parameters of all commands; each takes its own.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Params {
    device_id: Option<String>,
    user_id: Option<UserId>,
    user_ids: Option<Vec<UserId>>,
    metadata: Option<Map<String, Value>>,
    command_id: Option<CommandId>,
    /// Milliseconds.
    timeout: Option<u64>,
    quality_threshold: Option<u8>,
}

impl Commands {
    pub(super) async fn execute(&self, accepted: Accepted) -> Finished {
        let Accepted { id, name, params, templates, .. } = accepted;
        match self.do_it(&id, name, params, templates.as_ref()).await {
            Ok((result, template)) => {
                Finished { status: CommandStatus::Completed, result: Ok(result), template }
            }
            Err(error) => {
                Finished { status: status_of(&error), result: Err(error), template: None }
            }
        }
    }

    async fn do_it(
        &self,
        id: &CommandId,
        name: CommandName,
        params: Value,
        templates: Option<&Value>,
    ) -> Result<(Value, Option<TemplateBytes>), ErrorBody> {
        let params: Params = match params {
            Value::Null => Params::default(),
            params => serde_json::from_value(params)
                .map_err(|error| invalid(&format!("params: {error}")))?,
        };
        let operations = &self.inner.operations;
        let device = params.device_id.as_deref();
        let only = |result: Value| Ok((result, None));
        match name {
            CommandName::Enroll => {
                let user_id = params.user_id.ok_or_else(|| invalid("userId is missing"))?;
                let request = Request::Enroll { user_id, metadata: params.metadata };
                self.operation(id, device, request).await
            }
            CommandName::Verify => {
                let user_id = params.user_id.ok_or_else(|| invalid("userId is missing"))?;
                let template = template(templates)?;
                self.operation(id, device, Request::Verify { user_id, template }).await
            }
            CommandName::Identify => {
                let (template, user_ids) = (template(templates)?, params.user_ids);
                self.operation(id, device, Request::Identify { template, user_ids }).await
            }
            CommandName::Capture => {
                let timeout = params.timeout.map(Duration::from_millis);
                let quality_threshold = params.quality_threshold;
                self.operation(id, device, Request::Capture { timeout, quality_threshold }).await
            }
            CommandName::Cancel => {
                let other = params.command_id.ok_or_else(|| invalid("commandId is missing"))?;
                only(self.cancel(&other).await?)
            }
            CommandName::Devices => only(json!({ "devices": devices(operations) })),
            CommandName::DeviceTest => {
                let test = operations.test(device).await?;
                only(json!({
                    "success": true,
                    "status": "success",
                    "message": "Device test passed",
                    "quality": test.signal_percent,
                    "responseTime": millis(test.response_time),
                    "deviceId": test.device_id,
                }))
            }
            CommandName::Health => only((self.inner.health)()),
        }
    }

    async fn operation(
        &self,
        id: &CommandId,
        device: Option<&str>,
        request: Request,
    ) -> Result<(Value, Option<TemplateBytes>), ErrorBody> {
        let cause = Cause { command_id: Some(id.clone()), request_id: None };
        let origin = Origin { owner: Owner::Command(id.clone()), cause };
        let started = self.inner.operations.start(device, request, origin).await?;
        if let Some(running) = self.running_map().get_mut(id) {
            running.scan_id = Some(started.scan_id.clone());
        }
        let Started { scan_id, device_id, outcome, .. } = started;
        let stopping = || ErrorBody::new(ErrorCode::ServiceUnavailable, "The service is stopping");
        let outcome = outcome.await.unwrap_or_else(|_| Err(stopping()))?;
        let (mut result, template) = result(outcome);
        result["scanId"] = json!(scan_id);
        result["deviceId"] = json!(device_id);
        Ok((result, template))
    }

    async fn cancel(&self, id: &CommandId) -> Result<Value, ErrorBody> {
        let unknown = || {
            ErrorBody::new(ErrorCode::RecordNotFound, "No running command has this id")
                .with("commandId", id.as_str())
        };
        let scan_id = self.running_map().get(id).and_then(|running| running.scan_id.clone());
        let scan_id = scan_id.ok_or_else(unknown)?;
        self.inner.operations.stop(&scan_id, &Owner::Command(id.clone())).await?;
        Ok(json!({ "success": true, "commandId": id, "cancelled": true }))
    }
}

/// A result as its REST route gives it, the template beside it.
fn result(outcome: Outcome) -> (Value, Option<TemplateBytes>) {
    match outcome {
        Outcome::Scanned { template, quality, scan_time_ms } => {
            let result = json!({
                "success": true,
                "templateSha256": template.sha256(),
                "quality": quality,
                "scanTime": scan_time_ms,
            });
            (result, Some(template))
        }
        Outcome::Enrolled { template, quality, enrollment_id, template_id, user_id } => {
            let result = json!({
                "success": true,
                "templateSha256": template.sha256(),
                "quality": quality,
                "enrollmentId": enrollment_id,
                "templateId": template_id,
                "scansCompleted": PLACEMENTS,
                "message": "Fingerprint enrolled successfully",
                "userId": user_id,
            });
            (result, Some(template))
        }
        Outcome::Verified { matched, confidence, quality, time_ms, user_id } => {
            let result = json!({
                "success": true,
                "match": matched,
                "matched": matched,
                "confidence": confidence,
                "userId": user_id,
                "quality": quality,
                "verificationTime": time_ms,
            });
            (without_nulls(result), None)
        }
        Outcome::Identified { user_id, confidence, template_id, time_ms, quality } => {
            let matched = user_id.is_some();
            let result = json!({
                "success": true,
                "match": matched,
                "matched": matched,
                "confidence": confidence,
                "userId": user_id,
                "matchedTemplate": template_id,
                "identificationTime": time_ms,
                "quality": quality,
            });
            (without_nulls(result), None)
        }
    }
}

fn without_nulls(mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, value| !value.is_null());
    }
    value
}

/// The readers as the documented list shows them.
fn devices(operations: &Operations) -> Vec<Value> {
    operations.readers().iter().map(device).collect()
}

fn device(view: &ReaderView) -> Value {
    json!({
        "id": view.id,
        "name": view.name,
        "serialNumber": view.serial_number,
        "model": view.model,
        "firmwareVersion": view.firmware,
        "status": view.list_status(),
        "state": view.status,
        "lastActivity": view.last_activity,
    })
}

fn template(templates: Option<&Value>) -> Result<Option<TemplateBytes>, ErrorBody> {
    let Some(text) = templates.and_then(|templates| templates.get("template")) else {
        return Ok(None);
    };
    let text = text.as_str().ok_or_else(|| invalid("template must be base64"))?;
    let bytes = STANDARD.decode(text).map_err(|_| invalid("template must be base64"))?;
    Ok(Some(bytes.into()))
}

/// A deadline and a cancellation have states of their own.
fn status_of(error: &ErrorBody) -> CommandStatus {
    match error.details.get("reason").and_then(Value::as_str) {
        Some("timeout") => CommandStatus::Timeout,
        Some("stopped") => CommandStatus::Cancelled,
        Some(_) | None => CommandStatus::Failed,
    }
}

fn invalid(text: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::Validation, text)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
