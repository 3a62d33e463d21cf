//! Tokens of browsers' WebSockets. A browser can set no header of the handshake but the list of
//! sub-protocols: `new WebSocket(url, ["bearer", TOKEN])` (RFC 6455 §11.3.4).

use http::header::{SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue};

use super::BearerSettings;
use crate::enforce::denial::Reason;

/// One sub-protocol that a client offers. It has no `Debug`, because it may be a token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SubProtocol<'a> {
    /// The marker that precedes a token.
    Marker,
    /// The token.
    Token(&'a [u8]),
    /// An actual sub-protocol.
    Name(&'a [u8]),
}

/// The sub-protocols that a client offers, from all fields, in order. The member after a marker counts as a
/// token, even where none is allowed.
pub fn offered<'a>(headers: &'a HeaderMap, marker: &'a HeaderValue) -> impl Iterator<Item = SubProtocol<'a>> {
    let fields = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let mut is_token = false;
    fields.flat_map(|field| members(field.as_bytes())).map(move |member| {
        if member == marker.as_bytes() {
            is_token = true;
            SubProtocol::Marker
        } else if std::mem::take(&mut is_token) {
            SubProtocol::Token(member)
        } else {
            SubProtocol::Name(member)
        }
    })
}

/// Whether a request asks for a WebSocket.
fn is_handshake(headers: &HeaderMap) -> bool {
    let mut upgrades = headers.get_all(UPGRADE).iter().flat_map(|field| members(field.as_bytes()));
    upgrades.any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
}

fn members(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

impl BearerSettings {
    /// The token among the sub-protocols of a WebSocket handshake.
    ///
    /// # Errors
    /// [`Reason::Ambiguous`] for more than one marker and for a token that is listed twice (RFC 6455 §11.3.4
    /// allows neither); [`Reason::Malformed`] for a marker without a token.
    pub(super) fn websocket_token<'a>(&'a self, headers: &'a HeaderMap) -> Result<Option<&'a [u8]>, Reason> {
        let Some(marker) = self.websocket_protocol.as_ref().filter(|_| is_handshake(headers)) else {
            return Ok(None);
        };
        let (mut markers, mut token) = (0, None);
        for protocol in offered(headers, marker) {
            match protocol {
                SubProtocol::Marker => markers += 1,
                SubProtocol::Token(text) => token = Some(text),
                SubProtocol::Name(name) if token == Some(name) => return Err(Reason::Ambiguous),
                SubProtocol::Name(_) => {}
            }
        }
        match (markers, token) {
            (0, _) => Ok(None),
            (1, Some(token)) => Ok(Some(token)),
            (1, None) => Err(Reason::Malformed),
            _ => Err(Reason::Ambiguous),
        }
    }

    /// Whether a WebSocket's sub-protocols announce a token, whatever its form.
    pub(super) fn is_marked(&self, headers: &HeaderMap) -> bool {
        let marker = self.websocket_protocol.as_ref().filter(|_| is_handshake(headers));
        marker.is_some_and(|marker| offered(headers, marker).any(|it| it == SubProtocol::Marker))
    }
}
