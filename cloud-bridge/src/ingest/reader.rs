//! Reads frames on their way from the connection to the engine: a stage of its own, so that the next ones are
//! decoded and their events parsed while the engine waits for the disk.
//!
//! What waits behind it is bounded by bytes in memory: a frame that was decoded is many times as large as it
//! came.

use std::sync::Arc;

use bytes::Bytes;
use rumqttc::AsyncClient;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use topics::{
    GatewayId, GatewayStatus, Record,
    link::{Frame, LinkError},
};

use super::{driver::Input, link::ReadBatch};

/// What comes from the connection and waits to be read: several rounds. Whoever comes then waits, and so
/// does the broker.
pub(crate) const ARRIVAL_DEPTH: usize = 512;
/// What was read and waits for the engine at most, in frames and in KiB.
pub(crate) const READ_DEPTH: usize = 256;
const READ_KIB: u32 = 8 << 10;
/// What a parsed event takes beside its record's bytes, and each value within one, about.
const EVENT_BYTES: usize = 512;
const VALUE_BYTES: usize = 64;
/// What a byte of another frame's text becomes, about: short texts in lists.
const FIELD_BYTES: usize = 4;

/// What the connection to the broker gives.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// A frame of a gateway.
    Frame { gateway: GatewayId, payload: Bytes },
    /// A gateway's status on the broker.
    Status(GatewayStatus),
    /// The connection is there.
    LinkUp(AsyncClient),
    /// It is gone.
    LinkDown,
}

/// A frame, as far as it can be read without knowing its link.
#[derive(Debug)]
pub(crate) enum ReadFrame {
    /// Records, with what is in them, and how large all that is.
    Batch { batch: ReadBatch, bytes: usize },
    /// Any other.
    Other { frame: Frame, bytes: usize },
    /// None, or none that is known here.
    Unreadable { error: LinkError, payload: Bytes },
}

impl ReadFrame {
    /// Reads one.
    pub(crate) fn of(payload: Bytes) -> Self {
        match Frame::decode(&payload) {
            Ok(Frame::Batch(batch)) => {
                let each = |record: &Record| in_memory(record.as_bytes()) + EVENT_BYTES;
                let bytes = batch.records.iter().map(each).sum();
                Self::Batch { batch: batch.into(), bytes }
            }
            Ok(frame) => Self::Other { frame, bytes: FIELD_BYTES * Frame::unpacked_len(&payload) },
            Err(error) => Self::Unreadable { error, payload },
        }
    }

    /// How many records are in it.
    pub(crate) fn records(&self) -> usize {
        match self {
            Self::Batch { batch, .. } => batch.records.len(),
            Self::Other { .. } | Self::Unreadable { .. } => 0,
        }
    }

    /// What it takes in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Batch { bytes, .. } | Self::Other { bytes, .. } => *bytes,
            Self::Unreadable { payload, .. } => payload.len(),
        }
    }
}

/// What a text takes with the values that are parsed from it: a list of zeros is thirty times as large then.
fn in_memory(json: &[u8]) -> usize {
    let is_of_value = |byte: &&u8| matches!(byte, b',' | b':' | b'[' | b'{');
    json.len() + VALUE_BYTES * json.iter().filter(is_of_value).count()
}

/// The room that a frame takes until the engine takes it; given back with it.
#[derive(Debug)]
pub(crate) struct Room {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// For a frame that did not come this way.
    #[cfg(test)]
    pub(crate) fn none() -> Self {
        Self { _permit: None }
    }
}

/// Reads until the connection's end or the engine's is gone.
pub(crate) async fn run(mut arrivals: mpsc::Receiver<Arrival>, inputs: mpsc::Sender<Input>) {
    let room = Arc::new(Semaphore::new(READ_KIB as usize));
    while let Some(arrival) = arrivals.recv().await {
        let input = match arrival {
            Arrival::Frame { gateway, payload } => {
                let frame = ReadFrame::of(payload);
                let kib = u32::try_from(frame.bytes() >> 10).unwrap_or(READ_KIB).min(READ_KIB);
                // It is never closed.
                let room = Room { _permit: room.clone().acquire_many_owned(kib).await.ok() };
                Input::Frame { gateway, frame: Box::new(frame), room }
            }
            Arrival::Status(status) => Input::Status(status),
            Arrival::LinkUp(client) => Input::LinkUp(client),
            Arrival::LinkDown => Input::LinkDown,
        };
        if inputs.send(input).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use topics::link::{AskHello, Probe};

    use super::*;

    #[test]
    fn a_frame_counts_as_what_is_made_of_it() {
        let readers = (0..50).map(|number| topics::ReaderSummary {
            id: format!("device-{number}").parse().unwrap(),
            serial_number: String::new(),
            model: String::new(),
            status: topics::ReaderState::Idle,
            since: None,
        });
        let probe = Probe { session: 1, nonce: 1, readers: readers.collect(), queued: 1 };
        let payload = Bytes::from(Frame::Probe(probe).encode().unwrap());
        assert!(payload.len() < 1_000, "it comes packed");
        let read = ReadFrame::of(payload);
        assert!(read.bytes() > 50 * (size_of::<topics::ReaderSummary>() + 24), "{}", read.bytes());
        let zeros = format!("[{}0]", "0,".repeat(1_000));
        let value: serde_json::Value = serde_json::from_str(&zeros).unwrap();
        let values = value.as_array().unwrap().capacity() * size_of::<serde_json::Value>();
        assert!(in_memory(zeros.as_bytes()) > values);
    }

    /// Frames that are large once they are read hold up those behind them; small ones don't.
    #[tokio::test]
    async fn what_was_read_and_not_taken_is_bounded() {
        let (arrivals_in, arrivals) = mpsc::channel(ARRIVAL_DEPTH);
        let (inputs_in, mut inputs) = mpsc::channel(READ_DEPTH);
        let reader = tokio::spawn(run(arrivals, inputs_in));
        let gateway: GatewayId = "hq".parse().unwrap();
        // Unreadable ones count as they came.
        let large = Bytes::from(vec![0; (READ_KIB as usize / 4) << 10]);
        for _ in 0..6 {
            let payload = large.clone();
            arrivals_in.send(Arrival::Frame { gateway: gateway.clone(), payload }).await.unwrap();
        }
        let small = Bytes::from(Frame::AskHello(AskHello { session: 1 }).encode().unwrap());
        for _ in 0..3 {
            let payload = small.clone();
            arrivals_in.send(Arrival::Frame { gateway: gateway.clone(), payload }).await.unwrap();
        }
        drop(arrivals_in);
        while inputs.len() < 4 {
            tokio::task::yield_now().await;
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(inputs.len(), 4, "no more than there is room for");
        let mut taken = 0;
        while inputs.recv().await.is_some() {
            taken += 1;
        }
        assert_eq!(taken, 9);
        reader.await.unwrap();
    }
}
