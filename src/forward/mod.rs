//! Sends a permitted request to its upstream and streams the response back.
//!
//! Requires a `Permit`, which only `enforce` can create; knows nothing about tokens except the header values in it. A
//! `Forwarder` and its connections belong to one worker: nothing here is shared between threads.

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

/// A request as it goes on.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its fields, as the client sent them.
    pub headers: &'a HeaderMap,
    /// Its body, with whatever limits apply.
    pub body: RequestBody,
    /// How it came in.
    pub hop: Hop,
    /// The client's connection can be taken over, should the upstream switch protocols.
    pub can_switch: bool,
    /// Where the upstream's interim responses go.
    pub interim: Option<Interim>,
    /// Counts it at its upstream until the response has ended, or the tunnel.
    pub slot: RequestSlot,
    /// What it is sent as part of, when the gate traces; else the client's trace goes on, or one starts here.
    pub trace: Option<OutgoingTrace>,
}

/// The part of a trace that a request is sent as.
#[derive(Debug)]
pub struct OutgoingTrace {
    /// What the upstream is sent.
    pub context: SentContext,
    /// Takes notes of the call, for a request whose spans are recorded.
    pub call: Option<Rc<UpstreamCall>>,
}

/// How a request came in: what is said of it in `Forwarded`, `Via` and their kin.
#[derive(Debug)]
pub struct Hop {
    /// The address of the peer.
    pub client: IpAddr,
    /// It came over TLS.
    pub tls: bool,
    /// The peer is a trusted proxy: these of its forwarding fields are believed.
    pub trusted: Option<TrustedFields>,
    /// The `Host`, or the `:authority`, as received.
    pub host: HeaderValue,
    /// The version of the client's request.
    pub version: Version,
    /// Names the request in every log; also set on the response.
    pub request_id: HeaderValue,
}

/// Receives the upstream's interim responses (1xx, except 101). A `100` among them needs no answer on HTTP/1.1: the
/// gate sends one of its own when the body is first asked for, which happens right after.
pub struct Interim(Box<Receive>);

type Receive = dyn Fn(StatusCode, &HeaderMap);

impl Interim {
    /// Calls `receive` with every interim answer, in order.
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

/// One worker's way to the upstreams.
pub struct Forwarder {
    /// In the order that routes refer to.
    pools: Vec<Rc<UpstreamPool>>,
    rules: Rc<FieldRules>,
    trace_ids: TraceIds,
}

impl Forwarder {
    /// A forwarder to `upstreams`, in the order that routes refer to. Keeps the connections that `previous` has to those
    /// that have not changed. Each connection takes one of `places`, which all workers share.
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

    /// Sends the request to the upstream of the permit's route and returns the head of the response with its body still
    /// to be read. The response carries no hop-by-hop fields, and `X-Request-Id`. A `101` carries the tunnel in its body
    /// (`ForwardBody::take_tunnel`).
    ///
    /// Where the upstream has several addresses, it goes to the one with the fewest requests in flight, and to the next when
    /// that one cannot be connected to. A request whose pooled connection turns out to be closed before a byte was answered is sent once more on a new one
    /// if its method is idempotent (RFC 9110 §9.2.2) and the client was not yet asked for its body. Dropping the future
    /// closes the connection (HTTP/1.1) or resets the stream (HTTP/2).
    ///
    /// # Errors
    /// When there is no answer; `ForwardError::status` is what the client receives.
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
