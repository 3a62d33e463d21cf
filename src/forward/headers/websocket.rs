//! WebSocket sub-protocols, which may contain a browser's token (`[bearer] websocket_protocol`).

use http::header::{self, HeaderMap, SEC_WEBSOCKET_PROTOCOL};

use super::{FieldRules, FieldSink};
use crate::enforce::bearer::websocket::{SubProtocol, offered};

/// Writes the sub-protocols that a client offers, without its token and the marker before it.
pub(super) fn without_token<F: FieldSink>(rules: &FieldRules, headers: &HeaderMap, out: &mut F) {
    let Some(marker) = &rules.websocket_protocol else { return };
    // A route in shadow mode also forwards invalid requests, such as one that lists its token twice.
    let is_token = |name| offered(headers, marker).any(|other| other == SubProtocol::Token(name));
    let names: Vec<&[u8]> = offered(headers, marker)
        .filter_map(|protocol| match protocol {
            SubProtocol::Name(name) if !is_token(name) => Some(name),
            SubProtocol::Name(_) | SubProtocol::Marker | SubProtocol::Token(_) => None,
        })
        .collect();
    if !names.is_empty() {
        out.compose(&SEC_WEBSOCKET_PROTOCOL, |value| value.extend_from_slice(&names.join(&b", "[..])));
    }
}

impl FieldRules {
    /// Selects the marker in the response to a WebSocket handshake if the upstream has selected nothing: a
    /// browser that offers sub-protocols closes a connection for which none is selected.
    pub(crate) fn select_sub_protocol(&self, asked: &HeaderMap, answer: &mut HeaderMap) {
        let Some(marker) = &self.websocket_protocol else { return };
        let is_websocket = answer
            .get(header::UPGRADE)
            .is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"));
        let is_offered = || offered(asked, marker).any(|protocol| protocol == SubProtocol::Marker);
        if is_websocket && !answer.contains_key(SEC_WEBSOCKET_PROTOCOL) && is_offered() {
            answer.insert(SEC_WEBSOCKET_PROTOCOL, marker.clone());
        }
    }
}
