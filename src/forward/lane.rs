//! The connection that one request uses: an open one or a new one.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::ForwardError;
use super::dialer::{DialTurn, Protocol};
use super::http1::connection::Http1Connection;
use super::http2::StreamSlot;
use super::io::Io;
use super::pool::EndpointPool;
use super::upstream::Scheme;

/// A connection for one request.
pub(crate) enum Lane {
    /// An HTTP/1.1 connection of its own.
    Http1(Rc<RefCell<Http1Connection>>),
    /// A stream of a shared HTTP/2 connection.
    Http2(StreamSlot),
}

impl EndpointPool {
    /// Takes an open connection, if there is one.
    pub(crate) fn open_lane(&self, http1_only: bool, ask_kernel: bool) -> Option<Lane> {
        let scheme = self.upstream.settings().scheme;
        if scheme != Scheme::Http
            && !http1_only
            && let Some(slot) = self.http2.take()
        {
            return Some(Lane::Http2(slot));
        }
        if scheme == Scheme::H2c { None } else { self.take(ask_kernel).map(Lane::Http1) }
    }

    /// Opens a connection; for HTTP/2, possibly uses one that another request has opened in the meantime.
    pub(crate) async fn new_lane(&self, http1_only: bool) -> Result<Lane, ForwardError> {
        let settings = self.upstream.settings();
        if settings.scheme == Scheme::Http || http1_only {
            return self.dial(http1_only).await;
        }
        match self.dialer.turn(&self.http2, settings.connect_timeout).await? {
            DialTurn::Share(slot) => Ok(Lane::Http2(slot)),
            DialTurn::DialAlone => self.dial(false).await,
            DialTurn::Dial(dialing) => {
                let lane = self.dial(false).await;
                drop(dialing);
                lane
            }
        }
    }

    async fn dial(&self, http1_only: bool) -> Result<Lane, ForwardError> {
        let settings = self.upstream.settings();
        let Some(endpoint) = self.endpoint() else {
            return Err(ForwardError::Connect(std::io::ErrorKind::NotFound.into()));
        };
        // Before the attempt, because an upstream is not at fault if the process has no descriptor left.
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_full| ForwardError::no_descriptor())?;
        let io = Io::new(endpoint.dial(http1_only, settings.connect_timeout).await?, place);
        if settings.scheme == Scheme::H2c || io.is_http2() {
            self.dialer.learn(Protocol::Http2);
            return self.http2.add(io, settings.idle_timeout).await.map(Lane::Http2);
        }
        if settings.scheme == Scheme::Https && !http1_only {
            self.dialer.learn(Protocol::Http1);
        }
        Ok(Lane::Http1(Rc::new(RefCell::new(Http1Connection::new(io)))))
    }
}
