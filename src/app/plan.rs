//! Plans a reload: creates everything that a new configuration needs and compares it with what is running, without
//! changing anything that runs. A problem found here refuses the reload; committing a complete plan cannot fail.

use std::sync::Arc;

use super::every;
use super::keys::{IssuerKeys, all_loaded, with_own};
use super::senders;
use super::transmitters::{self, RunningTransmitter};
use super::wiring::{Lasting, Wiring};
use crate::authority;
use crate::config::watch::WatchedFiles;
use crate::config::{Loaded, Settings};
use crate::enforce::decide::{Enforcer, TrustedIssuer};
use crate::enforce::signals::IssuerSignals;
use crate::forward::Upstream;
use crate::gate::Live;
use crate::log;
use crate::signals::intake::Intake;
use crate::time::Timestamp;
use crate::tls::{self, ServerTls};
use crate::traces::Collector;

/// A new configuration, ready to be put in force.
pub(super) struct ReloadPlan {
    /// The configuration, with the running values of keys that require a restart.
    pub(super) loaded: Loaded,
    /// The keys that require a restart.
    pub(super) waiting: Vec<&'static str>,
    /// The keys of the issuers, in their order, then of the transmitters.
    pub(super) keys: Vec<Arc<IssuerKeys>>,
    pub(super) listeners: Listeners,
    pub(super) live: Live,
    /// The endpoints for signals, on any listener.
    pub(super) intake: Option<Arc<Intake>>,
    /// The running parts of each transmitter, in their order.
    pub(super) transmitters: Vec<Arc<RunningTransmitter>>,
    pub(super) authority: Option<authority::PlannedSettings>,
    pub(super) log: log::Change,
    /// The trace collector, if any.
    pub(super) collector: Option<Arc<Collector>>,
}

/// TLS of the listeners.
pub(super) struct Listeners {
    pub(super) public: Option<Arc<ServerTls>>,
    pub(super) admin: Option<Arc<ServerTls>>,
    pub(super) signals: Option<Arc<ServerTls>>,
    /// Each certificate file, and when its certificate expires.
    pub(super) certificates: Vec<(String, Timestamp)>,
}

impl ReloadPlan {
    /// Compares a configuration with the one in force, and creates everything that it needs.
    ///
    /// Waits for the keys of issuers and transmitters that are new or whose source has changed.
    pub(super) async fn new(running: &Wiring, loaded: Loaded) -> Result<Self, Vec<String>> {
        let (loaded, waiting) = loaded.in_force_after(running.loaded())?;
        let (settings, lasting) = (&loaded.settings, running.lasting());
        let log = log::Change::new(&settings.log).map_err(|error| vec![error.to_string()])?;
        let collector = collector(settings)?;
        let listeners = Listeners::new(settings, Some(running))?;
        let upstreams = upstreams(settings, &running.live().upstreams)?;
        let keys = lasting.maker().make(settings, running.keys()).await?;
        let is_new = |keys: &&Arc<IssuerKeys>| !running.keys().iter().any(|known| Arc::ptr_eq(known, keys));
        all_loaded(&keys.iter().flatten().filter(is_new).collect::<Vec<_>>()).await?;
        // After everything that may fail, because it may create a signing key, which is stored.
        let authority = match (&lasting.authority, &settings.authority) {
            (Some(authority), Some(wanted)) => {
                let change = authority.plan(wanted).await;
                Some(change.map_err(|error| vec![format!("[authority]: {error}")])?)
            }
            _ => None,
        };
        let own = lasting.authority.as_deref().map(|running| (running, authority.as_ref()));
        let keys = with_own(keys, settings, own, running.keys())?;
        let intake = senders::intake(lasting, settings, &keys, running.intake().as_deref());
        let transmitters = transmitters::make(lasting, settings, running.transmitters())?;
        let parts = LiveParts { listeners: &listeners, upstreams, intake: intake.clone() };
        let signals = transmitters::of_issuers(settings, &transmitters);
        let live = live((lasting, settings, &keys), parts, signals, Some(&running.live()))?;
        Ok(Self { loaded, waiting, keys, listeners, live, intake, transmitters, authority, log, collector })
    }

    /// The files whose change triggers another reload.
    pub(super) fn files(&self) -> &WatchedFiles {
        &self.loaded.files
    }
}

impl Listeners {
    /// Reads the certificates. Session tickets of the `running` listeners stay valid.
    pub(super) fn new(settings: &Settings, running: Option<&Wiring>) -> Result<Self, Vec<String>> {
        let live = running.map(Wiring::live);
        let public = live.as_ref().and_then(|live| live.tls.as_deref());
        let admin = running.and_then(Wiring::admin_tls);
        let signals = running.and_then(Wiring::signals_tls);
        let wanted = [
            (settings.gate.tls.as_ref(), public),
            (settings.admin.tls.as_ref(), admin.as_deref()),
            (settings.signals.as_ref().and_then(|signals| signals.tls.as_ref()), signals.as_deref()),
        ];
        let mut served = every(wanted.into_iter().map(|(settings, running)| {
            let tls = settings.map(|settings| tls::server_tls(settings, running)).transpose();
            tls.map_err(|error| error.to_string())
        }))?;
        let settings = wanted.into_iter().filter_map(|(settings, _)| settings);
        let certificates = every(settings.flat_map(tls::ServerSettings::certificate_files).map(|path| {
            let expiry = tls::certificate_expiry(path).map_err(|error| error.to_string())?;
            Ok((path.display().to_string(), expiry))
        }))?;
        // An expired certificate must not make a reload fail; clients reject it by themselves.
        for (path, expiry) in certificates.iter().filter(|(_, expiry)| *expiry <= Timestamp::now()) {
            tracing::warn!(path, expired_at = %expiry, "a certificate has expired");
        }
        let http1 = |tls: Option<ServerTls>| tls.map(|tls| Arc::new(tls.http1_only()));
        let (signals, admin) = (http1(served.pop().flatten()), http1(served.pop().flatten()));
        let public = served.pop().flatten().map(Arc::new);
        Ok(Self { public, admin, signals, certificates })
    }
}

/// The trace collector, if any.
pub(super) fn collector(settings: &Settings) -> Result<Option<Arc<Collector>>, Vec<String>> {
    settings.traces.as_ref().map(Collector::new).transpose().map_err(|error| vec![error])
}

/// The upstreams; they continue to count the requests in flight of the `running` ones.
pub(super) fn upstreams(
    settings: &Settings,
    running: &[Arc<Upstream>],
) -> Result<Vec<Arc<Upstream>>, Vec<String>> {
    every(settings.upstreams.iter().map(|upstream| {
        let loaded = Upstream::load_after(upstream.clone(), running);
        loaded.map_err(|error| format!("upstream {}: {error}", upstream.name))
    }))
}

/// What the workers need besides the enforcer.
pub(super) struct LiveParts<'a> {
    pub(super) listeners: &'a Listeners,
    pub(super) upstreams: Vec<Arc<Upstream>>,
    pub(super) intake: Option<Arc<Intake>>,
}

/// Creates the state that workers use to decide and forward; continues from the `running` one.
pub(super) fn live(
    (lasting, settings, keys): (&Lasting, &Settings, &[Arc<IssuerKeys>]),
    LiveParts { listeners, upstreams, intake }: LiveParts<'_>,
    signals: Vec<IssuerSignals>,
    running: Option<&Live>,
) -> Result<Live, Vec<String>> {
    let issuers = settings.issuers.iter().zip(keys);
    let issuers = issuers
        .map(|(issuer, keys)| TrustedIssuer { rules: issuer.rules.clone(), keys: Arc::clone(&keys.store) })
        .collect();
    let enforcer =
        Enforcer::new(settings.enforce.clone(), issuers, lasting.state.in_force.clone(), &lasting.metrics)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())?
            .with_signals(signals);
    let enforcer = match running {
        Some(running) => enforcer.after(&running.enforcer),
        None => enforcer,
    };
    Ok(Live {
        enforcer: Arc::new(enforcer),
        upstreams,
        identity: settings.enforce.identity.clone(),
        streams: settings.streams,
        authority: lasting.authority.clone(),
        resources: settings.resources.clone(),
        intake: intake.filter(|intake| intake.settings().listen.is_none()),
        settings: settings.gate.clone(),
        tls: listeners.public.clone(),
        tracing: settings.traces.as_ref().map(|traces| lasting.traces.tracing(traces)),
        generation: running.map_or(0, |running| running.generation + 1),
    })
}
