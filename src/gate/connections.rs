//! Counts connections, requests, listeners and streams of all workers, and decides whether another connection or request is
//! allowed.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::IntGauge;
use tokio::sync::{Semaphore, mpsc};

use super::GateLimits;
use crate::forward::{AtCapacity, RequestCount, RequestSlot};

/// The open connections, requests, listeners and streams of all workers.
#[derive(Debug)]
pub struct ConnectionCounts {
    all: AtomicUsize,
    /// Maximum number of client connections, whatever is configured: the process has no descriptors for more.
    most: usize,
    /// Permits for as many connections to upstreams: more would take descriptors from operators, the state
    /// and the log.
    upstreams: Arc<Semaphore>,
    listeners: AtomicUsize,
    streams: AtomicUsize,
    /// Counts only requests that came while there was a limit.
    requests: Arc<RequestCount>,
    /// Counts only connections that came while there was a limit per address.
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// The place of one connection in the counts, returned on drop.
#[derive(Debug)]
pub(super) struct ConnectionPlace {
    counts: Arc<ConnectionCounts>,
    address: Option<IpAddr>,
    gauge: IntGauge,
    /// The worker knows that its last connection has closed when all of these are dropped.
    _open: mpsc::Sender<Infallible>,
}

impl Default for ConnectionCounts {
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

impl ConnectionCounts {
    /// Creates counts of zero, with at most `most` connections of clients and as many to upstreams.
    #[must_use]
    pub fn new(most: usize) -> Self {
        let zero = || AtomicUsize::new(0);
        Self {
            all: zero(),
            most,
            upstreams: Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))),
            listeners: zero(),
            streams: zero(),
            requests: Arc::default(),
            by_address: Mutex::default(),
        }
    }

    /// Warns if more connections are configured than there are descriptors for.
    pub fn warn_of(&self, configured: usize) {
        if configured > self.most {
            tracing::warn!(
                configured,
                possible = self.most,
                "limits.connections exceeds what the limit on open files allows and is bounded: each client may need a second descriptor for its upstream, and some are kept for operators and the state; raise the hard limit (ulimit -Hn, LimitNOFILE)"
            );
        }
    }

    /// Permits for opening connections to upstreams.
    pub(super) fn upstream_places(&self) -> &Arc<Semaphore> {
        &self.upstreams
    }

    /// The number of listeners that accept connections.
    #[must_use]
    pub fn listeners(&self) -> usize {
        self.listeners.load(Ordering::Acquire)
    }

    /// The number of open streams that may last indefinitely.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.load(Ordering::Acquire)
    }

    /// Counts `listeners` until the guard is dropped.
    pub(super) fn listening(self: &Arc<Self>, listeners: usize) -> ListenerCount {
        self.listeners.fetch_add(listeners, Ordering::Release);
        ListenerCount { counts: Arc::clone(self), listeners }
    }

    /// Counts a stream until the guard is dropped.
    pub(super) fn streaming(self: &Arc<Self>) -> Streaming {
        self.streams.fetch_add(1, Ordering::Release);
        Streaming(Arc::clone(self))
    }

    /// Counts a request until the slot is dropped.
    pub(super) fn begin_request(&self, limits: &GateLimits) -> Result<RequestSlot, AtCapacity> {
        self.requests.begin(limits.requests)
    }

    /// Takes a place for a connection, unless a limit is reached.
    pub(super) fn admit(
        self: &Arc<Self>,
        limits: &GateLimits,
        gauge: &IntGauge,
        open: &mpsc::Sender<Infallible>,
    ) -> Option<ConnectionPlace> {
        if self.all.fetch_add(1, Ordering::Relaxed) >= limits.connections.min(self.most) {
            self.all.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let place = ConnectionPlace {
            counts: Arc::clone(self),
            address: None,
            gauge: gauge.clone(),
            _open: open.clone(),
        };
        place.gauge.inc();
        Some(place)
    }
}

/// Counts listeners that accept connections.
#[derive(Debug)]
pub(super) struct ListenerCount {
    counts: Arc<ConnectionCounts>,
    listeners: usize,
}

impl Drop for ListenerCount {
    fn drop(&mut self) {
        self.counts.listeners.fetch_sub(self.listeners, Ordering::Release);
    }
}

/// Counts a stream that may last indefinitely.
#[derive(Debug)]
pub(super) struct Streaming(Arc<ConnectionCounts>);

impl Drop for Streaming {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Release);
    }
}

impl ConnectionPlace {
    /// Counts the connection as one from `client` while it is open; `None` if that exceeds the limit.
    pub(super) fn of(mut self, client: IpAddr, limits: &GateLimits) -> Option<Self> {
        let Some(most) = limits.connections_per_ip else { return Some(self) };
        // An IPv4 client of a dual-stack listener counts under its IPv4 address.
        let address = client.to_canonical();
        let mut by_address = self.counts.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_address.entry(address).or_default();
        *count += 1;
        let is_full = *count > most;
        drop(by_address);
        self.address = Some(address);
        (!is_full).then_some(self)
    }
}

impl Drop for ConnectionPlace {
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

    fn limits(connections: usize, connections_per_ip: Option<usize>) -> GateLimits {
        GateLimits {
            connections,
            connections_per_ip,
            requests: None,
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
    fn descriptors_limit_connections_whatever_is_configured() {
        let counts = Arc::new(ConnectionCounts::new(2));
        let gauge = IntGauge::new("connections", "open").unwrap();
        let (open, _closed) = mpsc::channel(1);
        let admit = || counts.admit(&limits(10, None), &gauge, &open);
        let places = (admit().unwrap(), admit().unwrap());
        assert!(admit().is_none());
        drop(places);
        assert!(admit().is_some());
    }

    #[test]
    fn places_are_limited_in_all_and_per_address_and_come_back() {
        let counts = Arc::new(ConnectionCounts::default());
        let gauge = IntGauge::new("connections", "open").unwrap();
        let (open, mut closed) = mpsc::channel(1);
        let from = |client, limits: &GateLimits| counts.admit(limits, &gauge, &open)?.of(client, limits);
        let admit = |last, limits: &GateLimits| from(address(last), limits);
        let both = limits(3, Some(2));
        let (one, two) = (admit(1, &both).unwrap(), admit(1, &both).unwrap());
        assert!(admit(1, &both).is_none());
        let mapped = IpAddr::V6(std::net::Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped());
        assert!(from(mapped, &both).is_none());
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
