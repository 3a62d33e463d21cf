//! The one place that sees every room: binds the listeners, wires the rooms, runs them, and takes them down in order.
//!
//! Decides nothing about requests; what a request meets is in `gate`.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tracing::{error, info, warn};

use crate::admin::Command;
use crate::config::watch::Watch;
use crate::config::{self, Loaded};
use crate::log::{self, AccessLog, LogError};
use crate::metrics::Metrics;
use crate::shutdown::{self, Phase, Trigger};
use crate::state::OpenError;
use crate::time::Now;

mod authority;
mod keys;
mod plan;
mod state;
mod wiring;
mod workers;

use plan::Plan;
use state::State;
use wiring::Wiring;
use workers::Workers;

/// Why the gate could not start, or did not keep running.
#[derive(Debug)]
pub enum RunError {
    /// An address could not be listened on.
    Listen(SocketAddr, io::Error),
    /// The operating system refused something the process needs.
    System(&'static str, io::Error),
    /// The log could not be opened.
    Log(LogError),
    /// The state store could not be opened, or not be read.
    Store(OpenError),
    /// What the configuration names cannot be used.
    Wiring(Vec<String>),
    /// A worker ended although nobody asked it to.
    WorkerEnded,
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::System(what, error) => write!(f, "{what}: {error}"),
            Self::Log(error) => write!(f, "cannot open the log: {error}"),
            Self::Store(error) => write!(f, "state.path: {error}"),
            Self::Wiring(problems) => f.write_str(&problems.join("\n")),
            Self::WorkerEnded => f.write_str("a worker ended unexpectedly; the log says why"),
        }
    }
}

impl std::error::Error for RunError {}

/// Runs the gate on this thread until a signal or `stop` ends it, then drains it. `config` is read again at each reload.
///
/// # Errors
/// When the gate cannot start, or a worker ends by itself.
pub fn run(config: &Path, loaded: &Loaded, stop: impl Future<Output = ()>) -> Result<(), RunError> {
    let metrics = Metrics::new()
        .map_err(|error| RunError::System("cannot register the metrics", io::Error::other(error)))?;
    let (access_log, log) = log::init(&loaded.settings.log, &metrics).map_err(RunError::Log)?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(|error| RunError::System("cannot start the control plane's runtime", error))?;
    runtime.block_on(async { App::start(config, loaded, metrics, access_log, log).await?.serve(stop).await })
}

/// A running gate, seen from the control plane.
struct App {
    config: PathBuf,
    wiring: Wiring,
    workers: Workers,
    trigger: Trigger,
    commands: mpsc::Receiver<Command>,
    watch: Watch,
    state: State,
    log: log::Guard,
}

impl App {
    /// Binds and wires everything; when it returns, connections are being accepted.
    async fn start(
        config: &Path,
        loaded: &Loaded,
        metrics: Metrics,
        access_log: AccessLog,
        log: log::Guard,
    ) -> Result<Self, RunError> {
        let (trigger, shutdown) = shutdown::channel();
        let telemetry = listen(loaded.settings.telemetry).await?;
        let admin = listen(loaded.settings.admin.listen).await?;
        let watch = Watch::new(loaded.files.clone());
        let opened = state::open(&loaded.settings, &metrics, Now::read()).map_err(RunError::Store)?;
        let state = State::replay(opened, &loaded.settings, &metrics).await.map_err(RunError::Store)?;
        let wiring = Wiring::new(loaded, state.clone(), metrics.clone(), access_log, shutdown.clone())
            .await
            .map_err(RunError::Wiring)?;
        spawn_local(state.clone().upkeep(wiring.settings(), wiring.enforcer(), metrics, shutdown));
        let (workers, public) = Workers::start(&loaded.settings.gate, &wiring.shared())
            .map_err(|error| RunError::System("cannot start the public listener", error))?;
        for address in public {
            info!(listener = "public", %address, "listening");
        }
        for (listener, socket) in [("telemetry", &telemetry), ("admin", &admin)] {
            let address =
                socket.local_addr().map_err(|error| RunError::System("cannot tell an address", error))?;
            info!(listener, %address, "listening");
        }
        let commands = wiring.serve_operators(telemetry, admin);
        Ok(Self { config: config.to_owned(), wiring, workers, trigger, commands, watch, state, log })
    }

    /// Serves until a signal or `stop` ends it or a worker ends by itself.
    async fn serve(mut self, stop: impl Future<Output = ()>) -> Result<(), RunError> {
        let mut stop = std::pin::pin!(stop);
        let mut signals = Signals::install()?;
        let mut hangup = handler(SignalKind::hangup())?;
        loop {
            tokio::select! {
                () = signals.stop() => break,
                () = &mut stop => break,
                () = self.workers.any_ended() => return Err(RunError::WorkerEnded),
                _ = hangup.recv() => drop(self.reload("SIGHUP").await),
                () = self.watch.changed() => drop(self.reload("a changed file").await),
                Some(Command::Reload(reply)) = self.commands.recv() => {
                    // The caller may have gone; the reload stands all the same.
                    drop(reply.send(self.reload("POST /v1/reload").await));
                }
            }
        }
        self.leave(signals).await
    }

    /// Loads the configuration again; all of it takes effect, or none.
    async fn reload(&mut self, cause: &str) -> Result<(), Vec<String>> {
        let outcome = self.try_reload().await;
        self.wiring.metrics().reloaded(outcome.is_ok());
        self.wiring.tidy_metrics();
        match &outcome {
            Ok(()) => info!(cause, "configuration reloaded"),
            Err(problems) => {
                let problems = log::list(problems);
                error!(cause, problems, "configuration not reloaded; the old one stays in force")
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
        let plan = Plan::new(&self.wiring, loaded).await?;
        self.watch.follow(plan.files().clone());
        let waiting = self.wiring.commit(plan, &self.log);
        if !waiting.is_empty() {
            warn!(keys = waiting.join(", "), "changed, but only a restart puts it into effect");
        }
        Ok(())
    }

    /// Not ready → `shutdown_delay` → no new connections → what is in flight finishes within `drain_timeout`.
    async fn leave(mut self, mut signals: Signals) -> Result<(), RunError> {
        let settings = self.wiring.loaded().settings.gate.clone();
        // From now on a request for a reload is answered at once: there will be none.
        self.commands.close();
        while self.commands.try_recv().is_ok() {}
        info!("leaving: not ready any more");
        self.trigger.advance(Phase::Leaving);
        let patience = async {
            tokio::time::sleep(settings.shutdown_delay).await;
            info!("draining: no new connections");
            self.trigger.advance(Phase::Draining);
            tokio::time::timeout(settings.drain_timeout, self.workers.ended()).await
        };
        let drained = tokio::select! {
            drained = patience => drained.is_ok(),
            () = signals.stop() => false,
        };
        if !drained {
            warn!("requests were still in flight when the drain ended; they are cut off");
        }
        self.trigger.advance(Phase::Stopped);
        // Workers look at the phase between two polls; one that does not come back must not keep the process.
        if tokio::time::timeout(LAST_CALL, self.workers.ended()).await.is_err() {
            warn!("a worker did not end; the process ends without it");
        }
        self.state.save(self.wiring.metrics()).await;
        info!("stopped");
        Ok(())
    }
}

/// How long workers may take to drop what is left.
const LAST_CALL: Duration = Duration::from_secs(1);

async fn listen(address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|error| RunError::Listen(address, error))
}

fn handler(kind: SignalKind) -> Result<Signal, RunError> {
    signal(kind).map_err(|error| RunError::System("cannot install a signal handler", error))
}

/// All values, or all errors.
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

/// The signals that end the process.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn install() -> Result<Self, RunError> {
        Ok(Self {
            terminate: handler(SignalKind::terminate())?,
            interrupt: handler(SignalKind::interrupt())?,
        })
    }

    /// Waits for SIGTERM or SIGINT.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
