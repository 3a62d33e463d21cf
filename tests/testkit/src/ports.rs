//! Ports for programs that cannot use port 0: those that restart at the same address, or do not report where
//! they listen. All others choose their ports themselves.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{self, UnixListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// The distance from a port to the one reserved with it: the bus of a Redis cluster.
const BUS: u16 = 10_000;

/// A free port that no other test receives while this value lives, whether a program listens on it or not. It
/// is below the ephemeral ports, so that no connection and no listener on port 0 uses it.
pub struct ClaimedPort {
    /// Its address on loopback.
    pub address: SocketAddr,
    /// The claim is an abstract Unix socket, which disappears with the process.
    _claim: UnixListener,
}

impl ClaimedPort {
    /// Claims a port, and the one above it for a cluster's bus.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        for _ in 0..10_000 {
            let step = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(7);
            let number = std::process::id().wrapping_mul(131).wrapping_add(step) % 10_000;
            let port = 11_000 + u16::try_from(number).unwrap();
            let name = net::SocketAddr::from_abstract_name(format!("portcullis-test-port-{port}")).unwrap();
            let Ok(claim) = UnixListener::bind_addr(&name) else { continue };
            let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
            if is_free(port) && is_free(port + BUS) {
                return Self { address: (Ipv4Addr::LOCALHOST, port).into(), _claim: claim };
            }
        }
        panic!("no port is free");
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.address.port()
    }
}

/// Claims a port for as long as the test process lives, and returns its address; nobody listens there
/// unless the test does.
pub fn reserved() -> SocketAddr {
    let port = ClaimedPort::new();
    let address = port.address;
    std::mem::forget(port);
    address
}
