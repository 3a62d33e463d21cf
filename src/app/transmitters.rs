//! The running parts of each configured transmitter: the task that maintains its stream, and the clock of its heartbeat.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::{JoinHandle, spawn_local};
use tracing::info;

use super::every;
use super::wiring::Lasting;
use crate::admin::HeardTransmitter;
use crate::client::Client;
use crate::config::Settings;
use crate::enforce::signals::{IssuerSignals, SeenSubjects, SignalClock};
use crate::signals::ssf;
use crate::signals::ssf::streams::{HeardStream, StreamHealth, StreamKeeper, StreamShared, signal_clock};
use crate::tls;

/// How many subjects of new tokens may wait for the task that maintains a stream.
const SUBJECTS: usize = 1_000;

/// One transmitter, and the task that maintains its stream as long as this value lives.
#[derive(Debug)]
pub(super) struct RunningTransmitter {
    settings: Arc<ssf::Settings>,
    /// The content of the CA file for the transmitter.
    roots: Option<Vec<u8>>,
    /// The heartbeat clock and the watch of a stream that the gate maintains.
    heard: Option<(Arc<SignalClock>, Arc<StreamHealth>)>,
    subjects: Option<SeenSubjects>,
    work: Mutex<Work>,
}

#[derive(Debug)]
enum Work {
    /// There is no stream to maintain.
    Nothing,
    /// It starts when the configuration is put in force.
    Planned(Box<StreamKeeper>),
    Running(JoinHandle<()>),
}

impl Drop for RunningTransmitter {
    fn drop(&mut self) {
        let work = self.work.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Work::Running(task) = work {
            task.abort();
        }
    }
}

/// Returns the transmitters of a configuration: those of `running` whose settings are unchanged, and new ones,
/// which do nothing yet.
pub(super) fn make(
    lasting: &Lasting,
    settings: &Settings,
    running: &[Arc<RunningTransmitter>],
) -> Result<Vec<Arc<RunningTransmitter>>, Vec<String>> {
    every(settings.transmitters.iter().map(|wanted| {
        let roots = roots(wanted.transmission.ca.as_ref());
        let known = running.iter().find(|known| known.settings.name == wanted.name);
        match known {
            Some(known) if *known.settings == *wanted && known.roots == roots => Ok(Arc::clone(known)),
            known => new(lasting, wanted, roots, known).map(Arc::new),
        }
    }))
}

fn roots(ca: Option<&PathBuf>) -> Option<Vec<u8>> {
    // An unreadable file is reported where it is used.
    ca.and_then(|path| std::fs::read(path).ok())
}

fn new(
    lasting: &Lasting,
    wanted: &ssf::Settings,
    roots: Option<Vec<u8>>,
    before: Option<&Arc<RunningTransmitter>>,
) -> Result<RunningTransmitter, String> {
    let trust = tls::client_config(wanted.transmission.ca.as_deref(), None, &[b"http/1.1"])
        .map_err(|error| format!("event transmitter {}: {error}", wanted.name))?;
    let settings = Arc::new(wanted.clone());
    let (mut subjects, mut arriving) = (None, None);
    if wanted.transmission.stream.as_ref().is_some_and(|stream| stream.add_subjects) {
        let (seen, seen_by_keeper) = SeenSubjects::channel(SUBJECTS);
        (subjects, arriving) = (Some(seen), Some(seen_by_keeper));
    }
    // With the same heartbeat, the clock continues.
    let same = |before: &&Arc<RunningTransmitter>| {
        before.settings.transmission.heartbeat == wanted.transmission.heartbeat
    };
    let clock =
        before.filter(same).and_then(|before| before.heard.as_ref()).map(|(clock, _)| Arc::clone(clock));
    let clock = clock.unwrap_or_else(|| signal_clock(wanted));
    let watched = HeardStream::new(wanted, Arc::clone(&clock), lasting.state.store.clone(), arriving);
    let heard = watched.as_ref().map(|watched| (clock, Arc::clone(watched.watch())));
    let work = if wanted.transmission.needs_upkeep() {
        let shared = StreamShared {
            receiver: Arc::clone(&lasting.receiver),
            store: lasting.state.store.clone(),
            holder: Arc::clone(&lasting.replica),
        };
        let keeper = StreamKeeper::new(Arc::clone(&settings), Client::new(trust), shared, watched);
        Work::Planned(Box::new(keeper))
    } else {
        Work::Nothing
    };
    Ok(RunningTransmitter { settings, roots, heard, subjects, work: Mutex::new(work) })
}

/// Starts planned tasks; reports streams that are no longer maintained.
pub(super) fn put_in_force(
    lasting: &Lasting,
    transmitters: &[Arc<RunningTransmitter>],
    before: &[Arc<RunningTransmitter>],
) {
    for one in transmitters {
        let mut work = one.work.lock().unwrap_or_else(PoisonError::into_inner);
        *work = match std::mem::replace(&mut *work, Work::Nothing) {
            Work::Planned(keeper) => Work::Running(spawn_local(keeper.run(lasting.shutdown()))),
            work => work,
        };
    }
    let is_kept = |gone: &RunningTransmitter| {
        let same = |one: &&Arc<RunningTransmitter>| one.settings.name == gone.settings.name;
        transmitters.iter().find(same).is_some_and(|one| one.settings.transmission.stream.is_some())
    };
    for gone in before.iter().filter(|one| one.settings.transmission.stream.is_some() && !is_kept(one)) {
        info!(
            transmitter = gone.settings.name,
            "the gate no longer maintains the stream; delete it at the transmitter if it is no longer needed"
        );
    }
}

/// Waits until every task has released its stream, after the shutdown has requested it.
pub(super) async fn left(transmitters: &[Arc<RunningTransmitter>]) {
    for one in transmitters {
        let work = {
            let mut work = one.work.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *work, Work::Nothing)
        };
        if let Work::Running(task) = work {
            // An error means that it panicked, and so has ended.
            drop(task.await);
        }
    }
}

impl RunningTransmitter {
    /// Where the receiver records what arrives on the stream.
    pub(super) fn watch(&self) -> Option<Arc<StreamHealth>> {
        self.heard.as_ref().map(|(_, watch)| Arc::clone(watch))
    }
}

/// What each issuer's transmitters mean for its tokens, in the order of the issuers.
pub(super) fn of_issuers(
    settings: &Settings,
    transmitters: &[Arc<RunningTransmitter>],
) -> Vec<IssuerSignals> {
    let issuers = settings.issuers.iter().map(|issuer| &issuer.rules.issuer);
    issuers
        .map(|issuer| {
            let about =
                || transmitters.iter().filter(|one| one.settings.subject_issuer.issuer.issuer == *issuer);
            let refusing = about().filter(|one| one.settings.transmission.refuse_when_stale);
            IssuerSignals {
                required: refusing
                    .filter_map(|one| one.heard.as_ref())
                    .map(|(clock, _)| Arc::clone(clock))
                    .collect(),
                subjects: about().filter_map(|one| one.subjects.clone()).collect(),
            }
        })
        .collect()
}

/// The transmitters for the readiness and the metrics.
pub(super) fn heard(transmitters: &[Arc<RunningTransmitter>]) -> Vec<HeardTransmitter> {
    let heard = transmitters.iter().filter_map(|one| Some((one, one.heard.as_ref()?)));
    heard
        .map(|(one, (clock, _))| HeardTransmitter {
            clock: Arc::clone(clock),
            heartbeat: one.settings.transmission.heartbeat.is_some(),
            refused_for: one
                .settings
                .transmission
                .refuse_when_stale
                .then(|| Arc::clone(&one.settings.subject_issuer.issuer.issuer)),
        })
        .collect()
}
