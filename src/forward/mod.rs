//! Sends a permitted request to its upstream and streams the response back.
//!
//! Requires a `Permit`, which only `enforce` can create; this room knows nothing about tokens except the
//! header values in it. A `Forwarder` and its connections belong to one worker; no thread shares them.

mod alarm;
mod body;
mod call;
mod connect;
mod dialer;
mod endpoint;
mod ends_here;
mod error;
pub(crate) mod headers;
pub(crate) mod http1;
mod http2;
mod io;
mod lane;
mod message;
mod patience;
mod pool;
mod request_count;
mod retry;
mod send;
mod task;
mod tunnel;
mod upstream;
mod websocket;

use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version};
use tokio::sync::Semaphore;

pub use self::body::{BodyError, ForwardBody, RequestBody, RequestBodyError};
pub use self::call::UpstreamCall;
pub use self::error::{ErrorKind, ForwardError};
pub use self::headers::{TrustedFields, client_address};
pub use self::http1::BadAnswer;
pub use self::request_count::{AtCapacity, RequestCount, RequestSlot};
pub use self::tunnel::{Flow, Tunnel, TunnelEnd};
pub use self::upstream::{Address, LoadError, Scheme, Upstream, UpstreamSettings};

use self::headers::FieldRules;
use self::message::ForwardOrder;
use self::pool::UpstreamPool;
use crate::enforce::bearer::BearerSettings;
use crate::enforce::decide::Permit;
use crate::enforce::policy::IdentitySettings;
use crate::metrics::Metrics;
use crate::traces::{SentContext, TraceIds};

/// A request to forward.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its fields, as the client sent them.
    pub headers: &'a HeaderMap,
    /// Its body, with whatever limits apply.
    pub body: RequestBody,
    /// How it was received.
    pub hop: Hop,
    /// Whether the client's connection can be taken over if the upstream switches protocols.
    pub can_switch: bool,
    /// Receives the upstream's interim responses.
    pub interim: Option<Interim>,
    /// Counts it at its upstream until the end of the response or tunnel.
    pub slot: RequestSlot,
    /// Its trace context, if the gate traces; otherwise the client's trace continues, or one starts here.
    pub trace: Option<OutgoingTrace>,
}

/// The trace context of a forwarded request.
#[derive(Debug)]
pub struct OutgoingTrace {
    /// The context for the upstream.
    pub context: SentContext,
    /// Collects data on the call, if the request's spans are recorded.
    pub call: Option<Rc<UpstreamCall>>,
}

/// How a request was received; the source of `Forwarded`, `Via` and related fields.
#[derive(Debug)]
pub struct Hop {
    /// The peer's address.
    pub client: IpAddr,
    /// Whether it came over TLS.
    pub tls: bool,
    /// The forwarding fields to trust, if the peer is a trusted proxy.
    pub trusted: Option<TrustedFields>,
    /// The `Host`, or the `:authority`, as received.
    pub host: HeaderValue,
    /// The version of the client's request.
    pub version: Version,
    /// The request's id in every log; also set on the response.
    pub request_id: HeaderValue,
}

/// Receives the upstream's interim responses (1xx, except 101). A `100` can be ignored on HTTP/1.1: the gate
/// sends its own when the body is first read, which happens right after.
pub struct Interim(Box<Receive>);

type Receive = dyn Fn(StatusCode, &HeaderMap);

impl Interim {
    /// Calls `receive` with every interim response, in order.
    pub fn new(receive: impl Fn(StatusCode, &HeaderMap) + 'static) -> Self {
        Self(Box::new(receive))
    }

    fn send(&self, status: StatusCode, headers: &HeaderMap) {
        (self.0)(status, headers);
    }
}

impl fmt::Debug for Interim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interim")
    }
}

/// One worker's connections to the upstreams.
pub struct Forwarder {
    /// In the order that routes refer to.
    pools: Vec<Rc<UpstreamPool>>,
    rules: Rc<FieldRules>,
    trace_ids: TraceIds,
}

impl Forwarder {
    /// Creates a forwarder to `upstreams`, in the order that routes refer to. Keeps `previous`'s connections
    /// to upstreams that have not changed. Each connection takes one of `places`, which all workers share.
    #[must_use]
    pub fn new(
        upstreams: Vec<Arc<Upstream>>,
        identity: &IdentitySettings,
        bearer: &BearerSettings,
        (metrics, places): (&Metrics, &Arc<Semaphore>),
        previous: Option<&Self>,
    ) -> Self {
        let kept = |upstream: &Upstream| {
            previous?.pools.iter().find(|pool| pool.upstream.is_same(upstream)).map(Rc::clone)
        };
        let pools = upstreams
            .into_iter()
            .map(|upstream| kept(&upstream).unwrap_or_else(|| UpstreamPool::new(upstream, metrics, places)))
            .collect();
        Self { pools, rules: Rc::new(FieldRules::new(identity, bearer)), trace_ids: TraceIds::default() }
    }

    /// Sends the request to the upstream of the permit's route. Returns the head of the response, with its
    /// body still to be read. The response has no hop-by-hop fields, and has `X-Request-Id`. The body of a
    /// `101` carries the tunnel (`ForwardBody::take_tunnel`).
    ///
    /// If the upstream has several addresses, the request goes to the one with the fewest requests in flight,
    /// and to the next one if that cannot be connected to. If a pooled connection turns out to be closed
    /// before any byte of a response, the request is sent once more on a new connection, provided that its
    /// method is idempotent (RFC 9110 §9.2.2) and the client was not asked for its body yet. Dropping the
    /// future closes the connection (HTTP/1.1) or resets the stream (HTTP/2).
    ///
    /// # Errors
    /// When there is no response; `ForwardError::status` is the status for the client.
    pub async fn forward(
        &self,
        permit: &Permit,
        outgoing: Outgoing<'_>,
    ) -> Result<Response<ForwardBody>, ForwardError> {
        let route = permit.route();
        let order = ForwardOrder {
            upstream: route.upstream(),
            response_timeout: route.settings().response_timeout,
            request_body_timeout: route.settings().request_body_timeout,
            methods: &route.settings().methods,
            target: permit.target().as_bytes(),
            has_token: permit.token().is_some(),
            identity: permit.token().map_or(&[], |token| &token.identity.sent),
        };
        self.send(&order, outgoing).await
    }
}

impl fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.pools.iter().map(|pool| &pool.upstream)).finish()
    }
}
