//! How many connections there are, and whether one more may be.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::IntGauge;
use tokio::sync::mpsc;

use super::Limits;

/// The open connections of all workers.
#[derive(Debug, Default)]
pub struct ConnectionCounts {
    all: AtomicUsize,
    /// Kept only for connections that came while there was a limit per address.
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// The room of one connection: given back when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    counts: Arc<ConnectionCounts>,
    address: Option<IpAddr>,
    gauge: IntGauge,
    /// The worker sees that its last connection is gone when all of these are.
    _open: mpsc::Sender<Infallible>,
}

impl ConnectionCounts {
    /// A place for a connection from `peer`, unless a limit is reached.
    pub(super) fn admit(
        self: &Arc<Self>,
        peer: IpAddr,
        limits: &Limits,
        gauge: &IntGauge,
        open: &mpsc::Sender<Infallible>,
    ) -> Option<Place> {
        if self.all.fetch_add(1, Ordering::Relaxed) >= limits.connections {
            self.all.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let mut place =
            Place { counts: Arc::clone(self), address: None, gauge: gauge.clone(), _open: open.clone() };
        place.gauge.inc();
        if let Some(most) = limits.connections_per_ip {
            // An IPv4 client of a dual-stack listener counts as what it is.
            let address = peer.to_canonical();
            let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
            let count = by_address.entry(address).or_default();
            *count += 1;
            let full = *count > most;
            place.address = Some(address);
            drop(by_address);
            if full {
                return None;
            }
        }
        Some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gauge.dec();
        self.counts.all.fetch_sub(1, Ordering::Relaxed);
        let Some(address) = self.address else { return };
        let mut by_address = self.counts.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limits(connections: usize, connections_per_ip: Option<usize>) -> Limits {
        Limits {
            connections,
            connections_per_ip,
            handshake_timeout: Duration::MAX,
            header_timeout: Duration::MAX,
            header_bytes: 0,
            headers: 0,
            body_bytes: None,
            idle_connection_timeout: Duration::MAX,
            http2_streams: 0,
        }
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn places_are_limited_in_all_and_per_address_and_come_back() {
        let counts = Arc::new(ConnectionCounts::default());
        let gauge = IntGauge::new("connections", "open").unwrap();
        let (open, mut closed) = mpsc::channel(1);
        let admit = |last, limits: &Limits| counts.admit(address(last), limits, &gauge, &open);
        let both = limits(3, Some(2));
        let (one, two) = (admit(1, &both).unwrap(), admit(1, &both).unwrap());
        assert!(admit(1, &both).is_none());
        let mapped = IpAddr::V6(std::net::Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped());
        assert!(counts.admit(mapped, &both, &gauge, &open).is_none());
        let other = admit(2, &both).unwrap();
        assert!(admit(3, &both).is_none());
        assert_eq!(gauge.get(), 3);
        drop(one);
        assert!(admit(1, &both).is_some());
        drop((two, other));
        assert_eq!(gauge.get(), 0);
        assert_eq!(counts.all.load(Ordering::Relaxed), 0);
        assert!(counts.by_address.lock().unwrap().is_empty());
        let last = admit(1, &limits(1, None)).unwrap();
        drop(open);
        assert!(matches!(closed.try_recv(), Err(mpsc::error::TryRecvError::Empty)));
        drop(last);
        assert!(matches!(closed.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
    }
}
