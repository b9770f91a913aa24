//! What the host reports, to the reader that it is about.
//!
//! | from the host | becomes |
//! |---|---|
//! | up | an empty gallery, loaded as soon as there is a reader |
//! | down | every reader unplugged |
//! | devices | plugged and unplugged, by comparison; a reader seen for the first time gets its id and its task |
//! | touch, bad placement, lifted, error, recovered | the input of the same name |

use std::{collections::HashMap, sync::Arc};

use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use zkfp::{Device, HostEvent, ReaderError, Serial};

use super::{
    engine,
    reader::{MAILBOX, Message, ReaderTask},
};
use crate::{
    operation::Shared,
    session::{Input, Session},
};

/// Events of the host that wait. It can go on without us for a moment; when the journal stands
/// still, so do the readers.
pub(crate) const HOST_EVENTS: usize = 64;

/// The task between the host and the readers.
pub(crate) struct Dispatch {
    shared: Arc<Shared>,
    tracker: TaskTracker,
    token: CancellationToken,
    readers: HashMap<Serial, Known>,
}

struct Known {
    mailbox: mpsc::Sender<Message>,
    plugged: bool,
}

impl Dispatch {
    pub(crate) fn new(shared: Arc<Shared>, tracker: TaskTracker, token: CancellationToken) -> Self {
        Self { shared, tracker, token, readers: HashMap::new() }
    }

    /// Runs until `token` is cancelled or the host is gone for good.
    pub(crate) async fn run(mut self, mut events: mpsc::Receiver<HostEvent>) {
        let token = self.token.clone();
        while let Some(Some(event)) = token.run_until_cancelled(events.recv()).await {
            self.event(event).await;
        }
    }

    async fn event(&mut self, event: HostEvent) {
        match event {
            HostEvent::Up { pid, library } => {
                tracing::info!(pid, library = %library.display(), "the reader host is up");
                self.shared.engine.up();
            }
            HostEvent::Down { reason, retry_in } => {
                tracing::warn!(%reason, ?retry_in, "the reader host is down");
                let reason = reason.to_string();
                self.shared.engine.down(reason.clone(), retry_in);
                self.unplug_all(&reason).await;
            }
            HostEvent::Devices(devices) => self.devices(devices).await,
            HostEvent::InitFailed(error) => {
                tracing::warn!(%error, "the readers can't be used");
                self.shared.registry.set_trouble(Some(engine::error_body(&error)));
                self.unplug_all(&error.to_string()).await;
                self.shared.registry.set_plugged(0);
            }
            HostEvent::Touch(touch) => {
                let template = touch.template.into_bytes().into();
                let message = Message::Touch { quality: touch.quality, template };
                self.send(&touch.serial, message).await;
            }
            HostEvent::BadPlacement { serial, .. } => {
                self.send(&serial, Message::Input(Input::BadPlacement)).await;
            }
            HostEvent::Lifted { serial, .. } => {
                self.send(&serial, Message::Input(Input::Lifted)).await;
            }
            HostEvent::ReaderError { serial, error } => self.reader_error(&serial, &error).await,
            HostEvent::ReaderRecovered { serial } => {
                self.send(&serial, Message::Input(Input::Recovered)).await;
            }
        }
    }

    async fn reader_error(&mut self, serial: &Serial, error: &ReaderError) {
        tracing::warn!(%serial, %error, "a reader has trouble");
        let input = match error {
            // The next image may be better; nothing is wrong with the reader yet.
            ReaderError::BadCapture { .. } => Input::BadPlacement,
            other => Input::Fault(engine::error_body(other)),
        };
        self.send(serial, Message::Input(input)).await;
    }

    async fn devices(&mut self, devices: Vec<Device>) {
        let gone: Vec<Serial> = self
            .readers
            .iter()
            .filter(|(serial, known)| {
                known.plugged && devices.iter().all(|device| device.serial != **serial)
            })
            .map(|(serial, _)| serial.clone())
            .collect();
        for serial in gone {
            self.unplug(&serial, "unplugged").await;
        }
        if !devices.is_empty() {
            self.shared.registry.set_trouble(None);
            self.shared.engine.has_reader();
        }
        let plugged = devices.len();
        for device in devices {
            self.plug(device).await;
        }
        self.shared.registry.set_plugged(plugged);
    }

    async fn plug(&mut self, device: Device) {
        let now = self.shared.now().wall;
        let view = match self.shared.registry.connected(&device, now).await {
            Ok(view) => view,
            Err(error) => {
                tracing::error!(serial = %device.serial, %error, "a new reader can't be taken up");
                return;
            }
        };
        if !self.readers.contains_key(&device.serial) {
            let mailbox = self.begin(&view.id, &device.serial);
            self.shared.registry.set_mailbox(&view.id, mailbox.clone());
            self.readers.insert(device.serial.clone(), Known { mailbox, plugged: false });
        }
        if let Some(known) = self.readers.get_mut(&device.serial)
            && !known.plugged
        {
            known.plugged = true;
            let info = Box::new(view.info());
            self.send(&device.serial, Message::Input(Input::Plugged(info))).await;
        }
    }

    fn begin(&self, id: &topics::ReaderId, serial: &Serial) -> mpsc::Sender<Message> {
        let (sender, mailbox) = mpsc::channel(MAILBOX);
        let session = Session::new(id.clone(), self.shared.rules.clone());
        let shared = Arc::clone(&self.shared);
        let task = ReaderTask::new(id.clone(), serial.clone(), session, shared, mailbox);
        self.tracker.spawn(task.run(self.token.clone()));
        sender
    }

    async fn unplug_all(&mut self, reason: &str) {
        let all: Vec<Serial> = self.readers.keys().cloned().collect();
        for serial in all {
            self.unplug(&serial, reason).await;
        }
    }

    async fn unplug(&mut self, serial: &Serial, reason: &str) {
        if let Some(known) = self.readers.get_mut(serial)
            && known.plugged
        {
            known.plugged = false;
            let reason = Some(reason.to_owned());
            self.send(serial, Message::Input(Input::Unplugged { reason })).await;
        }
    }

    async fn send(&self, serial: &Serial, message: Message) {
        let Some(known) = self.readers.get(serial) else { return };
        if known.mailbox.send(message).await.is_err() && !self.token.is_cancelled() {
            tracing::error!(%serial, "the reader's task is dead");
        }
    }
}
