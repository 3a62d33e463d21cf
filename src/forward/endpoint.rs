//! One address of an upstream, shared by all workers: its requests in flight, and whether it is reachable.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::UnixStream;

use super::ForwardError;
use super::connect::{Avoided, connect};
use super::io::UpstreamStream;
use super::patience::ENDPOINT_LEFT_OUT;
use super::upstream::{Address, Tls, Upstream};
use crate::time::Monotonic;

/// The endpoint of one entry of `url` or `urls`.
pub(crate) struct UpstreamEndpoint {
    address: Address,
    tls: Option<Tls>,
    /// Addresses of its name that could not be connected to.
    avoided: Avoided,
    /// Number of requests in flight; counted only if the upstream has several endpoints.
    in_flight: AtomicUsize,
    /// Gets no requests before this time, in milliseconds of the monotonic clock; 0: it was reachable.
    left_out_until: AtomicI64,
}

/// Whether an endpoint should be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reachability {
    /// The last connection succeeded.
    Good,
    /// A recent connection failed: use it only if there is no other.
    LeftOut,
}

impl UpstreamEndpoint {
    pub(crate) fn new(address: Address, tls: Option<Tls>) -> Self {
        Self {
            address,
            tls,
            avoided: Avoided::default(),
            in_flight: AtomicUsize::new(0),
            left_out_until: AtomicI64::new(0),
        }
    }

    /// Opens a connection within `limit`. With `http1_only`, TLS offers only HTTP/1.1.
    pub(crate) async fn dial(
        &self,
        http1_only: bool,
        limit: Duration,
    ) -> Result<UpstreamStream, ForwardError> {
        let opened = match &self.address {
            Address::Tcp { host, port } => {
                let tls = self.tls.as_ref().map(|tls| {
                    let connector = if http1_only { &tls.http1 } else { &tls.any };
                    (connector, &tls.name)
                });
                connect((host, *port), tls, &self.avoided, limit).await
            }
            Address::Unix(path) => match tokio::time::timeout(limit, UnixStream::connect(path)).await {
                Ok(opened) => opened.map(UpstreamStream::Unix).map_err(ForwardError::Connect),
                Err(_elapsed) => Err(ForwardError::not_connected_within(limit)),
            },
        };
        let until = if opened.is_ok() { 0 } else { Monotonic::now().plus(ENDPOINT_LEFT_OUT).as_millis() };
        self.left_out_until.store(until, Ordering::Relaxed);
        opened
    }

    /// Its address.
    pub(crate) const fn address(&self) -> &Address {
        &self.address
    }

    /// Whether it should get the next request.
    pub(crate) fn standing(&self, now: Monotonic) -> Reachability {
        match self.left_out_until.load(Ordering::Relaxed) {
            0 => Reachability::Good,
            until if until > now.as_millis() => Reachability::LeftOut,
            _ => Reachability::Good,
        }
    }

    /// Records that a request will try it. An endpoint that was left out is tried by one request, while
    /// others still skip it.
    pub(crate) fn note_attempt(&self, now: Monotonic) {
        let until = self.left_out_until.load(Ordering::Relaxed);
        if until != 0 && until <= now.as_millis() {
            let next = now.plus(ENDPOINT_LEFT_OUT).as_millis();
            // If this fails, another worker was faster and is already trying it.
            let _ = self.left_out_until.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// The number of requests in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }
}

/// Counts one request as in flight at an endpoint until dropped.
pub(crate) struct InFlight {
    upstream: Arc<Upstream>,
    place: usize,
}

impl InFlight {
    pub(crate) fn begin(upstream: &Arc<Upstream>, place: usize) -> Self {
        let this = Self { upstream: Arc::clone(upstream), place };
        if let Some(endpoint) = this.endpoint() {
            endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        }
        this
    }

    fn endpoint(&self) -> Option<&UpstreamEndpoint> {
        self.upstream.endpoints().get(self.place)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(endpoint) = self.endpoint() {
            endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
