//! The parts of a request that are kept to check it again while it lasts.

use std::rc::Rc;

use http::header::{AUTHORIZATION, ORIGIN, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::enforce::decide::Request;
use crate::enforce::mcp;
use crate::gate::http::Head;

/// The fields that decisions depend on, besides the proof of possession, which counts once: the credentials,
/// the page's origin, the handshake of a WebSocket that carries its token, and the fields that choose the
/// route of an MCP request.
const JUDGED: [HeaderName; 7] =
    [AUTHORIZATION, ORIGIN, SEC_WEBSOCKET_PROTOCOL, UPGRADE, mcp::METHOD, mcp::NAME, mcp::VERSION];

/// The parts of a request's head that decisions depend on.
pub(in crate::gate) struct StreamQuestion {
    /// The whole head until [`Self::compact`].
    head: Rc<Head>,
    host: HeaderValue,
    is_compact: bool,
}

impl StreamQuestion {
    pub(in crate::gate) fn new(head: &Rc<Head>, host: &HeaderValue) -> Self {
        Self { head: Rc::clone(head), host: host.clone(), is_compact: false }
    }

    /// Copies what is still needed out of the buffer of the whole head. A request that ends before its first
    /// check avoids this cost.
    pub(super) fn compact(&mut self) {
        if std::mem::replace(&mut self.is_compact, true) {
            return;
        }
        // Values taken from a head can be parsed again.
        let copy =
            |value: &HeaderValue| HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone());
        let mut headers = HeaderMap::new();
        for name in JUDGED {
            let values: Vec<HeaderValue> = self.head.headers.get_all(&name).iter().map(copy).collect();
            headers.extend(values.into_iter().map(|value| (Some(name.clone()), value)));
        }
        let mut target = self.head.target.clone();
        target.compact();
        self.host = copy(&self.host);
        let (method, version) = (self.head.method.clone(), self.head.version);
        self.head = Rc::new(Head { method, target, version, headers });
    }

    /// The request to judge.
    pub(super) fn request<'q>(&'q self, certificate: Option<&'q [u8; 32]>) -> Request<'q> {
        let Head { method, target, headers, .. } = &*self.head;
        Request { method, target, host: self.host.to_str().ok(), headers, certificate }
    }
}
