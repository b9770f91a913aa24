//! How operations stand: for who polls, and to find the reader of one that is to be stopped.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use topics::{ErrorBody, ReaderId, Timestamp};

use crate::{
    journal::Owner,
    session::{Now, Outcome, TemplateBytes},
};

/// Finished ones stay readable so long.
const KEPT: Duration = Duration::from_secs(600);
/// Most that are kept, finished or not: two a second for the ten minutes, with their templates
/// about 2 MB.
const MAX_KEPT: usize = 1_200;

/// Where an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ScanState {
    /// No finger yet.
    Waiting,
    /// A finger is on the sensor, or the engine is at work.
    Scanning,
    /// It ended well.
    Complete,
    /// It failed, was stopped or timed out.
    Error,
}

/// How an operation stands.
#[derive(Debug, Clone, PartialEq)]
pub struct ScanStatus {
    /// Which.
    pub scan_id: String,
    /// On which reader.
    pub device_id: ReaderId,
    /// Where it is.
    pub state: ScanState,
    /// When the wait for a finger ends.
    pub expires_at: Timestamp,
    /// How it ended.
    pub result: Option<Result<Outcome, ErrorBody>>,
}

impl ScanStatus {
    /// Template, quality and time in milliseconds of a finished scan.
    pub fn scanned(&self) -> Option<(&TemplateBytes, u8, u64)> {
        match &self.result {
            Some(Ok(Outcome::Scanned { template, quality, scan_time_ms })) => {
                Some((template, *quality, *scan_time_ms))
            }
            Some(Ok(
                Outcome::Enrolled { .. } | Outcome::Verified { .. } | Outcome::Identified { .. },
            ))
            | Some(Err(_))
            | None => None,
        }
    }

    /// Why it failed.
    pub fn error(&self) -> Option<&ErrorBody> {
        self.result.as_ref()?.as_ref().err()
    }
}

/// All that are kept.
#[derive(Default)]
pub(crate) struct Scans {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    by_id: HashMap<String, Kept>,
    oldest_first: VecDeque<String>,
}

struct Kept {
    status: ScanStatus,
    owner: Owner,
    ended: Option<Duration>,
}

impl Scans {
    pub(crate) fn begun(
        &self,
        scan_id: &str,
        device_id: &ReaderId,
        owner: &Owner,
        now: Now,
        expires_at: Timestamp,
    ) {
        let status = ScanStatus {
            scan_id: scan_id.to_owned(),
            device_id: device_id.clone(),
            state: ScanState::Waiting,
            expires_at,
            result: None,
        };
        let kept = Kept { status, owner: owner.clone(), ended: None };
        let mut inner = self.inner();
        inner.forget(now);
        inner.by_id.insert(scan_id.to_owned(), kept);
        inner.oldest_first.push_back(scan_id.to_owned());
    }

    pub(crate) fn scanning(&self, scan_id: &str) {
        if let Some(kept) = self.inner().by_id.get_mut(scan_id) {
            kept.status.state = ScanState::Scanning;
        }
    }

    pub(crate) fn ended(&self, scan_id: &str, result: &Result<Outcome, ErrorBody>, now: Now) {
        if let Some(kept) = self.inner().by_id.get_mut(scan_id) {
            let state = if result.is_ok() { ScanState::Complete } else { ScanState::Error };
            kept.status.state = state;
            kept.status.result = Some(result.clone());
            kept.ended = Some(now.uptime);
        }
    }

    pub(crate) fn status(&self, scan_id: &str, owner: &Owner, now: Now) -> Option<ScanStatus> {
        let inner = self.inner();
        let kept = inner.by_id.get(scan_id)?;
        let readable = kept.owner == *owner && !kept.is_over(now);
        readable.then(|| kept.status.clone())
    }

    /// The reader on which this operation of this owner runs.
    pub(crate) fn running_on(&self, scan_id: &str, owner: &Owner) -> Option<ReaderId> {
        let inner = self.inner();
        let kept = inner.by_id.get(scan_id)?;
        let allowed = kept.owner == *owner || *owner == Owner::Admin;
        (allowed && kept.ended.is_none()).then(|| kept.status.device_id.clone())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it holds the lock; what is in it is still whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn is_over(&self, now: Now) -> bool {
        self.ended.is_some_and(|ended| now.uptime.saturating_sub(ended) > KEPT)
    }
}

impl Inner {
    /// The oldest go when their time is over, or when there are too many.
    fn forget(&mut self, now: Now) {
        while let Some(oldest) = self.oldest_first.front() {
            let over = self.by_id.get(oldest).is_none_or(|kept| kept.is_over(now));
            if !over && self.oldest_first.len() < MAX_KEPT {
                break;
            }
            if let Some(oldest) = self.oldest_first.pop_front() {
                self.by_id.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(seconds: u64) -> Now {
        Now { wall: Timestamp::from_millis(0), uptime: Duration::from_secs(seconds) }
    }

    fn key(name: &str) -> Owner {
        Owner::ApiKey(name.into())
    }

    #[test]
    fn only_the_owner_sees_a_scan_and_for_ten_minutes() {
        let scans = Scans::default();
        let reader = "device-001".parse().unwrap();
        scans.begun("scan-1", &reader, &key("a"), now(0), Timestamp::from_millis(1));
        assert_eq!(scans.status("scan-1", &key("b"), now(0)), None);
        assert_eq!(scans.status("scan-1", &Owner::Admin, now(0)), None);
        let status = scans.status("scan-1", &key("a"), now(5_000)).unwrap();
        assert_eq!(status.state, ScanState::Waiting);
        let outcome = Outcome::Scanned { template: vec![1].into(), quality: 9, scan_time_ms: 8 };
        scans.ended("scan-1", &Ok(outcome), now(5_000));
        let status = scans.status("scan-1", &key("a"), now(5_600)).unwrap();
        assert_eq!(status.scanned(), Some((&vec![1].into(), 9, 8)));
        assert_eq!(scans.status("scan-1", &key("a"), now(5_601)), None);
    }

    #[test]
    fn only_a_running_one_can_be_stopped_by_its_owner_or_an_administrator() {
        let scans = Scans::default();
        let reader: ReaderId = "device-001".parse().unwrap();
        scans.begun("scan-1", &reader, &key("a"), now(0), Timestamp::from_millis(1));
        assert_eq!(scans.running_on("scan-1", &key("a")), Some(reader.clone()));
        assert_eq!(scans.running_on("scan-1", &Owner::Admin), Some(reader));
        assert_eq!(scans.running_on("scan-1", &key("b")), None);
        let error = ErrorBody::new(topics::ErrorCode::LowQuality, "x");
        scans.ended("scan-1", &Err(error), now(1));
        assert_eq!(scans.running_on("scan-1", &key("a")), None);
    }

    #[test]
    fn the_number_kept_is_bounded() {
        let scans = Scans::default();
        let reader = "device-001".parse().unwrap();
        for number in 0..2 * MAX_KEPT {
            let id = format!("scan-{number}");
            scans.begun(&id, &reader, &key("a"), now(0), Timestamp::from_millis(1));
        }
        assert_eq!(scans.inner().by_id.len(), MAX_KEPT);
        assert!(scans.status("scan-0", &key("a"), now(0)).is_none());
    }
}
