//! Connects all rooms: binds the listeners, wires the rooms, runs them, and shuts them down in order.
//!
//! Decides nothing about requests; that is the task of `gate`.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;
use tracing::{error, info, warn};

use crate::admin::ControlCommand;
use crate::config::watch::Watch;
use crate::config::{self, Loaded, Problems, Settings};
use crate::gate::ConnectionCounts;
use crate::log::{self, LogError};
use crate::metrics::Metrics;
use crate::shutdown::{self, Trigger};
use crate::state::OpenError;
use crate::time::Now;

mod authority;
mod descriptors;
mod handover;
mod keys;
mod leaving;
mod listening;
mod plan;
mod senders;
mod signals;
mod state;
mod successor;
mod transmitters;
mod wiring;
mod workers;

use handover::{HandoverNames, Predecessor};
use listening::BoundListeners;
use plan::ReloadPlan;
use signals::StopSignals;
use state::KeptState;
use wiring::Wiring;
use workers::Workers;

/// Why the gate could not start, or stopped running.
#[derive(Debug)]
pub enum RunError {
    /// The configuration is invalid.
    Configuration(Problems),
    /// Listening on an address failed.
    Listen(SocketAddr, io::Error),
    /// The operating system refused a resource that the process needs.
    System(&'static str, io::Error),
    /// The log could not be opened.
    Log(LogError),
    /// The state store could not be opened or read.
    Store(OpenError),
    /// Something that the configuration names cannot be used.
    Wiring(Vec<String>),
    /// A worker ended unexpectedly.
    WorkerEnded,
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration(problems) => write!(f, "{problems}"),
            Self::Listen(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::System(what, error) => write!(f, "{what}: {error}"),
            Self::Log(error) => write!(f, "cannot open the log: {error}"),
            Self::Store(error) => write!(f, "state.path: {error}"),
            Self::Wiring(problems) => f.write_str(&problems.join("\n")),
            Self::WorkerEnded => f.write_str("a worker ended unexpectedly; see the log"),
        }
    }
}

impl std::error::Error for RunError {}

/// Runs the gate on this thread until a signal or `stop` ends it, then drains it. Reads the configuration
/// now and at each reload.
///
/// # Errors
/// When the gate cannot start, or a worker ends unexpectedly.
pub fn run(config: &Path, stop: impl Future<Output = ()>) -> Result<(), RunError> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(|error| RunError::System("cannot start the control plane's runtime", error))?;
    let outcome = runtime.block_on(async {
        let (mut stop, hangup) = (StopSignals::install(stop)?, signals::hangup()?);
        let app = tokio::select! {
            app = App::start(config) => app?,
            () = stop.requested() => return Ok(()),
        };
        app.serve(stop, hangup).await
    });
    // Do not wait for blocking work of a start that was abandoned.
    runtime.shutdown_background();
    outcome
}

/// A running gate, as the control plane sees it.
struct App {
    config: PathBuf,
    wiring: Wiring,
    workers: Workers,
    trigger: Trigger,
    commands: mpsc::Receiver<ControlCommand>,
    watch: Watch,
    state: KeptState,
    log: log::Guard,
}

/// Why the configuration is reloaded.
enum Cause {
    Hangup,
    File,
    /// A caller that waits for the outcome.
    Command(oneshot::Sender<Result<(), Vec<String>>>),
}

impl Cause {
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Hangup => "SIGHUP",
            Self::File => "a changed file",
            Self::Command(_) => "POST /v1/reload",
        }
    }
}

impl App {
    /// Binds and wires everything; when it returns, connections are being accepted. Cancel-safe.
    async fn start(config: &Path) -> Result<Self, RunError> {
        let metrics = Metrics::new()
            .map_err(|error| RunError::System("cannot register the metrics", io::Error::other(error)))?;
        let loaded = load(config).await?;
        let (access_log, log) = log::init(&loaded.settings.log, &metrics).map_err(RunError::Log)?;
        let (trigger, shutdown) = shutdown::channel();
        let descriptors = descriptors::raise_limit();
        // Before the state is read: clients that connect in the meantime wait for a moment instead of being refused.
        let BoundListeners { telemetry, admin, signals, public, predecessor } =
            BoundListeners::bind(&loaded.settings).await?;
        let watch = Watch::new(loaded.files.clone());
        if let Some(predecessor) = predecessor {
            predecessor.released().await;
        }
        let opened = open(&loaded.settings, &metrics).await?;
        let state = KeptState::replay(opened, &loaded.settings, &metrics).await.map_err(RunError::Store)?;
        let workers = loaded.settings.gate.workers;
        let connections = ConnectionCounts::new(descriptors::connections_within(descriptors, workers));
        let parts = (state.clone(), metrics.clone(), access_log, shutdown.clone());
        let mut wiring = Wiring::new(&loaded, parts, connections).await.map_err(RunError::Wiring)?;
        spawn_local(state.clone().upkeep(wiring.settings(), wiring.enforcer(), metrics, shutdown));
        let (workers, public) = Workers::start(public, &wiring.shared())
            .map_err(|error| RunError::System("cannot start the public listener", error))?;
        for address in public {
            info!(listener = "public", %address, "listening");
        }
        let operators = [("telemetry", &telemetry), ("admin", &admin)];
        for (listener, socket) in
            operators.into_iter().chain(signals.iter().map(|socket| ("signals", socket)))
        {
            let address = socket
                .local_addr()
                .map_err(|error| RunError::System("cannot read the address of a listener", error))?;
            info!(listener, %address, "listening");
        }
        let commands = wiring.serve_operators(telemetry, admin);
        if let Some(signals) = signals {
            wiring.serve_signals(signals);
        }
        Ok(Self { config: config.to_owned(), wiring, workers, trigger, commands, watch, state, log })
    }

    /// Serves until it is asked to stop, or a worker ends unexpectedly.
    async fn serve<F: Future<Output = ()>>(
        mut self,
        mut stop: StopSignals<F>,
        mut hangup: Signal,
    ) -> Result<(), RunError> {
        loop {
            let cause = tokio::select! {
                () = stop.requested() => break,
                () = self.workers.any_ended() => return Err(RunError::WorkerEnded),
                _ = hangup.recv() => Cause::Hangup,
                () = self.watch.changed() => Cause::File,
                Some(ControlCommand::Reload(reply)) = self.commands.recv() => Cause::Command(reply),
            };
            let outcome = tokio::select! {
                outcome = self.reload(cause.as_str()) => outcome,
                // Until the commit, which does not wait, no part of a reload is in force.
                () = stop.requested() => {
                    info!(cause = cause.as_str(), "reload abandoned");
                    break;
                }
            };
            if let Cause::Command(reply) = cause {
                // The caller may be gone; the reload stays in force.
                drop(reply.send(outcome));
            }
        }
        self.leave(stop).await
    }

    /// Reloads the configuration; all of it takes effect, or none.
    async fn reload(&mut self, cause: &str) -> Result<(), Vec<String>> {
        let outcome = self.try_reload().await;
        self.wiring.metrics().reloaded(outcome.is_ok());
        self.wiring.tidy_metrics();
        match &outcome {
            Ok(()) => info!(cause, "configuration reloaded"),
            Err(problems) => {
                let problems = log::list(problems);
                error!(cause, problems, "configuration not reloaded; the previous one stays in effect")
            }
        }
        outcome
    }

    async fn try_reload(&mut self) -> Result<(), Vec<String>> {
        let loaded = match config::load(&self.config) {
            Ok(loaded) => loaded,
            Err(problems) => {
                self.watch.follow(problems.files().clone());
                return Err(problems.list().iter().map(ToString::to_string).collect());
            }
        };
        self.watch.follow(loaded.files.clone());
        let plan = ReloadPlan::new(&self.wiring, loaded).await?;
        self.watch.follow(plan.files().clone());
        let waiting = self.wiring.commit(plan, &self.log);
        if !waiting.is_empty() {
            warn!(keys = waiting.join(", "), "changed, but takes effect only after a restart");
        }
        Ok(())
    }
}

/// Reads the configuration on a blocking thread.
async fn load(config: &Path) -> Result<Loaded, RunError> {
    let config = config.to_owned();
    let loading = tokio::task::spawn_blocking(move || config::load(&config));
    joined(loading).await?.map_err(RunError::Configuration)
}

/// Opens the store on a blocking thread: it may check a damaged file, or wait for the file's lock.
async fn open(settings: &Settings, metrics: &Metrics) -> Result<state::Opened, RunError> {
    let open = || {
        let (settings, metrics) = (settings.clone(), metrics.clone());
        joined(tokio::task::spawn_blocking(move || state::open(&settings, &metrics, Now::read())))
    };
    let mut opened = open().await?;
    if let Err(OpenError::InUse(_)) = &opened
        && let Some(predecessor) = Predecessor::find(&HandoverNames::of(settings)).await
    {
        predecessor.released().await;
        opened = open().await?;
    }
    opened.map_err(RunError::Store)
}

async fn joined<T>(task: tokio::task::JoinHandle<T>) -> Result<T, RunError> {
    task.await.map_err(|error| RunError::System("a thread ended unexpectedly", io::Error::other(error)))
}

/// Collects all values or, if there are any, all errors.
fn every<T>(results: impl Iterator<Item = Result<T, String>>) -> Result<Vec<T>, Vec<String>> {
    let (mut values, mut errors) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(values) } else { Err(errors) }
}
