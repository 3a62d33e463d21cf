//! From settings to running parts: key stores with their refreshers, the enforcer, the upstreams, the served
//! certificates. A reload makes them all again and puts them into effect by exchanging pointers.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::Instant;

use super::authority;
use super::state::State;
use crate::admin::{self, Access, Command, Control, Health, serve_admin, serve_telemetry};
use crate::authority::{Authority, Change};
use crate::client::Client;
use crate::config::{Loaded, Settings};
use crate::enforce::decide::{Enforcer, Issuer};
use crate::events;
use crate::forward::Upstream;
use crate::gate::{ConnectionCounts, Live, Shared};
use crate::keys;
use crate::keys::refresh::spawn_refresher;
use crate::keys::store::{Availability, KeyStore};
use crate::log::AccessLog;
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::ssf::{Receiver, Transmitter};
use crate::time::Timestamp;
use crate::tls::{self, Tickets};

/// How long a reload waits for the keys of an issuer that is new or moved.
const FIRST_KEYS: Duration = Duration::from_secs(5);

/// How often it looks whether they have come.
const LOOK: Duration = Duration::from_millis(20);

/// An issuer's keys, and the task that keeps them fresh for as long as this value lives.
#[derive(Debug)]
struct Keys {
    store: Arc<KeyStore>,
    /// None for those of the authority in this process.
    refresher: Option<JoinHandle<()>>,
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.refresher.iter().for_each(JoinHandle::abort);
    }
}

/// What every configuration is wired with: made once, kept over reloads.
#[derive(Debug)]
struct Lasting {
    state: State,
    public_tickets: Tickets,
    admin_tickets: Tickets,
    metrics: Metrics,
    shutdown: Shutdown,
    authority: Option<Arc<Authority>>,
}

/// Everything that is made of one configuration.
struct Made {
    live: Live,
    admin_tls: Option<Arc<rustls::ServerConfig>>,
    certificates: Vec<(String, Timestamp)>,
}

/// The running parts.
pub(super) struct Wiring {
    settings: Settings,
    /// Of the issuers, in their order, and then of the transmitters.
    keys: Vec<Arc<Keys>>,
    receiver: Arc<Receiver>,
    event_issuers: Arc<ArcSwap<Vec<events::Issuer>>>,
    live: Arc<ArcSwap<Live>>,
    effective: Arc<ArcSwap<Value>>,
    enforcer: Arc<ArcSwap<Enforcer>>,
    access: Arc<Access>,
    health: Arc<Health>,
    connections: Arc<ConnectionCounts>,
    access_log: AccessLog,
    lasting: Lasting,
}

impl Wiring {
    /// Wires the first configuration. Issuers need not be reachable: the gate is not ready until they are.
    pub(super) async fn new(
        loaded: &Loaded,
        state: State,
        metrics: Metrics,
        access_log: AccessLog,
        shutdown: Shutdown,
    ) -> Result<Self, Vec<String>> {
        let (public_tickets, admin_tickets) = (Tickets::default(), Tickets::default());
        let settings = loaded.settings.clone();
        let event_issuers = Arc::new(ArcSwap::from_pointee(event_issuers(&settings)));
        let authority = match &settings.authority {
            Some(wanted) => {
                Some(authority::open(wanted, &settings.state, &state, &event_issuers, &metrics).await?)
            }
            None => None,
        };
        let lasting = Lasting { state, public_tickets, admin_tickets, metrics, shutdown, authority };
        let keys = lasting.keys(&settings, &[], None).await?;
        let Made { live, admin_tls, certificates } = lasting.make(&settings, &keys, None)?;
        let log = Arc::clone(&lasting.state.events);
        let receiver = Receiver::new(transmitters(&settings, &keys), log, &lasting.metrics);
        lasting.metrics.set_certificates(certificates);
        let health = Arc::new(Health::new(stores(&settings, &keys), lasting.shutdown.clone()));
        Ok(Self {
            access: Arc::new(Access::new(&settings.admin, admin_tls)),
            connections: Arc::new(ConnectionCounts::default()),
            effective: Arc::new(ArcSwap::from_pointee(loaded.redacted.clone())),
            enforcer: Arc::new(ArcSwap::new(Arc::clone(&live.enforcer))),
            live: Arc::new(ArcSwap::from_pointee(live)),
            event_issuers,
            receiver: Arc::new(receiver),
            settings,
            keys,
            health,
            access_log,
            lasting,
        })
    }

    /// Puts another configuration into effect, all of it or nothing; answers with the keys that need a restart.
    ///
    /// Waits for the keys of issuers that are new or whose source changed: exchanging known keys for none would refuse
    /// requests that were fine a moment ago.
    pub(super) async fn replace(&mut self, loaded: &Loaded) -> Result<Vec<String>, Vec<String>> {
        let settings = loaded.settings.clone();
        if !authority::same(self.settings.authority.as_ref(), settings.authority.as_ref()) {
            return Err(vec![authority::RESTART.to_owned()]);
        }
        let authority = match (&self.lasting.authority, &settings.authority) {
            (Some(authority), Some(wanted)) => {
                let change = authority.plan(wanted).await;
                Some((authority, change.map_err(|error| vec![format!("[authority]: {error}")])?))
            }
            _ => None,
        };
        let change = authority.as_ref().map(|(_, change)| change);
        let keys = self.lasting.keys(&settings, &self.keys, change).await?;
        let issuers = keys.iter().take(settings.issuers.len());
        let new = issuers.filter(|keys| !self.keys.iter().any(|known| Arc::ptr_eq(known, keys)));
        all_loaded(&new.collect::<Vec<_>>()).await?;
        let running = self.live.load_full();
        let Made { live, admin_tls, certificates } = self.lasting.make(&settings, &keys, Some(&running))?;
        let needs_restart = self.settings.restart_needed(&settings);
        self.lasting.state.reconfigure(&settings);
        self.enforcer.store(Arc::clone(&live.enforcer));
        self.live.store(Arc::new(live));
        if let Some((authority, change)) = authority {
            authority.commit(change);
        }
        self.event_issuers.store(Arc::new(event_issuers(&settings)));
        self.receiver.replace(transmitters(&settings, &keys));
        self.access.replace(&settings.admin, admin_tls);
        self.health.replace_keys(stores(&settings, &keys));
        self.effective.store(Arc::new(loaded.redacted.clone()));
        self.settings = settings;
        self.keys = keys;
        self.lasting.metrics.set_certificates(certificates);
        Ok(needs_restart)
    }

    /// Starts serving the two listeners for operators.
    pub(super) fn serve_operators(
        &self,
        telemetry: TcpListener,
        admin: TcpListener,
    ) -> mpsc::Receiver<Command> {
        let (commands, asked) = mpsc::channel(8);
        let control = Control {
            commands,
            effective: Arc::clone(&self.effective),
            enforcer: Arc::clone(&self.enforcer),
            authority: self.lasting.authority.clone(),
        };
        let (metrics, shutdown) = (self.lasting.metrics.clone(), self.lasting.shutdown.clone());
        spawn_local(self.lasting.state.clone().report(Arc::clone(&self.health), metrics.clone()));
        let limits = admin::Limits::default();
        spawn_local(serve_telemetry(
            telemetry,
            metrics.clone(),
            Arc::clone(&self.health),
            limits,
            shutdown.clone(),
        ));
        let access = Arc::clone(&self.access);
        let ledger = admin::Ledger {
            log: Arc::clone(&self.lasting.state.events),
            receiver: Arc::clone(&self.receiver),
            revocations: Arc::clone(&self.lasting.state.in_force.revocations),
            sessions: Arc::clone(&self.lasting.state.in_force.sessions),
            usage: Arc::clone(&self.lasting.state.usage),
            issuers: Arc::clone(&self.event_issuers),
        };
        spawn_local(serve_admin(admin, access, control, ledger, metrics, limits, shutdown));
        asked
    }

    /// What the workers share.
    pub(super) fn shared(&self) -> Shared {
        Shared {
            live: Arc::clone(&self.live),
            metrics: self.lasting.metrics.clone(),
            log: self.access_log.clone(),
            shutdown: self.lasting.shutdown.clone(),
            connections: Arc::clone(&self.connections),
        }
    }

    /// The configuration in effect.
    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What decides, in every configuration to come.
    pub(super) fn enforcer(&self) -> Arc<ArcSwap<Enforcer>> {
        Arc::clone(&self.enforcer)
    }

    /// The instruments.
    pub(super) fn metrics(&self) -> &Metrics {
        &self.lasting.metrics
    }
}

impl Lasting {
    /// The key stores of issuers and transmitters: those of `running` whose settings stand, and new ones.
    async fn keys(
        &self,
        settings: &Settings,
        running: &[Arc<Keys>],
        change: Option<&Change>,
    ) -> Result<Vec<Arc<Keys>>, Vec<String>> {
        let issuers = settings.issuers.iter().map(|issuer| &issuer.keys);
        let transmitters = settings.transmitters.iter().map(|transmitter| &transmitter.keys);
        let mut keys = Vec::with_capacity(settings.issuers.len() + settings.transmitters.len());
        for wanted in issuers.chain(transmitters) {
            let same = running.iter().find(|keys| keys.store.settings() == wanted);
            keys.push(match same {
                Some(same) => Ok(Arc::clone(same)),
                None if wanted.source == keys::Source::Authority => self.own_keys(wanted, change),
                None => self.start_keys(wanted).await,
            });
        }
        every(keys.into_iter())
    }

    /// The keys of the authority in this process: never fetched, and never stale.
    fn own_keys(&self, settings: &keys::Settings, change: Option<&Change>) -> Result<Arc<Keys>, String> {
        let authority = self.authority.as_ref().ok_or("there is no authority")?;
        let store = authority.key_store(settings, change);
        let store = store.map_err(|error| format!("issuer {}: {error}", settings.issuer))?;
        Ok(Arc::new(Keys { store, refresher: None }))
    }

    async fn start_keys(&self, settings: &keys::Settings) -> Result<Arc<Keys>, String> {
        let trust = tls::client_config(settings.ca.as_deref(), None, &[b"http/1.1"])
            .map_err(|error| format!("issuer {}: {error}", settings.issuer))?;
        let store = KeyStore::new(settings.clone(), self.metrics.clone());
        self.state.keep_keys(&store).await;
        let refresher = spawn_refresher(Arc::clone(&store), Client::new(trust), self.shutdown.clone());
        Ok(Arc::new(Keys { store, refresher: Some(refresher) }))
    }

    fn make(
        &self,
        settings: &Settings,
        keys: &[Arc<Keys>],
        running: Option<&Live>,
    ) -> Result<Made, Vec<String>> {
        let served = [
            (settings.gate.tls.as_ref(), &self.public_tickets),
            (settings.admin.tls.as_ref(), &self.admin_tickets),
        ];
        let mut configs = every(served.into_iter().map(|(tls, tickets)| {
            tls.map(|tls| tls::server_config(tls, tickets).map_err(|error| error.to_string())).transpose()
        }))?;
        let admin_tls = configs.pop().flatten();
        let certificates = every(served.into_iter().filter_map(|(tls, _)| tls).map(|tls| {
            let expiry = tls::certificate_expiry(&tls.certificate).map_err(|error| error.to_string())?;
            Ok((tls.certificate.display().to_string(), expiry))
        }))?;
        let upstreams = every(settings.upstreams.iter().map(|upstream| {
            Upstream::load(upstream.clone()).map_err(|error| format!("upstream {}: {error}", upstream.name))
        }))?;
        let issuers = settings.issuers.iter().zip(keys);
        let issuers = issuers
            .map(|(issuer, keys)| Issuer { rules: issuer.rules.clone(), keys: Arc::clone(&keys.store) })
            .collect();
        let in_force = self.state.in_force.clone();
        let enforcer = Enforcer::new(settings.enforce.clone(), issuers, in_force, &self.metrics)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let enforcer = match running {
            Some(running) => enforcer.after(&running.enforcer),
            None => enforcer,
        };
        let live = Live {
            enforcer: Arc::new(enforcer),
            upstreams,
            identity: settings.enforce.identity.clone(),
            streams: settings.streams,
            authority: self.authority.clone(),
            settings: settings.gate.clone(),
            tls: configs.pop().flatten(),
            generation: running.map_or(0, |running| running.generation + 1),
        };
        Ok(Made { live, admin_tls, certificates })
    }
}

/// What events need to know of the issuers.
fn event_issuers(settings: &Settings) -> Vec<events::Issuer> {
    let issuers = settings.issuers.iter().map(|issuer| &issuer.rules);
    issuers
        .map(|rules| events::Issuer {
            issuer: Arc::clone(&rules.issuer),
            leeway: rules.leeway,
            max_lifetime: rules.max_lifetime,
        })
        .collect()
}

/// The transmitters with their keys, which come behind those of the issuers.
fn transmitters(settings: &Settings, keys: &[Arc<Keys>]) -> Vec<Arc<Transmitter>> {
    let keys = keys.iter().skip(settings.issuers.len());
    let transmitters = settings.transmitters.iter().zip(keys);
    transmitters
        .map(|(settings, keys)| Arc::new(Transmitter::new(settings.clone(), Arc::clone(&keys.store))))
        .collect()
}

/// The keys without which requests cannot be judged: those of the issuers.
fn stores(settings: &Settings, keys: &[Arc<Keys>]) -> Vec<Arc<KeyStore>> {
    keys.iter().take(settings.issuers.len()).map(|keys| Arc::clone(&keys.store)).collect()
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

/// Waits until every store has keys.
async fn all_loaded(keys: &[&Arc<Keys>]) -> Result<(), Vec<String>> {
    let deadline = Instant::now() + FIRST_KEYS;
    let missing = || {
        let never =
            |keys: &&&Arc<Keys>| keys.store.availability(Timestamp::now()) == Availability::NeverLoaded;
        keys.iter().filter(never).map(|keys| keys.store.settings().issuer.clone()).collect::<Vec<_>>()
    };
    loop {
        let missing = missing();
        if missing.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let problem =
                |issuer| format!("issuer {issuer}: its keys could not be loaded within {FIRST_KEYS:?}");
            return Err(missing.into_iter().map(problem).collect());
        }
        tokio::time::sleep(LOOK).await;
    }
}
