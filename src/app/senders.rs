//! Wires the senders of signals: their keys, and the endpoints that they send to.

use std::sync::Arc;

use super::keys::IssuerKeys;
use super::transmitters::RunningTransmitter;
use super::wiring::Lasting;
use crate::config::Settings;
use crate::signals::intake::{EndpointKind, Intake, Senders};
use crate::signals::logout::{self, LogoutSender};
use crate::signals::revocation::RevocationSender;
use crate::signals::scim;
use crate::signals::ssf::Transmitter;

/// The transmitters with their keys, which follow those of the issuers.
pub(super) fn transmitters(
    settings: &Settings,
    keys: &[Arc<IssuerKeys>],
    running: &[Arc<RunningTransmitter>],
) -> Vec<Arc<Transmitter>> {
    let keys = keys.iter().skip(settings.issuers.len());
    let transmitters = settings.transmitters.iter().zip(keys).zip(running);
    transmitters
        .map(|((settings, keys), running)| {
            let transmitter = Transmitter::new(settings.clone(), Arc::clone(&keys.store));
            Arc::new(transmitter.watched_by(running.watch()))
        })
        .collect()
}

/// The providers that send logout tokens, each with the keys of its issuer.
fn logout(settings: &Settings, keys: &[Arc<IssuerKeys>]) -> Vec<LogoutSender> {
    let of_issuer = |sender: &logout::Settings| {
        let issuer = &sender.issuer.issuer.issuer;
        let place = settings.issuers.iter().position(|known| known.rules.issuer == *issuer)?;
        Some(LogoutSender::new(sender.clone(), Arc::clone(&keys.get(place)?.store)))
    };
    settings.logout.iter().filter_map(of_issuer).collect()
}

/// The senders of global token revocations, whose keys come last.
fn revocation(settings: &Settings, keys: &[Arc<IssuerKeys>]) -> Vec<RevocationSender> {
    let keys = keys.iter().skip(settings.issuers.len() + settings.transmitters.len());
    let senders = settings.revocation.iter().zip(keys);
    senders.map(|(sender, keys)| RevocationSender::new(sender.clone(), Arc::clone(&keys.store))).collect()
}

/// The SCIM providers. One for the embedded authority's issuer manages the authority's users.
fn scim(lasting: &Lasting, settings: &Settings) -> Vec<Arc<scim::Provider>> {
    let Some(intake) = &settings.signals else { return Vec::new() };
    let provider = |provider: &scim::Settings| {
        let path = format!("{}/{}/{}", intake.path, EndpointKind::Scim.segment(), provider.name);
        let base = intake.url(EndpointKind::Scim, &provider.name).unwrap_or(path);
        let own = lasting.authority.as_ref();
        let authority = own.filter(|own| own.settings().issuer == provider.issuer.issuer).cloned();
        let signals = Arc::clone(&lasting.signals);
        scim::Provider::new(provider.clone(), &base, &lasting.directories, signals, authority)
    };
    settings.scim.iter().map(provider).collect()
}

/// The endpoints of a configuration, if any; they continue from the `running` ones.
pub(super) fn intake(
    lasting: &Lasting,
    settings: &Settings,
    keys: &[Arc<IssuerKeys>],
    running: Option<&Intake>,
) -> Option<Arc<Intake>> {
    let senders = Senders {
        receiver: Arc::clone(&lasting.receiver),
        logout: logout(settings, keys),
        revocation: revocation(settings, keys),
        scim: scim(lasting, settings),
        log: Arc::clone(&lasting.signals),
    };
    let intake = Intake::new(settings.signals.clone()?, senders);
    Some(Arc::new(match running {
        Some(running) => intake.after(running),
        None => intake,
    }))
}
