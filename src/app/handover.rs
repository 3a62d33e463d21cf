//! Handover on a restart: a gate that is shutting down passes its addresses and its state file to the next gate at once.
//!
//! The next gate finds it by names in the abstract namespace of Unix sockets, which have the same scope as the
//! addresses (the network namespace), need no file, and vanish with the process. The connection carries one
//! byte once the addresses are free, and is closed once the state file is.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net;
use std::path::Path;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::config::{Settings, StoreSettings};

/// How long the next gate waits for each of the two.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);
/// Signals that the addresses are free.
const ADDRESSES: u8 = b'a';

/// One name for each resource that only one gate can have: its addresses and its state files.
#[derive(Debug)]
pub(super) struct HandoverNames(Vec<String>);

impl HandoverNames {
    pub(super) fn of(settings: &Settings) -> Self {
        let gate = &settings.gate.listen;
        let signals = settings.signals.as_ref().and_then(|signals| signals.listen.as_ref());
        let addresses = gate.iter().chain([&settings.telemetry, &settings.admin.listen]).chain(signals);
        // Port 0 is a different port for every gate.
        let addresses = addresses.filter(|address| address.port() != 0).map(address_name);
        let state = match &settings.state.store {
            StoreSettings::Embedded(path) => Some(path.as_path()),
            StoreSettings::Memory | StoreSettings::Redis(_) => None,
        };
        let authority = settings.authority.as_ref().map(|authority| authority.path.as_path());
        Self(addresses.chain(state.into_iter().chain(authority).filter_map(file_name)).collect())
    }

    fn sockets(&self) -> impl Iterator<Item = net::SocketAddr> {
        self.0.iter().filter_map(|name| net::SocketAddr::from_abstract_name(name).ok())
    }
}

fn address_name(address: &SocketAddr) -> String {
    format!("portcullis/address/{address}")
}

/// The same name for every path to the file. `None` if the file does not exist.
fn file_name(path: &Path) -> Option<String> {
    let file = std::fs::metadata(path).ok()?;
    Some(format!("portcullis/file/{}/{}", file.dev(), file.ino()))
}

/// The sockets on which a gate that is shutting down waits for the next one.
#[derive(Debug)]
pub(super) struct Offer(Vec<UnixListener>);

impl Offer {
    /// Offers these resources. Without an offer, the next gate must wait until this one ends.
    pub(super) fn new(names: &HandoverNames) -> Self {
        let listen = |address: net::SocketAddr| {
            let listener = net::UnixListener::bind_addr(&address)?;
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener)
        };
        let listeners = names.sockets().filter_map(|address| {
            let listener = listen(address);
            listener
                .inspect_err(|error| debug!(%error, "another gate that is shutting down uses this name"))
                .ok()
        });
        Self(listeners.collect())
    }

    /// Offers nothing (not yet, or no longer).
    pub(super) const fn none() -> Self {
        Self(Vec::new())
    }

    /// Waits for the gate of the same user that takes over.
    pub(super) async fn accepted(&self) -> Successor {
        poll_fn(|cx| {
            let mut asking = self.0.iter().filter_map(|listener| poll_ours(listener, cx));
            asking.next().map_or(Poll::Pending, |stream| Poll::Ready(Successor(stream)))
        })
        .await
    }
}

/// Accepts the next connection of a process that runs as the same user.
fn poll_ours(listener: &UnixListener, cx: &mut Context<'_>) -> Option<UnixStream> {
    while let Poll::Ready(Ok((stream, _))) = listener.poll_accept(cx) {
        if is_ours(&stream) {
            return Some(stream);
        }
    }
    None
}

/// Whether the process on the other side runs as the same user.
fn is_ours(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == rustix::process::geteuid().as_raw())
}

/// The gate that takes over. Dropping this lets it continue.
#[derive(Debug)]
pub(super) struct Successor(UnixStream);

impl Successor {
    /// Tells it that the addresses are free.
    pub(super) async fn may_listen(&mut self) {
        // An error means that it has gone.
        drop(self.0.write_all(&[ADDRESSES]).await);
    }
}

/// A gate that is shutting down.
#[derive(Debug)]
pub(super) struct Predecessor(UnixStream);

impl Predecessor {
    /// Looks for a gate that is shutting down and has one of these resources; asks it to release all of its
    /// resources, and waits until its addresses are free.
    pub(super) async fn find(names: &HandoverNames) -> Option<Self> {
        let mut stream = names.sockets().find_map(|address| {
            let stream = net::UnixStream::connect_addr(&address).ok()?;
            stream.set_nonblocking(true).ok()?;
            UnixStream::from_std(stream).ok().filter(is_ours)
        })?;
        if timeout(RELEASE_TIMEOUT, stream.read_u8()).await.is_err() {
            warn!("the gate that is shutting down does not release its addresses");
        }
        Some(Self(stream))
    }

    /// Waits until it has saved its state and released the file.
    pub(super) async fn released(mut self) {
        if timeout(RELEASE_TIMEOUT, self.0.read_u8()).await.is_err() {
            warn!("the gate that is shutting down does not release its state");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(of: &str) -> HandoverNames {
        HandoverNames(vec![format!("portcullis/test/{}/{of}", std::process::id())])
    }

    #[tokio::test]
    async fn the_next_gate_waits_for_the_addresses_and_then_for_the_state() {
        let names = names("order");
        assert!(Predecessor::find(&names).await.is_none(), "nobody leaves");
        let offer = Offer::new(&names);
        let (free, mut told) = tokio::sync::oneshot::channel();
        let next = async {
            let predecessor = Predecessor::find(&names).await.unwrap();
            free.send(()).unwrap();
            predecessor.released().await;
        };
        let leaving = async {
            let mut successor = offer.accepted().await;
            tokio::task::yield_now().await;
            assert!(told.try_recv().is_err(), "told before the addresses were free");
            successor.may_listen().await;
            (&mut told).await.unwrap();
            drop(successor);
        };
        tokio::join!(next, leaving);
        drop(offer);
        assert!(Predecessor::find(&names).await.is_none(), "gone without a trace");
    }

    #[tokio::test]
    async fn a_gate_that_dies_while_it_leaves_holds_up_nobody() {
        let names = names("death");
        let offer = Offer::new(&names);
        let (found, ()) = tokio::join!(Predecessor::find(&names), async { drop(offer.accepted().await) });
        found.unwrap().released().await;
    }

    #[test]
    fn a_file_has_one_name_however_it_is_reached() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("gate.db"), folder.path().join("link.db"));
        assert_eq!(file_name(&path), None);
        std::fs::write(&path, "").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(file_name(&path), file_name(&link));
        assert!(file_name(&path).is_some());
    }
}
