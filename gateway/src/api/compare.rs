//! `POST /api/fingerprint/match`: templates that the caller holds, compared without a reader.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Extension, Json, extract::State};
use minutiae::{Prepared, Template};
use serde_json::{Value, json};
use topics::{ErrorCode, UserId};

use super::{
    Shared,
    auth::Caller,
    error::{ApiError, ApiResult},
    layers::Body,
};
use crate::{config::Permission, operation::TemplateBytes};

const MAX_CANDIDATES: usize = 10_000;
/// Where the documented scale of confidence puts the decision.
const DECISION: f64 = 70.0;

struct Candidate {
    id: Option<String>,
    user: Option<UserId>,
    template: TemplateBytes,
}

pub(super) async fn compare(
    State(_): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Body(body): Body,
) -> ApiResult<Json<Value>> {
    caller.need(Permission::FingerprintIdentify)?;
    let probe = body.required_template()?.decode()?;
    let threshold = body.number("threshold", 0, 100)?.map_or(DECISION, |given| given as f64);
    let mut candidates = Vec::new();
    for fields in body.list("candidates", MAX_CANDIDATES)? {
        candidates.push(Candidate {
            id: fields.text("id")?.map(str::to_owned),
            user: fields.optional_user()?,
            template: fields.required_template()?.decode()?,
        });
    }
    let work = move || search(&probe, &candidates, threshold);
    match tokio::task::spawn_blocking(work).await {
        Ok(answer) => answer.map(Json),
        Err(error) => {
            tracing::error!(%error, "a comparison failed");
            Err(ApiError::new(ErrorCode::InternalError, "The comparison failed"))
        }
    }
}

fn search(probe: &[u8], candidates: &[Candidate], threshold: f64) -> ApiResult<Value> {
    let probe = prepare(probe, "template")?;
    let mut results = Vec::with_capacity(candidates.len());
    let mut best: Option<(f64, &Candidate)> = None;
    for (index, candidate) in candidates.iter().enumerate() {
        let other = prepare(&candidate.template, &format!("candidates[{index}].template"))?;
        let score = minutiae::compare(&probe, &other);
        let confidence = minutiae::confidence(score.get(), minutiae::VERIFY_THRESHOLD);
        if best.is_none_or(|(most, _)| confidence > most) {
            best = Some((confidence, candidate));
        }
        let mut row = BTreeMap::from([("confidence", json!(confidence))]);
        row.extend(candidate.id.as_ref().map(|id| ("id", json!(id))));
        row.extend(candidate.user.as_ref().map(|user| ("userId", json!(user))));
        results.push(row);
    }
    let matched = best.filter(|(confidence, _)| *confidence >= threshold);
    Ok(json!({
        "success": true,
        "match": matched.is_some(),
        "matched": matched.is_some(),
        "confidence": best.map_or(0.0, |(confidence, _)| confidence),
        "userId": matched.and_then(|(_, candidate)| candidate.user.as_ref()),
        "results": results,
    }))
}

fn prepare(template: &[u8], field: &str) -> ApiResult<Prepared> {
    Template::read(template).map(|template| Prepared::new(&template)).map_err(|error| {
        ApiError::new(ErrorCode::MatchFailed, "A template can't be compared (match failed)")
            .with("field", field)
            .with("reason", error.to_string())
    })
}
