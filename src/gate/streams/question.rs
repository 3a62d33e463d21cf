//! What of a request is kept to judge it again while it lasts.

use http::header::{AUTHORIZATION, ORIGIN, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::enforce::decide::Request;
use crate::enforce::mcp;
use crate::enforce::target::RequestTarget;
use crate::gate::http::Head;

/// The part of a request's head that decisions are made of.
pub(in crate::gate) struct StreamQuestion {
    method: Method,
    target: RequestTarget,
    host: HeaderValue,
    authorization: Option<HeaderValue>,
    /// There is more than one `Authorization` field.
    is_ambiguous: bool,
    /// The other fields that are judged: whose page it came from, where a WebSocket's token may be, and what an MCP request says of itself.
    others: Option<Box<HeaderMap>>,
    /// Nothing in it shares memory with the rest of the head.
    is_compact: bool,
}

impl StreamQuestion {
    pub(in crate::gate) fn new(head: &Head, host: &HeaderValue) -> Self {
        let mut fields = head.headers.get_all(AUTHORIZATION).iter();
        Self {
            method: head.method.clone(),
            target: head.target.clone(),
            host: host.clone(),
            authorization: fields.next().cloned(),
            is_ambiguous: fields.next().is_some(),
            others: other_fields(&head.headers),
            is_compact: false,
        }
    }

    /// Copies what is still needed out of the buffer that the whole head came in.
    pub(super) fn compact(&mut self) {
        if std::mem::replace(&mut self.is_compact, true) {
            return;
        }
        let copy = |value: &HeaderValue| HeaderValue::from_bytes(value.as_bytes()).ok();
        // What was taken from a head has a form that can be read again.
        self.host = copy(&self.host).unwrap_or_else(|| self.host.clone());
        self.authorization = self.authorization.take().map(|field| copy(&field).unwrap_or(field));
        self.target.compact();
        if let Some(headers) = &mut self.others {
            headers.values_mut().for_each(|value| *value = copy(value).unwrap_or_else(|| value.clone()));
        }
    }

    /// The header section, as far as it is judged.
    pub(super) fn headers(&self) -> HeaderMap {
        let fields = self.authorization.iter().chain(self.authorization.iter().filter(|_| self.is_ambiguous));
        let mut headers = self.others.as_deref().cloned().unwrap_or_default();
        for field in fields {
            headers.append(AUTHORIZATION, field.clone());
        }
        headers
    }

    /// The request as it is judged, with this header section.
    pub(super) fn request<'q>(
        &'q self,
        headers: &'q HeaderMap,
        certificate: Option<&'q [u8; 32]>,
    ) -> Request<'q> {
        let (method, target, host) = (&self.method, &self.target, self.host.to_str().ok());
        Request { method, target, host, headers, certificate }
    }
}

/// The origin of the page, the fields of a WebSocket's handshake that its token is found by, and those of an MCP request that
/// its route is.
fn other_fields(headers: &HeaderMap) -> Option<Box<HeaderMap>> {
    let of =
        |name: HeaderName| headers.get_all(&name).into_iter().map(move |value| (name.clone(), value.clone()));
    let mut fields = HeaderMap::new();
    if headers.contains_key(ORIGIN) {
        fields.extend(of(ORIGIN));
    }
    if headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
        fields.extend(of(SEC_WEBSOCKET_PROTOCOL).chain(of(UPGRADE)));
    }
    if headers.contains_key(mcp::METHOD) {
        fields.extend(of(mcp::METHOD).chain(of(mcp::NAME)).chain(of(mcp::VERSION)));
    }
    (!fields.is_empty()).then(|| Box::new(fields))
}
