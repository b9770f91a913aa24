//! One reader's task: drives its session.
//!
//! It waits in one place for a message, the calculation's result, the host's word about the last
//! [`Arming`], and the session's deadline. What a step brings about happens in this order: its
//! events (and what is to be stored) are committed; the matcher learns of a new template; then who
//! waits is answered. If the commit fails, nothing of it has happened: the operation ends with the
//! journal's error.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use topics::{Draft, ErrorBody, ErrorCode, EventBody, ReaderId, Timestamp};
use zkfp::{ReaderError, Serial};

use crate::{
    journal::{self, Attachment, Batch},
    operation::Shared,
    readers::engine,
    session::{
        Answer, Computed, Effects, Input, NewTemplate, Now, Outcome, Planned, Session, Start,
        TemplateBytes,
    },
    templates::TemplateError,
};

/// Inputs that wait for one reader. A person touches once a second; more than a handful means that
/// the journal stands still, and then the host's events wait too.
pub(super) const MAILBOX: usize = 32;

/// What a reader's task is told.
pub(crate) enum Message {
    /// Something happened.
    Input(Input),
    /// A finger gave an image.
    Touch { quality: u8, template: TemplateBytes },
    /// Begin an operation.
    Start {
        start: Box<Start>,
        /// Whether it has begun (after the commit).
        begun: oneshot::Sender<Result<Timestamp, ErrorBody>>,
        /// How it ended (after the commit).
        outcome: oneshot::Sender<Result<Outcome, ErrorBody>>,
    },
    /// End an operation.
    Stop {
        scan_id: String,
        /// None: nobody waits for the answer.
        done: Option<oneshot::Sender<Result<(), ErrorBody>>>,
    },
}

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What the host is told about watching the sensor, one thing at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Arming {
    Arm(bool),
    Recapture,
}

/// The task of one reader.
pub(super) struct ReaderTask {
    pub(super) id: ReaderId,
    pub(super) serial: Serial,
    pub(super) session: Session,
    pub(super) shared: Arc<Shared>,
    pub(super) mailbox: mpsc::Receiver<Message>,
    waiting: Option<(String, oneshot::Sender<Result<Outcome, ErrorBody>>)>,
    calculation: Option<Work<Computed>>,
    arming: Option<(Arming, Work<Result<(), ReaderError>>)>,
    armed: bool,
    recapture: bool,
}

impl ReaderTask {
    pub(super) fn new(
        id: ReaderId,
        serial: Serial,
        session: Session,
        shared: Arc<Shared>,
        mailbox: mpsc::Receiver<Message>,
    ) -> Self {
        let (waiting, calculation, arming) = (None, None, None);
        let (armed, recapture) = (false, false);
        Self {
            id,
            serial,
            session,
            shared,
            mailbox,
            waiting,
            calculation,
            arming,
            armed,
            recapture,
        }
    }

    /// Runs until `token` is cancelled; what runs then is ended first.
    pub(super) async fn run(mut self, token: CancellationToken) {
        loop {
            let wait = self.session.deadline().map(|due| due.saturating_sub(self.now().uptime));
            tokio::select! {
                biased;
                () = token.cancelled() => break,
                result = wait_for(&mut self.calculation) => {
                    self.calculation = None;
                    self.input(Input::Computed(result)).await;
                }
                result = wait_for_arming(&mut self.arming) => self.armed(result).await,
                message = self.mailbox.recv() => match message {
                    Some(message) => self.message(message).await,
                    None => break,
                },
                () = sleep(wait) => self.input(Input::Tick).await,
            }
        }
        self.shut_down().await;
    }

    async fn message(&mut self, message: Message) {
        match message {
            Message::Input(input) => {
                if let Input::Unplugged { .. } = &input {
                    (self.armed, self.arming) = (false, None);
                }
                self.input(input).await;
            }
            Message::Touch { quality, template } => {
                let handout = self.shared.marks.mark(&template);
                let capture = crate::session::Capture { quality, template, handout };
                self.input(Input::Touch(capture)).await;
            }
            Message::Start { start, begun, outcome } => self.start(*start, begun, outcome).await,
            Message::Stop { scan_id, done } => {
                let result = self.stop(&scan_id).await;
                if let Some(done) = done {
                    let _ = done.send(result); // who asked may be gone
                }
            }
        }
    }

    async fn input(&mut self, input: Input) {
        let effects = self.session.handle(self.now(), input);
        let _ = self.perform(effects).await; // the answers have told of a failure
    }

    async fn start(
        &mut self,
        start: Start,
        begun: oneshot::Sender<Result<Timestamp, ErrorBody>>,
        outcome: oneshot::Sender<Result<Outcome, ErrorBody>>,
    ) {
        let now = self.now();
        let (scan_id, origin) = (start.scan_id.clone(), start.origin.clone());
        let effects = match self.session.start(now, start) {
            Ok(effects) => effects,
            Err(error) => {
                let _ = begun.send(Err(error)); // who asked may be gone
                return;
            }
        };
        let wait = self.session.deadline().unwrap_or(now.uptime).saturating_sub(now.uptime);
        let expires_at = now.wall.plus(wait);
        self.shared.scans.begun(&scan_id, &self.id, &origin.owner, now, expires_at);
        // The operation that this one replaces is answered through the old sender.
        let result = self.perform(effects).await;
        if let Err(error) = &result {
            self.shared.scans.ended(&scan_id, &Err(error.clone()), now);
        } else {
            self.waiting = Some((scan_id, outcome));
        }
        let _ = begun.send(result.map(|()| expires_at));
    }

    async fn stop(&mut self, scan_id: &str) -> Result<(), ErrorBody> {
        let effects = self.session.stop(scan_id)?;
        self.perform(effects).await
    }

    /// Ends what runs, as the service does.
    async fn shut_down(&mut self) {
        let Some(scan_id) = self.session.running().map(|(scan_id, _)| scan_id.to_owned()) else {
            return;
        };
        if let Ok(mut effects) = self.session.stop(&scan_id) {
            let error = ErrorBody::new(ErrorCode::ServiceUnavailable, "The service is stopping");
            for answer in &mut effects.answers {
                answer.result = Err(error.clone());
            }
            let _ = self.perform(effects).await;
        }
    }

    // ---- what follows -------------------------------------------------------------------------

    async fn perform(&mut self, effects: Effects) -> Result<(), ErrorBody> {
        let Effects { events, store, mut answers, job, recapture } = effects;
        let result = self.commit(&events, store.as_ref()).await;
        if let Err(error) = &result {
            answers.iter_mut().for_each(|answer| answer.result = Err(error.clone()));
            answers.extend(self.session.abort(error));
        } else if let Some(job) = job {
            let shared = Arc::clone(&self.shared);
            self.calculation = Some(Box::pin(async move { shared.engine.run(job).await }));
        }
        if !self.session.is_computing() {
            self.calculation = None;
        }
        let now = self.now();
        self.shared.registry.set_status(&self.id, self.session.reader_state(), now.wall);
        if let Some((scan_id, true)) = self.session.running() {
            self.shared.scans.scanning(scan_id);
        }
        answers.into_iter().for_each(|answer| self.answer(answer, now));
        self.recapture |= recapture;
        self.arm();
        result
    }

    fn answer(&mut self, answer: Answer, now: Now) {
        let Answer { scan_id, result } = answer;
        self.shared.scans.ended(&scan_id, &result, now);
        if let Some((_, outcome)) = self.waiting.take_if(|(waiting, _)| *waiting == scan_id) {
            let _ = outcome.send(result); // a session that is polled for: nobody waits
        }
    }

    async fn commit(
        &mut self,
        events: &[Planned],
        store: Option<&NewTemplate>,
    ) -> Result<(), ErrorBody> {
        if events.is_empty() && store.is_none() {
            return Ok(());
        }
        let mut batch = self.shared.plan(Batch::new(), events)?;
        let mut changing = None;
        if let Some(new) = store {
            let mut begun = self.shared.templates.begin().await;
            batch = begun.add(batch, new).map_err(|error| self.not_stored(&error))?;
            changing = Some(begun);
        }
        self.shared.commit(batch).await?;
        if let Some(changing) = changing {
            let change = changing.committed();
            self.shared.engine.apply(change).await;
        }
        Ok(())
    }

    fn not_stored(&self, error: &TemplateError) -> ErrorBody {
        tracing::error!(reader = %self.id, %error, "an enrolled template can't be stored");
        error.into()
    }

    // ---- watching the sensor ------------------------------------------------------------------

    /// Tells the host what the session wants, unless it is still being told something.
    fn arm(&mut self) {
        if self.arming.is_some() {
            return;
        }
        let wanted = self.session.wants_finger();
        let next = match (wanted == self.armed, self.recapture) {
            (false, _) => Arming::Arm(wanted),
            (true, true) => Arming::Recapture,
            (true, false) => return,
        };
        let (shared, serial) = (Arc::clone(&self.shared), self.serial.clone());
        let work = async move {
            let host = shared.engine.host();
            match next {
                Arming::Arm(on) => host.arm(&serial, on).await,
                Arming::Recapture => host.recapture(&serial).await.map(|_still_there| ()),
            }
        };
        self.arming = Some((next, Box::pin(work)));
    }

    async fn armed(&mut self, (what, result): (Arming, Result<(), ReaderError>)) {
        self.arming = None;
        match what {
            Arming::Arm(on) => self.armed = on,
            Arming::Recapture => self.recapture = false,
        }
        match result {
            Ok(()) => self.arm(),
            // The host tells in an event of its own that the reader is gone.
            Err(ReaderError::Disconnected { .. } | ReaderError::UnknownReader { .. }) => {
                self.armed = false;
            }
            Err(error) if what == Arming::Recapture => {
                tracing::debug!(reader = %self.id, %error, "no second capture of this touch");
                self.arm();
            }
            Err(error) => {
                tracing::warn!(reader = %self.id, %error, "the reader can't be watched");
                self.armed = false;
                self.input(Input::Fault(engine::error_body(&error))).await;
            }
        }
    }

    fn now(&self) -> Now {
        self.shared.now()
    }
}

impl Shared {
    /// The events as they will stand in the journal, each with what only its owner gets.
    pub(crate) fn plan(&self, mut batch: Batch, events: &[Planned]) -> Result<Batch, ErrorBody> {
        let moment = journal::moment();
        for planned in events {
            let cause = planned.origin.as_ref().map(|origin| origin.cause.clone());
            let draft = Draft::new(&planned.body, &moment, &cause.unwrap_or_default())
                .map_err(|error| ErrorBody::new(ErrorCode::InternalError, error.to_string()))?;
            let mut extra = Map::new();
            if let Some(template) = &planned.template {
                extra.insert("template".into(), Value::String(template.base64()));
                batch = self.remember_scan(batch, planned, template, moment.timestamp);
            }
            let owner = planned.origin.as_ref().map(|origin| origin.owner.clone());
            batch = batch.event(draft, Attachment { owner, extra });
        }
        Ok(batch)
    }

    /// A plain scan's template is remembered as one; an enrolment's is not.
    fn remember_scan(
        &self,
        batch: Batch,
        planned: &Planned,
        template: &TemplateBytes,
        now: Timestamp,
    ) -> Batch {
        match &planned.body {
            EventBody::ScanComplete { placements: None, .. } => {
                self.marks.remember(batch, template, now)
            }
            _ => batch,
        }
    }
}

async fn wait_for<T>(work: &mut Option<Work<T>>) -> T {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

async fn wait_for_arming(
    arming: &mut Option<(Arming, Work<Result<(), ReaderError>>)>,
) -> (Arming, Result<(), ReaderError>) {
    match arming {
        Some((what, work)) => (*what, work.await),
        None => std::future::pending().await,
    }
}

async fn sleep(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}
