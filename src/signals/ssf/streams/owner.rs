//! Maintains one stream on the replica that owns it: executes the steps of the state machine, and logs the results.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};
use tracing::{info, warn};

use super::api::{StreamApi, random_state};
use super::description::{KnownStream, StreamStatus, WantedStream};
use super::fetch::{PollAccess, PollTrouble};
use super::lease::TICK;
use super::machine::StreamMachine;
use super::steps::{StreamNews, StreamStep, StreamTerms};
use super::{HeardStream, StreamHealth, announce};
use crate::client::Client;
use crate::signals::ssf::{KeptStream, Settings, SignalDelivery, StreamAccess};
use crate::state::Store;
use crate::time::{Monotonic, Timestamp};

/// The owner of one stream.
pub(super) struct StreamOwner<'a> {
    pub(super) settings: &'a Settings,
    pub(super) client: &'a Client,
    pub(super) store: &'a Store,
    pub(super) stream: &'a KeptStream,
    /// The polling endpoint and its credential, once known.
    pub(super) access: watch::Sender<Option<PollAccess>>,
}

/// What may end a wait of the machine.
enum StreamWake {
    Due,
    Status(StreamStatus),
    Subjects(Vec<Box<str>>),
    Trouble(PollTrouble),
}

impl StreamOwner<'_> {
    /// Maintains the stream until the future is dropped.
    pub(super) async fn keep(&self, watched: &mut HeardStream, mut troubles: mpsc::Receiver<PollTrouble>) {
        let hearing = Arc::clone(&watched.watch);
        let mut had_stream = hearing.recall(Timestamp::now()).await;
        let mut machine = StreamMachine::new(self.terms(), Monotonic::now());
        let mut api = StreamApi::new(self.settings, &self.stream.access, self.client);
        let (mut said, mut shared) = (None, interval(TICK));
        shared.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let step = machine.next(Monotonic::now());
            let news = if let StreamStep::Wait(until) = step {
                let wake = self.wait(until, watched, &mut troubles, &mut shared).await;
                woken(&mut machine, wake)
            } else {
                let state = random_state().unwrap_or_default();
                if matches!(step, StreamStep::Verify(_)) {
                    hearing.expect(&state).await;
                }
                let answer = api.perform(&step, &machine, &state).await;
                let news = machine.answered(&step, answer, Monotonic::now());
                if machine.status() != StreamStatus::Enabled {
                    hearing.changed(machine.status()).await;
                }
                news
            };
            self.log_failure(&machine, &mut said);
            if let Some(news) = news {
                self.tell(news, &machine, &hearing, &mut had_stream).await;
            }
            self.publish(&machine, &api);
        }
    }

    fn terms(&self) -> StreamTerms {
        let Settings { name, issuer, audience, authorization, transmission, .. } = self.settings;
        let endpoint = match &transmission.delivery {
            SignalDelivery::Push(endpoint) => endpoint.clone(),
            SignalDelivery::Poll(_) => None,
        };
        let wanted = WantedStream {
            name: name.clone(),
            issuer: issuer.clone(),
            audience: audience.clone(),
            endpoint,
            authorization: authorization.clone(),
            events: self.stream.events.clone(),
        };
        let fetches_tokens = matches!(self.stream.access, StreamAccess::Client { .. });
        StreamTerms {
            heartbeat: transmission.heartbeat,
            fetches_tokens,
            adds_subjects: self.stream.add_subjects,
            insecure_http: transmission.insecure_http,
            wanted,
        }
    }

    /// Waits until a step is due or something arrives.
    async fn wait(
        &self,
        until: Monotonic,
        watched: &mut HeardStream,
        troubles: &mut mpsc::Receiver<PollTrouble>,
        shared: &mut Interval,
    ) -> StreamWake {
        let adds = watched.subjects.is_some();
        let seen = async {
            match &mut watched.subjects {
                Some(subjects) => subjects.recv().await,
                None => None,
            }
        };
        tokio::select! {
            () = sleep(until.since(Monotonic::now())) => StreamWake::Due,
            Some(status) = watched.statuses.recv() => StreamWake::Status(status),
            Some(subject) = seen => StreamWake::Subjects(vec![subject]),
            Some(trouble) = troubles.recv() => StreamWake::Trouble(trouble),
            _ = shared.tick(), if adds && self.store.is_shared() => {
                // If they cannot be read now, they stay in the store.
                StreamWake::Subjects(self.store.take_subjects(&self.settings.name).await.unwrap_or_default())
            }
        }
    }

    /// Logs why the stream cannot be maintained, once for each reason.
    fn log_failure(&self, machine: &StreamMachine, said: &mut Option<String>) {
        if machine.failure() == said.as_deref() {
            return;
        }
        *said = machine.failure().map(str::to_owned);
        match said {
            Some(why) => {
                warn!(transmitter = self.settings.name, why, "cannot maintain the stream of the transmitter")
            }
            None => info!(transmitter = self.settings.name, "the transmitter responds again"),
        }
    }

    async fn tell(
        &self,
        news: StreamNews,
        machine: &StreamMachine,
        hearing: &StreamHealth,
        had_stream: &mut bool,
    ) {
        let transmitter = &*self.settings.name;
        let stream_id = machine.stream().map(|stream| stream.id.as_str());
        match news {
            StreamNews::Made => {
                info!(transmitter, stream_id, "created the stream");
                if *had_stream {
                    hearing.missed(
                        "created the stream again: the transmitter had lost it, and its undelivered signals",
                    );
                }
            }
            StreamNews::Found => info!(transmitter, stream_id, "the stream is up to date"),
            StreamNews::Changed => info!(transmitter, stream_id, "updated the stream"),
            StreamNews::Forgotten => warn!(transmitter, "the transmitter no longer has the stream"),
            StreamNews::Stopped(status) => {
                warn!(transmitter, status = status.as_str(), "the transmitter stopped sending on the stream");
                hearing.changed(status).await;
            }
            StreamNews::Resumed(before) => {
                info!(transmitter, before = before.as_str(), "the transmitter sends on the stream again");
                if before == StreamStatus::Disabled {
                    hearing.missed("the transmitter had disabled the stream and discarded its signals");
                }
            }
        }
        if let (StreamNews::Made | StreamNews::Found | StreamNews::Changed, Some(stream)) =
            (news, machine.stream())
        {
            *had_stream = true;
            self.log_complaints(stream, machine);
            hearing.expect_every(machine.heartbeat());
            hearing.keeps(&stream.id, stream.inactivity).await;
        }
    }

    /// Logs what will not work with the stream as it is.
    fn log_complaints(&self, stream: &KnownStream, machine: &StreamMachine) {
        let complaints = machine.metadata().map(|metadata| machine.terms().complaints(stream, metadata));
        for complaint in complaints.unwrap_or_default() {
            warn!(
                transmitter = self.settings.name,
                stream_id = stream.id,
                complaint,
                "the stream is not usable"
            );
        }
    }

    /// Publishes the polling endpoint and its credential.
    fn publish(&self, machine: &StreamMachine, api: &StreamApi<'_>) {
        let url = machine.stream().and_then(|stream| machine.terms().poll_url(stream));
        let access = url.map(|url| PollAccess { url, authorization: api.authorization() });
        announce(&self.access, access);
    }
}

/// Passes what arrived to the machine.
fn woken(machine: &mut StreamMachine, wake: StreamWake) -> Option<StreamNews> {
    let now = Monotonic::now();
    match wake {
        StreamWake::Due => None,
        StreamWake::Status(status) => machine.updated(status, now),
        StreamWake::Subjects(subjects) => {
            subjects.iter().for_each(|subject| machine.subjects.seen(subject));
            None
        }
        StreamWake::Trouble(PollTrouble::Unauthorized) => {
            machine.unauthorized(now);
            None
        }
        StreamWake::Trouble(PollTrouble::Gone) => machine.gone(now),
    }
}
