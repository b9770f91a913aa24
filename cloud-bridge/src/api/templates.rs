//! Users' templates: sealed at rest, in REST answers only.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde::Deserialize;
use serde_json::{Value, json};
use topics::{ErrorBody, ErrorCode, Timestamp, UserId};

use super::{
    Api,
    auth::Caller,
    error::{ApiError, Body},
};
use crate::{
    ingest::round::{open_template, seal_template},
    service::{invalid, now},
    store::Template,
};

/// A template of a finger, before base64: more than any format has.
const MAX_TEMPLATE_BYTES: usize = 16 * 1024;
const MAX_FINGER_CHARACTERS: usize = 64;

/// What is posted. A field that is null is absent.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Posted {
    template: Option<String>,
    template_data: Option<String>,
    quality: Option<f64>,
    enrollment_id: Option<String>,
    finger_position: Option<String>,
    enrollment_date: Option<Timestamp>,
}

/// `POST /api/users/{id}/template`
pub(crate) async fn store(
    State(api): State<Api>,
    _: Caller,
    Path(id): Path<String>,
    Body(posted): Body<Posted>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let user = UserId::new(id)?;
    let Some(text) = posted.template.or(posted.template_data) else {
        return Err(invalid("template", "it is missing").into());
    };
    let template = normal(&text)?;
    let quality = match posted.quality {
        Some(quality) if !(0.0..=100.0).contains(&quality) => {
            return Err(invalid("quality", "it must be 0 to 100").into());
        }
        quality => quality.map(|quality| quality.round() as u8),
    };
    let finger = posted.finger_position.as_deref();
    if finger.is_some_and(|name| {
        name.is_empty() || name.len() > MAX_FINGER_CHARACTERS || name.chars().any(char::is_control)
    }) {
        return Err(invalid("fingerPosition", "it must have 1 to 64 characters").into());
    }
    let sealed = seal_template(&api.service.master, user, finger, &template)
        .map_err(|_| ErrorBody::new(ErrorCode::InternalError, "the template can't be sealed"))?;
    let row = Template {
        quality,
        enrollment_id: posted.enrollment_id,
        enrolled_at: posted.enrollment_date.unwrap_or_else(now),
        ..sealed
    };
    api.service.store.put_template(row.clone()).await?;
    let mut shown = described(&row);
    shown["success"] = true.into();
    shown["userId"] = json!(row.user);
    Ok((StatusCode::CREATED, Json(shown)))
}

/// `GET /api/users/{id}/template`: the newest, and all.
pub(crate) async fn read(
    State(api): State<Api>,
    _: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let user = UserId::new(id)?;
    let mut rows = api.service.store.templates(&user)?;
    rows.sort_by_key(|row| std::cmp::Reverse(row.enrolled_at));
    let mut all = Vec::with_capacity(rows.len());
    for row in &rows {
        let Some(template) = open_template(&api.service.master, row) else {
            tracing::error!(finger = row.finger, "a template can't be opened: another master key?");
            let text = "the template can't be opened";
            return Err(ErrorBody::new(ErrorCode::DbQueryFailed, text).into());
        };
        let mut shown = described(row);
        shown["template"] = template.into();
        all.push(shown);
    }
    let Some(mut shown) = all.first().cloned() else { return Err(no_template(&user).into()) };
    shown["userId"] = json!(user);
    shown["templates"] = all.into();
    Ok(Json(shown))
}

/// `DELETE /api/users/{id}/template`: all of them.
pub(crate) async fn erase(
    State(api): State<Api>,
    _: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let user = UserId::new(id)?;
    match api.service.store.delete_templates(user.clone()).await? {
        0 => Err(no_template(&user).into()),
        count => Ok(Json(json!({"success": true, "userId": user, "deleted": count}))),
    }
}

/// Everything but the template.
fn described(row: &Template) -> Value {
    json!({
        "fingerPosition": row.finger,
        "quality": row.quality,
        "enrollmentId": row.enrollment_id,
        "enrollmentDate": row.enrolled_at,
        "templateSha256": row.sha256,
    })
}

/// The template as standard base64; documented clients also leave out its padding.
fn normal(text: &str) -> Result<String, ErrorBody> {
    let text = text.trim();
    let bytes = STANDARD
        .decode(text)
        .or_else(|_| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')))
        .map_err(|_| invalid("template", "it is not base64"))?;
    if bytes.is_empty() || bytes.len() > MAX_TEMPLATE_BYTES {
        return Err(invalid("template", "it must have 1 to 16384 bytes"));
    }
    Ok(STANDARD.encode(bytes))
}

fn no_template(user: &UserId) -> ErrorBody {
    ErrorBody::new(ErrorCode::RecordNotFound, format!("user {user} has no template"))
        .with("table", "templates")
        .with("userId", user.as_str())
}
