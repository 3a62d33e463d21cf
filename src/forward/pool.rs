//! One worker's connections to one upstream, kept for the next request.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::error::Errors;
use super::http1::connection::Connection;
use super::http2;
use super::upstream::Upstream;
use crate::metrics::Metrics;

/// Most idle HTTP/1.1 connections kept; what is given back beyond it is closed.
const MAX_IDLE: usize = 1024;
/// Idle connections are looked over at least so often, so that one the upstream has closed does not linger.
const LONGEST_NAP: Duration = Duration::from_secs(15);

/// A worker's side of an upstream.
pub(crate) struct Link {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) errors: Errors,
    /// The HTTP/2 connections, each shared by many requests.
    pub(crate) http2: http2::Connections,
    /// TLS settled on HTTP/1.1 the last time both were offered.
    pub(crate) chose_http1: Cell<bool>,
    /// The HTTP/1.1 connections without a request, the one used last at the end.
    idle: RefCell<VecDeque<Idle>>,
    /// A task looks after `idle`.
    tended: Cell<bool>,
}

struct Idle {
    connection: Rc<RefCell<Connection>>,
    since: Instant,
}

impl Link {
    pub(crate) fn new(upstream: Arc<Upstream>, metrics: &Metrics) -> Rc<Self> {
        Rc::new(Self {
            errors: Errors::new(metrics, &upstream.settings().name),
            http2: http2::Connections::default(),
            chose_http1: Cell::new(false),
            idle: RefCell::default(),
            tended: Cell::new(false),
            upstream,
        })
    }

    /// An open connection, the one used last first. `surely`: the kernel is asked whether it is open, for a request that
    /// could not be sent again if it was not.
    pub(crate) fn take(&self, surely: bool) -> Option<Rc<RefCell<Connection>>> {
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { connection, since }) = idle.pop_back() {
            if since.elapsed() >= self.upstream.settings().idle_timeout {
                // All others have waited longer.
                idle.clear();
                return None;
            }
            let open = {
                let mut connection = connection.borrow_mut();
                if surely { connection.is_surely_quiet() } else { connection.is_quiet() }
            };
            if open {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection for the next request.
    pub(crate) fn put(self: &Rc<Self>, connection: Rc<RefCell<Connection>>) {
        connection.borrow_mut().rest();
        let mut idle = self.idle.borrow_mut();
        if idle.len() < MAX_IDLE {
            idle.push_back(Idle { connection, since: Instant::now() });
        }
        if !self.tended.replace(true) {
            drop(tokio::task::spawn_local(tend(Rc::downgrade(self), self.upstream.settings().idle_timeout)));
        }
    }

    /// Closes what has been idle too long or was closed by the upstream; the time until the next look.
    fn sweep(&self) -> Option<Duration> {
        let limit = self.upstream.settings().idle_timeout;
        let mut idle = self.idle.borrow_mut();
        idle.retain(|idle| idle.since.elapsed() < limit && idle.connection.borrow_mut().is_quiet());
        let oldest = idle.front().map(|idle| limit.saturating_sub(idle.since.elapsed()));
        self.tended.set(oldest.is_some());
        oldest
    }
}

async fn tend(link: Weak<Link>, idle_timeout: Duration) {
    let mut nap = idle_timeout;
    loop {
        tokio::time::sleep(nap.min(LONGEST_NAP)).await;
        match link.upgrade().and_then(|link| link.sweep()) {
            Some(next) => nap = next,
            None => return,
        }
    }
}
