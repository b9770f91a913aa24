//! The words of a session: its events and errors.

use topics::{ErrorBody, ErrorCode, EventBody, ReaderId, event::Placements};

use super::{Now, Operation, Outcome, PLACEMENTS, Planned, RETRY_AFTER_S, TemplateBytes};

pub(super) fn prompt(reader: &ReaderId, operation: &Operation) -> Planned {
    let message = format!("Place the finger on the reader (1 of {PLACEMENTS})");
    progress(reader, operation, message, 0, None)
}

pub(super) fn progress(
    reader: &ReaderId,
    operation: &Operation,
    message: String,
    scans_completed: u8,
    quality: Option<u8>,
) -> Planned {
    let body = EventBody::ScanProgress {
        device_id: reader.clone(),
        scan_id: operation.scan_id.clone(),
        message,
        scans_completed,
        scans_required: PLACEMENTS,
        quality,
    };
    Planned::of(operation, body)
}

/// The end of a plain scan: the owner gets the template.
pub(super) fn scanned(
    reader: &ReaderId,
    operation: &Operation,
    quality: u8,
    scan_time: u64,
    handout: TemplateBytes,
) -> Planned {
    complete(reader, operation, quality, scan_time, Some(&handout), None).with_template(handout)
}

/// A finger was taken for a comparison: nobody gets its template.
pub(super) fn captured(reader: &ReaderId, operation: &Operation, quality: u8, now: Now) -> Planned {
    complete(reader, operation, quality, operation.age_ms(now), None, None)
}

pub(super) fn complete(
    reader: &ReaderId,
    operation: &Operation,
    quality: u8,
    scan_time: u64,
    template: Option<&TemplateBytes>,
    placements: Option<Placements>,
) -> Planned {
    let body = EventBody::ScanComplete {
        device_id: reader.clone(),
        scan_id: operation.scan_id.clone(),
        quality,
        scan_time,
        template_sha256: template.map(TemplateBytes::sha256),
        placements,
    };
    Planned::of(operation, body)
}

pub(super) fn searching(reader: &ReaderId, operation: &Operation, progress: u8) -> Planned {
    let (device_id, scan_id) = (reader.clone(), operation.scan_id.clone());
    Planned::of(operation, EventBody::IdentificationSearching { device_id, scan_id, progress })
}

pub(super) fn verified(reader: &ReaderId, operation: &Operation, outcome: &Outcome) -> Planned {
    Planned::of(operation, result(reader, &operation.scan_id, outcome))
}

pub(super) fn identified(reader: &ReaderId, operation: &Operation, outcome: &Outcome) -> Planned {
    Planned::of(operation, result(reader, &operation.scan_id, outcome))
}

/// The event that tells a comparison's outcome.
pub(crate) fn result(reader: &ReaderId, scan_id: &str, outcome: &Outcome) -> EventBody {
    let (device_id, scan_id) = (reader.clone(), scan_id.to_owned());
    match outcome {
        Outcome::Verified { matched, confidence, time_ms, user_id, .. } => {
            EventBody::VerificationResult {
                device_id,
                scan_id,
                r#match: *matched,
                confidence: *confidence,
                user_id: user_id.clone(),
                verification_time: *time_ms,
            }
        }
        Outcome::Identified { user_id, confidence, template_id, time_ms, .. } => {
            EventBody::IdentificationResult {
                device_id,
                scan_id,
                r#match: user_id.is_some(),
                user_id: user_id.clone(),
                confidence: *confidence,
                identification_time: *time_ms,
                matched_template: template_id.clone(),
            }
        }
        Outcome::Scanned { template, quality, scan_time_ms } => EventBody::ScanComplete {
            device_id,
            scan_id,
            quality: *quality,
            scan_time: *scan_time_ms,
            template_sha256: Some(template.sha256()),
            placements: None,
        },
        Outcome::Enrolled { template, quality, enrollment_id, user_id, .. } => {
            EventBody::FingerprintEnrolled {
                device_id,
                scan_id,
                user_id: user_id.clone(),
                enrollment_id: enrollment_id.clone(),
                quality: *quality,
                template_sha256: template.sha256(),
            }
        }
    }
}

pub(super) fn failed(reader: &ReaderId, operation: &Operation, error: &ErrorBody) -> Planned {
    Planned::of(operation, error_event(reader, &operation.scan_id, error))
}

pub(crate) fn error_event(reader: &ReaderId, scan_id: &str, error: &ErrorBody) -> EventBody {
    EventBody::ScanError {
        device_id: Some(reader.clone()),
        scan_id: Some(scan_id.to_owned()),
        error: error.message.clone(),
        message: error.message.clone(),
        code: error.code,
        name: error.name.clone(),
        retryable: error.retryable,
    }
}

/// `scan:timeout`, and the error that follows it.
pub(super) fn timed_out(
    reader: &ReaderId,
    operation: &Operation,
    placements_done: Option<u8>,
) -> (Planned, ErrorBody) {
    let message = match placements_done {
        None => "No fingerprint detected in time".to_owned(),
        Some(done) => format!("Enrollment timed out with {done} of {PLACEMENTS} scans"),
    };
    let wait_ms = (operation.deadline.saturating_sub(operation.began)).as_millis();
    let body = EventBody::ScanTimeout {
        device_id: reader.clone(),
        scan_id: operation.scan_id.clone(),
        message: message.clone(),
    };
    let mut error = ErrorBody::new(ErrorCode::NoFingerprintDetected, message)
        .with("reason", "timeout")
        .with("timeout", u64::try_from(wait_ms).unwrap_or(u64::MAX));
    if let Some(done) = placements_done {
        error = error.with("scansCompleted", done).with("scansRequired", PLACEMENTS);
    }
    (Planned::of(operation, body), error)
}

// ---- errors -----------------------------------------------------------------------------------
// Their texts contain the phrases that one documented client looks for.

pub(super) fn low_quality(quality: u8, threshold: u8) -> ErrorBody {
    let text = format!("low quality: the image has {quality} of the {threshold} that are needed");
    ErrorBody::new(ErrorCode::LowQuality, text)
        .with("quality", quality)
        .with("threshold", threshold)
}

pub(super) fn unusable() -> ErrorBody {
    let text = "The finger gave no usable image: clean it, place it flat and try again";
    ErrorBody::new(ErrorCode::TemplateExtractionFailed, text).with("reason", "bad placement")
}

pub(super) fn lost() -> ErrorBody {
    let text = "The fingerprint reader was disconnected during the operation";
    ErrorBody::new(ErrorCode::DeviceDisconnected, text)
}

/// Known, but not there.
pub(crate) fn absent(reader: &ReaderId) -> ErrorBody {
    let text = "Fingerprint reader is disconnected (device not connected)";
    ErrorBody::new(ErrorCode::DeviceDisconnected, text).with("deviceId", reader.as_str())
}

pub(crate) fn busy(reader: &ReaderId, current: &str) -> ErrorBody {
    ErrorBody::new(ErrorCode::DeviceBusy, "Fingerprint reader is busy (device busy)")
        .with("deviceId", reader.as_str())
        .with("currentOperation", current)
        .with("retryAfter", RETRY_AFTER_S)
}

pub(crate) fn unknown_scan(scan_id: &str) -> ErrorBody {
    let shown: String = scan_id.chars().take(80).collect();
    ErrorBody::new(ErrorCode::RecordNotFound, "Scan session not found").with("scanId", shown)
}

pub(super) fn internal() -> ErrorBody {
    ErrorBody::new(ErrorCode::InternalError, "Internal error")
}
