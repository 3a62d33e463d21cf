//! The running parts: those that are created once, and those that each configuration replaces by swapping pointers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_local};

use super::authority;
use super::keys::{IssuerKeys, Maker, with_own};
use super::plan::{self, Listeners, LiveParts, ReloadPlan};
use super::senders;
use super::state::KeptState;
use super::transmitters::{self, RunningTransmitter};
use crate::admin::{self, Access, Control, ControlCommand, Health, serve_admin, serve_telemetry};
use crate::authority::Authority;
use crate::config::{Loaded, Settings};
use crate::console;
use crate::enforce::decide::{Enforcer, InForce};
use crate::events;
use crate::gate::{ConnectionCounts, Live, WorkersShared};
use crate::keys::store::KeyStore;
use crate::log::{self, AccessLog, Refusals};
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::signals::SignalLog;
use crate::signals::intake::Intake;
use crate::signals::scim::ScimDirectories;
use crate::signals::ssf::Receiver;
use crate::signals::ssf::streams::replica_name;
use crate::time::Now;
use crate::tls::ServerTls;
use crate::traces::Traces;

/// What is created once and kept over reloads.
#[derive(Debug)]
pub(super) struct Lasting {
    pub(super) state: KeptState,
    pub(super) metrics: Metrics,
    shutdown: Shutdown,
    pub(super) authority: Option<Arc<Authority>>,
    pub(super) receiver: Arc<Receiver>,
    pub(super) signals: Arc<SignalLog>,
    /// The name of this process among the replicas.
    pub(super) replica: Arc<str>,
    pub(super) directories: ScimDirectories,
    pub(super) traces: Traces,
}

/// The running parts.
pub(super) struct Wiring {
    /// The configuration in force; keys that require a restart have their values from startup.
    loaded: Loaded,
    /// The same settings, for long-running tasks.
    settings: Arc<ArcSwap<Settings>>,
    /// The keys of the issuers, in their order, then of the transmitters.
    keys: Vec<Arc<IssuerKeys>>,
    /// The running parts of each transmitter, in their order.
    transmitters: Vec<Arc<RunningTransmitter>>,
    event_issuers: Arc<ArcSwap<Vec<events::EventIssuer>>>,
    live: Arc<ArcSwap<Live>>,
    effective: Arc<ArcSwap<Value>>,
    /// Whether the console is enabled.
    console: Arc<AtomicBool>,
    enforcer: Arc<ArcSwap<Enforcer>>,
    admin_tls: Option<Arc<ServerTls>>,
    /// The endpoints for signals; the next field is TLS of their separate listener.
    intake: Arc<ArcSwapOption<Intake>>,
    signals_tls: Arc<ArcSwapOption<ServerTls>>,
    access: Arc<Access>,
    health: Arc<Health>,
    connections: Arc<ConnectionCounts>,
    /// The tasks that serve the listeners other than the public one.
    operators: Vec<JoinHandle<()>>,
    access_log: AccessLog,
    refusals: Refusals,
    lasting: Lasting,
}

impl Wiring {
    /// Wires the first configuration. Issuers need not be reachable: the gate is not ready until they are.
    pub(super) async fn new(
        loaded: &Loaded,
        (state, metrics, access_log, shutdown): (KeptState, Metrics, AccessLog, Shutdown),
        connections: ConnectionCounts,
    ) -> Result<Self, Vec<String>> {
        let (loaded, settings) = (loaded.clone(), &loaded.settings);
        connections.warn_of(settings.gate.limits.connections);
        let event_issuers = Arc::new(ArcSwap::from_pointee(settings.event_issuers()));
        let authority = match &settings.authority {
            Some(wanted) => {
                Some(authority::open(wanted, &settings.state, &state, &event_issuers, &metrics).await?)
            }
            None => None,
        };
        let InForce { revocations, sessions, .. } = &state.in_force;
        let (log, sessions) = (Arc::clone(&state.events), Arc::clone(sessions));
        let signals = SignalLog::start(log, Arc::clone(revocations), sessions, &metrics);
        let receiver = Arc::new(Receiver::new(Vec::new(), Arc::clone(&signals)));
        let replica = replica_name().into();
        let directories = ScimDirectories::new(state.store.clone());
        let traces = Traces::start(&metrics);
        let lasting =
            Lasting { state, metrics, shutdown, authority, receiver, signals, replica, directories, traces };
        lasting.traces.export_to(plan::collector(settings)?);
        let listeners = Listeners::new(settings, None)?;
        let keys = lasting.maker().make(settings, &[]).await?;
        let own = lasting.authority.as_deref().map(|authority| (authority, None));
        let keys = with_own(keys, settings, own, &[])?;
        distinct(&keys).for_each(|keys| lasting.put_in_force(&keys.store));
        let intake = senders::intake(&lasting, settings, &keys, None);
        let upstreams = plan::upstreams(settings, &[])?;
        let parts = LiveParts { listeners: &listeners, upstreams, intake: intake.clone() };
        let transmitters = transmitters::make(&lasting, settings, &[])?;
        let signals = transmitters::of_issuers(settings, &transmitters);
        let live = plan::live((&lasting, settings, &keys), parts, signals, None)?;
        lasting.receiver.replace(senders::transmitters(settings, &keys, &transmitters));
        transmitters::put_in_force(&lasting, &transmitters, &[]);
        lasting.metrics.set_certificates(listeners.certificates);
        let (stores, shutdown) = (stores(settings, &keys), lasting.shutdown.clone());
        let health = Arc::new(Health::new(stores, settings.ready_when, shutdown));
        health.name_log(lasting.state.store.clone());
        health.replace_heard(transmitters::heard(&transmitters));
        Ok(Self {
            access: Arc::new(Access::new(&settings.admin, listeners.admin.clone())),
            admin_tls: listeners.admin,
            intake: Arc::new(ArcSwapOption::new(intake)),
            signals_tls: Arc::new(ArcSwapOption::new(listeners.signals)),
            connections: Arc::new(connections),
            operators: Vec::new(),
            effective: Arc::new(ArcSwap::from_pointee(loaded.redacted.clone())),
            console: Arc::new(AtomicBool::new(settings.console)),
            enforcer: Arc::new(ArcSwap::new(Arc::clone(&live.enforcer))),
            live: Arc::new(ArcSwap::from_pointee(live)),
            event_issuers,
            settings: Arc::new(ArcSwap::from_pointee(settings.clone())),
            loaded,
            keys,
            transmitters,
            health,
            access_log,
            refusals: Refusals::default(),
            lasting,
        })
    }

    /// Puts a plan in force; cannot fail. Returns the keys that require a restart.
    ///
    /// What receives events and tokens is replaced first, what signs last: nothing is signed with a key that
    /// the gate does not know.
    pub(super) fn commit(&mut self, plan: ReloadPlan, log: &log::Guard) -> Vec<&'static str> {
        let ReloadPlan {
            loaded,
            waiting,
            keys,
            listeners,
            live,
            intake,
            transmitters,
            authority,
            log: lines,
            collector,
        } = plan;
        let settings = &loaded.settings;
        for new in distinct(&keys).filter(|keys| !self.keys.iter().any(|known| Arc::ptr_eq(known, keys))) {
            self.lasting.put_in_force(&new.store);
        }
        self.settings.store(Arc::new(settings.clone()));
        self.connections.warn_of(settings.gate.limits.connections);
        self.lasting.state.reconfigure(settings);
        self.event_issuers.store(Arc::new(settings.event_issuers()));
        self.enforcer.store(Arc::clone(&live.enforcer));
        self.lasting.receiver.replace(senders::transmitters(settings, &keys, &transmitters));
        transmitters::put_in_force(&self.lasting, &transmitters, &self.transmitters);
        self.health.replace_heard(transmitters::heard(&transmitters));
        self.transmitters = transmitters;
        self.live.store(Arc::new(live));
        self.intake.store(intake);
        self.signals_tls.store(listeners.signals);
        if let (Some(running), Some(change)) = (&self.lasting.authority, authority) {
            running.commit(change);
        }
        self.access.replace(&settings.admin, listeners.admin.clone());
        self.admin_tls = listeners.admin;
        self.health.replace_keys(stores(settings, &keys), settings.ready_when);
        self.effective.store(Arc::new(loaded.redacted.clone()));
        self.console.store(settings.console, Ordering::Relaxed);
        self.lasting.metrics.set_certificates(listeners.certificates);
        log.reconfigure(lines);
        self.lasting.traces.export_to(collector);
        self.keys = keys;
        self.loaded = loaded;
        waiting
    }

    /// Removes the metrics of issuers that are not in force: those of an earlier or refused configuration.
    pub(super) fn tidy_metrics(&self) {
        let issuers: Vec<&str> = self.keys.iter().map(|keys| keys.store.settings().issuer.as_str()).collect();
        self.lasting.metrics.retain_issuers(&issuers);
    }

    /// Starts serving the telemetry and admin listeners.
    pub(super) fn serve_operators(
        &mut self,
        telemetry: TcpListener,
        admin: TcpListener,
    ) -> mpsc::Receiver<ControlCommand> {
        let (commands, asked) = mpsc::channel(8);
        let control = Control {
            commands,
            effective: Arc::clone(&self.effective),
            enforcer: Arc::clone(&self.enforcer),
            authority: self.lasting.authority.clone(),
            refusals: self.refusals.clone(),
        };
        let (metrics, shutdown) = (self.lasting.metrics.clone(), self.lasting.shutdown.clone());
        spawn_local(self.lasting.state.clone().report(Arc::clone(&self.health), metrics.clone()));
        let limits = admin::AdminLimits::default();
        let telemetry = spawn_local(serve_telemetry(
            telemetry,
            metrics.clone(),
            self.gauges(),
            Arc::clone(&self.health),
            limits,
            shutdown.clone(),
        ));
        let access = Arc::clone(&self.access);
        let ledger = admin::Ledger {
            log: Arc::clone(&self.lasting.state.events),
            receiver: Arc::clone(&self.lasting.receiver),
            revocations: Arc::clone(&self.lasting.state.in_force.revocations),
            sessions: Arc::clone(&self.lasting.state.in_force.sessions),
            usage: Arc::clone(&self.lasting.state.usage),
            issuers: Arc::clone(&self.event_issuers),
        };
        let api = admin::Api::new(control, ledger, metrics, admin::AdminLimits::with_consoles());
        let (enabled, watched) = (Arc::clone(&self.console), self.watched(&shutdown));
        let pages = console::router(api.clone(), Arc::clone(&access), enabled, watched);
        let admin = spawn_local(serve_admin(admin, access, api, pages, shutdown));
        self.operators = vec![telemetry, admin];
        asked
    }

    /// Starts serving the separate listener for signals.
    pub(super) fn serve_signals(&mut self, listener: TcpListener) {
        let (intake, tls) = (Arc::clone(&self.intake), Arc::clone(&self.signals_tls));
        let open = self.lasting.metrics.connections.with_label_values(&["signals"]);
        let served = admin::serve_signals(listener, intake, tls, open, self.lasting.shutdown.clone());
        self.operators.push(spawn_local(served));
    }

    /// Returns a function that updates values that are not counted as they change.
    fn gauges(&self) -> impl Fn() + Send + Sync + use<> {
        let (health, metrics) = (Arc::clone(&self.health), self.lasting.metrics.clone());
        let state = self.lasting.state.clone().gauges(metrics.clone());
        move || {
            state();
            health.export(&metrics, Now::read());
        }
    }

    /// Waits until no stream of a transmitter is maintained.
    pub(super) async fn streams_left(&self) {
        transmitters::left(&self.transmitters).await;
    }

    /// The running parts of each transmitter.
    pub(super) fn transmitters(&self) -> &[Arc<RunningTransmitter>] {
        &self.transmitters
    }

    /// What the console's live page shows besides the metrics.
    fn watched(&self, shutdown: &Shutdown) -> console::Watched {
        console::Watched {
            health: Arc::clone(&self.health),
            connections: Arc::clone(&self.connections),
            gauges: Box::new(self.gauges()),
            shutdown: shutdown.clone(),
        }
    }

    /// Waits until the queued spans are exported or dropped.
    pub(super) async fn traces_left(&mut self) {
        self.lasting.traces.end().await;
    }

    /// Waits until the listeners other than the public one are closed, and their requests answered.
    pub(super) async fn operators_left(&mut self) {
        for task in self.operators.drain(..) {
            // An error means that it panicked; its listener is closed nevertheless.
            drop(task.await);
        }
    }

    /// The connections on the public listener.
    pub(super) fn connections(&self) -> &ConnectionCounts {
        &self.connections
    }

    /// What the workers share.
    pub(super) fn shared(&self) -> WorkersShared {
        WorkersShared {
            live: Arc::clone(&self.live),
            metrics: self.lasting.metrics.clone(),
            log: self.access_log.clone(),
            refusals: self.refusals.clone(),
            shutdown: self.lasting.shutdown.clone(),
            connections: Arc::clone(&self.connections),
        }
    }

    /// The configuration in force.
    pub(super) fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    /// The settings in force, updated by each reload.
    pub(super) fn settings(&self) -> Arc<ArcSwap<Settings>> {
        Arc::clone(&self.settings)
    }

    /// The key stores in force: of the issuers, in their order, then of the transmitters.
    pub(super) fn keys(&self) -> &[Arc<IssuerKeys>] {
        &self.keys
    }

    /// The state that workers use to decide and forward.
    pub(super) fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// TLS of the admin listener.
    pub(super) fn admin_tls(&self) -> Option<Arc<ServerTls>> {
        self.admin_tls.clone()
    }

    /// TLS of the listener for signals.
    pub(super) fn signals_tls(&self) -> Option<Arc<ServerTls>> {
        self.signals_tls.load_full()
    }

    /// The endpoints for signals.
    pub(super) fn intake(&self) -> Option<Arc<Intake>> {
        self.intake.load_full()
    }

    /// What is kept over reloads.
    pub(super) fn lasting(&self) -> &Lasting {
        &self.lasting
    }

    /// The enforcer in force, updated by each reload.
    pub(super) fn enforcer(&self) -> Arc<ArcSwap<Enforcer>> {
        Arc::clone(&self.enforcer)
    }

    /// The instruments.
    pub(super) fn metrics(&self) -> &Metrics {
        &self.lasting.metrics
    }
}

impl Lasting {
    /// The inputs for creating key stores.
    pub(super) fn maker(&self) -> Maker<'_> {
        Maker { state: &self.state, metrics: &self.metrics, shutdown: &self.shutdown }
    }

    /// A view of the shutdown.
    pub(super) fn shutdown(&self) -> Shutdown {
        self.shutdown.clone()
    }

    /// Starts saving the keys across restarts, and exporting them as metrics.
    fn put_in_force(&self, keys: &KeyStore) {
        keys.begin_export(Now::read());
        self.state.keep_keys(keys);
    }
}

/// The key stores that decisions depend on: those of the issuers.
fn stores(settings: &Settings, keys: &[Arc<IssuerKeys>]) -> Vec<Arc<KeyStore>> {
    let keys = keys.get(..settings.issuers.len()).unwrap_or(keys);
    distinct(keys).map(|keys| Arc::clone(&keys.store)).collect()
}

/// Each key store once: an issuer with several tables has one.
fn distinct(keys: &[Arc<IssuerKeys>]) -> impl Iterator<Item = &Arc<IssuerKeys>> {
    let is_first = |place: &usize| {
        let (before, here) = keys.split_at(*place);
        !here.first().is_some_and(|here| before.iter().any(|other| Arc::ptr_eq(other, here)))
    };
    (0..keys.len()).filter(is_first).filter_map(|place| keys.get(place))
}
