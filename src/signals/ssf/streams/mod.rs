//! Streams that the gate creates and maintains at a transmitter, and signals that it polls.
//!
//! One task for each transmitter. Of the replicas that share a store, only the holder of a lease maintains the
//! stream and polls; the others receive pushed tokens, and take over when the lease expires.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::{Receiver, Settings, SignalDelivery};
use crate::client::Client;
use crate::enforce::signals::SignalClock;
use crate::shutdown::{Phase, Shutdown};
use crate::state::Store;
use crate::time::Monotonic;

mod api;
pub(super) mod description;
mod fetch;
mod hearing;
mod lease;
mod machine;
mod metadata;
pub(super) mod notice;
mod owner;
mod poll;
mod steps;
mod subjects;

use description::StreamStatus;
use fetch::{Fetcher, PollAccess};
pub use hearing::StreamHealth;
pub(super) use hearing::UnaskedState;
#[cfg(test)]
pub(super) use hearing::tests::awaiting;
pub use notice::StreamNotice;
use owner::StreamOwner;

/// Maintains one transmitter's stream, or only polls a stream that was created manually.
#[derive(Debug)]
pub struct StreamKeeper {
    settings: Arc<Settings>,
    client: Client,
    shared: StreamShared,
    watched: Option<HeardStream>,
}

/// A stream that the gate maintains, and the channels for what arrives about it.
#[derive(Debug)]
pub struct HeardStream {
    watch: Arc<StreamHealth>,
    statuses: mpsc::Receiver<StreamStatus>,
    subjects: Option<mpsc::Receiver<Box<str>>>,
}

/// What all streams share.
#[derive(Debug, Clone)]
pub struct StreamShared {
    /// Processes the polled tokens.
    pub receiver: Arc<Receiver>,
    /// The store that holds the lease.
    pub store: Store,
    /// The name of this process among the replicas.
    pub holder: Arc<str>,
}

impl HeardStream {
    /// Creates the stream of these settings; `None` if the gate maintains none. `subjects` delivers subjects to add.
    #[must_use]
    pub fn new(
        settings: &Settings,
        clock: Arc<SignalClock>,
        store: Store,
        subjects: Option<mpsc::Receiver<Box<str>>>,
    ) -> Option<Self> {
        settings.transmission.stream.as_ref()?;
        let is_polled = matches!(settings.transmission.delivery, SignalDelivery::Poll(_));
        let named = (settings.name.as_str(), Arc::clone(&settings.subject_issuer.issuer.issuer));
        let heartbeat = settings.transmission.heartbeat;
        let (watch, statuses) = StreamHealth::new(named, clock, store, heartbeat, is_polled);
        Some(Self { watch, statuses, subjects })
    }

    /// Where the receiver records what arrives.
    #[must_use]
    pub fn watch(&self) -> &Arc<StreamHealth> {
        &self.watch
    }
}

/// Generates a name for this process among the replicas.
#[must_use]
pub fn replica_name() -> String {
    // Random bytes are always available; without them, all replicas would be owners and keep the same stream.
    api::random_state().unwrap_or_default()
}

/// Creates the clock of a transmitter whose stream is verified this often.
#[must_use]
pub fn signal_clock(settings: &Settings) -> Arc<SignalClock> {
    let patience = hearing::patience(settings.transmission.heartbeat);
    Arc::new(SignalClock::new(&settings.name, Monotonic::now(), patience))
}

impl StreamKeeper {
    /// Maintains the stream of these settings, if there is one, and polls if signals are not pushed. `client`
    /// trusts the transmitter's certificate.
    #[must_use]
    pub fn new(
        settings: Arc<Settings>,
        client: Client,
        shared: StreamShared,
        watched: Option<HeardStream>,
    ) -> Self {
        Self { settings, client, shared, watched }
    }

    /// Maintains the stream until another gate can take over, then releases the lease.
    pub async fn run(mut self, mut shutdown: Shutdown) {
        let StreamShared { store, holder, .. } = self.shared.clone();
        let name = self.settings.name.clone();
        // With a shared store, another replica continues while this one drains.
        let end = if store.is_shared() { Phase::Draining } else { Phase::HandedOver };
        let (owner, owned) = watch::channel(!store.is_shared());
        let watch = self.watched.as_ref().map(|watched| Arc::clone(&watched.watch));
        let tick = lease::renewal_interval(self.settings.transmission.heartbeat);
        tokio::select! {
            () = shutdown.reached(end) => {}
            () = lease::hold(&store, (&name, &holder, tick), watch, owner) => {}
            () = Box::pin(self.work(owned)) => {}
        }
        if let Err(error) = store.leave_stream(&name, &holder).await {
            warn!(transmitter = name, %error, "cannot release the lease of the stream; it will expire");
        }
    }

    /// Maintains the stream whenever this replica owns it.
    async fn work(&mut self, mut owned: watch::Receiver<bool>) {
        loop {
            if !*owned.borrow_and_update() {
                self.stand_by(&mut owned).await;
            }
            if self.shared.store.is_shared() {
                info!(transmitter = self.settings.name, "this gate maintains the stream of the transmitter");
            }
            tokio::select! {
                () = self.own() => {}
                lost = owned.wait_for(|owned| !owned) => if lost.is_err() { return },
            }
            info!(
                transmitter = self.settings.name,
                "another gate may maintain the stream of the transmitter"
            );
        }
    }

    /// Passes the subjects seen here to the owner, until this replica is the owner.
    async fn stand_by(&mut self, owned: &mut watch::Receiver<bool>) {
        let subjects = self.watched.as_mut().and_then(|watched| watched.subjects.as_mut());
        let Some(subjects) = subjects else {
            drop(owned.wait_for(|owned| *owned).await);
            return;
        };
        loop {
            let mut seen = Vec::new();
            tokio::select! {
                _ = owned.wait_for(|owned| *owned) => return,
                _ = subjects.recv_many(&mut seen, 100) => {}
            }
            if let Err(error) = self.shared.store.offer_subjects(&self.settings.name, &seen).await {
                tracing::debug!(%error, "cannot pass subjects to the gate that maintains the stream");
            }
        }
    }

    /// Maintains the stream and polls it.
    async fn own(&mut self) {
        let Self { settings, client, shared, watched } = self;
        let (trouble, troubles) = mpsc::channel(4);
        let fetcher = Fetcher { transmitter: &settings.name, receiver: &shared.receiver, client, trouble };
        let (access, fetched) = watch::channel(None);
        match (&settings.transmission.stream, watched) {
            (Some(stream), Some(watched)) => {
                let owner = StreamOwner { settings, client, store: &shared.store, stream, access };
                tokio::join!(Box::pin(owner.keep(watched, troubles)), Box::pin(fetcher.run(fetched)));
            }
            _ => {
                if let SignalDelivery::Poll(Some(by_hand)) = &settings.transmission.delivery {
                    let (url, authorization) = (by_hand.url.clone(), by_hand.authorization.clone());
                    access.send_replace(Some(PollAccess { url, authorization }));
                }
                Box::pin(fetcher.run(fetched)).await;
            }
        }
    }
}

/// Publishes a value, and wakes who waits for another one only if it is another one.
fn announce<T: PartialEq>(published: &watch::Sender<T>, value: T) {
    published.send_if_modified(|published| {
        let is_news = *published != value;
        *published = value;
        is_news
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_value_wakes_who_waits() {
        let (sender, mut receiver) = watch::channel(1);
        for (value, is_news) in [(1, false), (2, true), (2, false), (1, true)] {
            announce(&sender, value);
            assert_eq!((receiver.has_changed().unwrap(), *receiver.borrow_and_update()), (is_news, value));
        }
    }
}
