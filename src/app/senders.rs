//! The senders of signals with their keys, and the endpoints that they send to.

use std::sync::Arc;

use super::keys::IssuerKeys;
use super::wiring::Lasting;
use crate::config::Settings;
use crate::signals::intake::{Intake, Senders};
use crate::signals::ssf::Transmitter;

/// The transmitters with their keys, which come behind those of the issuers.
pub(super) fn transmitters(settings: &Settings, keys: &[Arc<IssuerKeys>]) -> Vec<Arc<Transmitter>> {
    let keys = keys.iter().skip(settings.issuers.len());
    let transmitters = settings.transmitters.iter().zip(keys);
    transmitters
        .map(|(settings, keys)| Arc::new(Transmitter::new(settings.clone(), Arc::clone(&keys.store))))
        .collect()
}

/// The endpoints of a configuration, if it has any; they follow on the `running` ones.
pub(super) fn intake(
    lasting: &Lasting,
    settings: &Settings,
    running: Option<&Intake>,
) -> Option<Arc<Intake>> {
    let senders = Senders { receiver: Arc::clone(&lasting.receiver) };
    let intake = Intake::new(settings.signals.clone()?, senders);
    Some(Arc::new(match running {
        Some(running) => intake.after(running),
        None => intake,
    }))
}
