//! Binds the listeners before anything else, so that clients that connect during startup wait instead of being refused.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::sleep;

use super::RunError;
use super::handover::{HandoverNames, Predecessor};
use crate::config::Settings;
use crate::gate;

/// How often, and after which pause, to retry an address that is in use: the gate that has it may be about to shut down.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(100);

/// The bound listeners.
pub(super) struct BoundListeners {
    pub(super) telemetry: TcpListener,
    pub(super) admin: TcpListener,
    /// The separate listener for signals, if there is one.
    pub(super) signals: Option<TcpListener>,
    /// The listeners of each worker.
    pub(super) public: Vec<Vec<std::net::TcpListener>>,
    /// The gate that had the addresses, and still has the state.
    pub(super) predecessor: Option<Predecessor>,
}

impl BoundListeners {
    /// Binds all addresses. Asks a gate that is shutting down to release them.
    pub(super) async fn bind(settings: &Settings) -> Result<Self, RunError> {
        let names = HandoverNames::of(settings);
        let mut attempt = 0;
        loop {
            let predecessor = Predecessor::find(&names).await;
            match Self::try_bind(settings, predecessor).await {
                Err(error) if is_in_use(&error) && attempt < ATTEMPTS => {
                    attempt += 1;
                    sleep(PAUSE).await;
                }
                bound => return bound,
            }
        }
    }

    async fn try_bind(settings: &Settings, predecessor: Option<Predecessor>) -> Result<Self, RunError> {
        let public = gate::bind(&settings.gate.listen, settings.gate.workers)
            .map_err(|error| RunError::System("cannot start the public listener", error))?;
        let (telemetry, admin) = (listen(settings.telemetry).await?, listen(settings.admin.listen).await?);
        let signals = match settings.signals.as_ref().and_then(|signals| signals.listen) {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        Ok(Self { telemetry, admin, signals, public, predecessor })
    }
}

fn is_in_use(error: &RunError) -> bool {
    let (RunError::Listen(_, cause) | RunError::System(_, cause)) = error else { return false };
    cause.kind() == io::ErrorKind::AddrInUse
}

async fn listen(address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|error| RunError::Listen(address, error))
}
