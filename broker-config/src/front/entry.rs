//! A client's way in: its session, its name, its connection to the inner broker.

use std::{io, sync::Arc, time::Duration};

use tokio::time::timeout;

use crate::{
    inner::{Inner, Way},
    line,
    refusal::Refusal,
    session::Session,
    shared::{Shared, Taken},
    slots::Seat,
};

use super::{Front, INNER_TIMEOUT, Peer, hello::Hello};

/// How long an accepted client waits for an inner broker that is being replaced.
const INNER_WAIT: Duration = Duration::from_secs(3);

/// A client that is in.
pub(super) struct Entry {
    pub(super) session: Arc<Session>,
    pub(super) seat: Seat,
    pub(super) registered: Registered,
    pub(super) inner: Arc<Inner>,
    pub(super) way: Way,
}

/// Keeps a client's name taken.
pub(super) struct Registered {
    shared: Arc<Shared>,
    session: Arc<Session>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.shared.unregister(&self.session);
    }
}

impl Front {
    /// Lets a client in. When the inner broker doesn't answer, once more with the next one.
    pub(super) async fn enter(&self, hello: &Hello, peer: &Peer) -> Result<Entry, Refusal> {
        let inner = self.inner_other_than(None).await?;
        match self.enter_at(&inner, hello, peer).await {
            Err(Refusal::Unavailable) => {
                self.nudge.notify_one();
                let next = self.inner_other_than(Some(&inner)).await?;
                self.enter_at(&next, hello, peer).await
            }
            result => result,
        }
    }

    async fn inner_other_than(&self, dead: Option<&Arc<Inner>>) -> Result<Arc<Inner>, Refusal> {
        let mut now = self.inner.clone();
        let other = now.wait_for(|inner| match inner {
            Some(inner) => dead.is_none_or(|dead| !Arc::ptr_eq(inner, dead)),
            None => false,
        });
        let found = timeout(INNER_WAIT, other).await.map_err(|_| Refusal::Unavailable)?;
        found.ok().and_then(|inner| inner.clone()).ok_or(Refusal::Unavailable)
    }

    async fn enter_at(
        &self,
        inner: &Arc<Inner>,
        hello: &Hello,
        peer: &Peer,
    ) -> Result<Entry, Refusal> {
        let (session, wish) = hello.check(&self.shared, peer).await?;
        let registered = self.register(&session).await?;
        hello.check_again(&self.shared, peer, &session).await?;
        let seat = self.shared.take_seat(&session, wish)?;
        let failed = match timeout(INNER_TIMEOUT, self.sit_down(inner, &session, &seat)).await {
            Ok(Ok(way)) => {
                let inner = inner.clone();
                return Ok(Entry { session, seat, registered, inner, way });
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        tracing::debug!(broker = %self.shared.name, failed, "the inner broker doesn't answer");
        self.shared.leave_seat(&session, &seat, false);
        Err(Refusal::Unavailable)
    }

    async fn sit_down(
        &self,
        inner: &Arc<Inner>,
        session: &Arc<Session>,
        seat: &Seat,
    ) -> io::Result<Way> {
        if seat.dirty {
            line::sweep(self.shared.clone(), inner.clone(), seat.id).await?;
        }
        inner.open(session.clone(), seat).await
    }

    /// Makes the session the only one of its client.
    async fn register(&self, session: &Arc<Session>) -> Result<Registered, Refusal> {
        loop {
            match self.shared.register(session) {
                Ok(()) => break,
                Err(Taken::ByOthers) => return Err(Refusal::TooManyOfUser),
                Err(Taken::ByEarlier(earlier)) => {
                    earlier.taken_over.cancel();
                    timeout(INNER_TIMEOUT, earlier.gone.cancelled())
                        .await
                        .map_err(|_| Refusal::Unavailable)?;
                }
            }
        }
        Ok(Registered { shared: self.shared.clone(), session: session.clone() })
    }
}
