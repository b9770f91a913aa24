//! Events as a person reads them: one line each.

use topics::{Event, EventBody};

/// `14:30:20.512  device-001  scan:complete            quality 92, 1250 ms`
pub(crate) fn line(event: &Event) -> String {
    let time = event.timestamp.to_string();
    let clock_time = time.get(11..23).unwrap_or(&time);
    let place = event.body.reader().map_or(event.gateway.as_str(), |reader| reader.as_str());
    format!("{clock_time}  {place:<12} {:<24} {}", event.event.as_str(), what(&event.body))
        .trim_end()
        .to_owned()
}

fn what(body: &EventBody) -> String {
    match body {
        EventBody::DeviceConnected { device, .. } => {
            format!("{} {}", device.model, device.serial_number)
        }
        EventBody::DeviceDisconnected { reason, .. } => reason.clone().unwrap_or_default(),
        EventBody::DeviceStatus { status, previous_status, .. } => {
            format!("{} -> {}", word(previous_status), word(status))
        }
        EventBody::FingerprintDetected { quality, .. } => format!("quality {quality}"),
        EventBody::FingerprintEnrolled { user_id, quality, .. } => {
            format!("{user_id}, quality {quality}")
        }
        EventBody::ScanStarted { .. } | EventBody::ScanStopped { .. } => String::new(),
        EventBody::ScanProgress { message, scans_completed, scans_required, .. } => {
            format!("{scans_completed} of {scans_required}: {message}")
        }
        EventBody::ScanComplete { quality, scan_time, .. } => {
            format!("quality {quality}, {scan_time} ms")
        }
        EventBody::ScanError { message, code, .. } => format!("{code}: {message}"),
        EventBody::ScanTimeout { message, .. } => message.clone(),
        EventBody::VerificationResult { r#match, user_id, confidence, .. } => {
            format!("{} {user_id}, confidence {confidence}", if *r#match { "is" } else { "is not" })
        }
        EventBody::IdentificationSearching { progress, .. } => format!("{progress} %"),
        EventBody::IdentificationResult { user_id, confidence, .. } => match user_id {
            Some(user) => format!("{user}, confidence {confidence}"),
            None => "nobody we know".to_owned(),
        },
        EventBody::AccessGranted { user_id, valid_for_ms, .. } => {
            format!("{user_id}, valid for {valid_for_ms} ms")
        }
        EventBody::AccessDenied { reason, .. } => reason.clone(),
        EventBody::ServiceStatus { status, version, .. } => {
            format!("{} (version {version})", word(status))
        }
        EventBody::JournalGap { from, to, count, .. } => match count {
            Some(count) => format!("{count} records lost, {from} to {to}"),
            None => "a new journal begins; what the old one had not sent is unknown".to_owned(),
        },
        EventBody::CommandResult { command, status, error, .. } => match error {
            Some(error) => format!("{command} {}: {error}", word(status)),
            None => format!("{command} {}", word(status)),
        },
    }
}

/// The word that a unit variant has on the wire.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(body: serde_json::Value) -> Event {
        let mut value = serde_json::json!({
            "timestamp": "2026-11-22T14:30:20.512Z", "clock": "synced", "gateway": "hq-lobby",
            "id": "0199c0de-0000-7000-8000-000000000001", "lane": "events", "seq": 1,
            "event": body["type"],
        });
        value.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_person_sees_when_where_what_and_who() {
        let known = event(serde_json::json!({
            "type": "identification:result", "deviceId": "device-001", "scanId": "s",
            "match": true, "userId": "user-001", "confidence": 97.5, "identificationTime": 9,
            "matchedTemplate": "t"
        }));
        assert_eq!(
            line(&known),
            "14:30:20.512  device-001   identification:result    user-001, confidence 97.5"
        );
        let stranger = event(serde_json::json!({
            "type": "identification:result", "deviceId": "device-001", "scanId": "s",
            "match": false, "userId": null, "confidence": 0, "identificationTime": 9,
            "matchedTemplate": null
        }));
        assert!(line(&stranger).ends_with("nobody we know"));
        let started = event(serde_json::json!({
            "type": "scan:started", "deviceId": "device-001", "scanId": "s"
        }));
        assert_eq!(line(&started), "14:30:20.512  device-001   scan:started");
    }
}
