//! Records what a denied token claims, for the log.

use http::HeaderMap;
use serde_json::Value;

use super::Record;
use crate::enforce::bearer;
use crate::enforce::denial::Reason;
use crate::gate::loggable::visible;
use crate::jose::jws::Jws;

impl Record {
    /// Records the issuer or audience of a token that is denied for it.
    pub(in crate::gate) fn refused_token(&mut self, reason: Reason, headers: &HeaderMap) {
        let claim = match reason {
            Reason::UnknownIssuer => ("claimed_issuer", "iss"),
            Reason::WrongAudience => ("claimed_audience", "aud"),
            _ => return,
        };
        let token = bearer::extract(headers, None, self.generation.live.enforcer.bearer()).ok().flatten();
        let parsed = token.and_then(|token| Jws::parse(token.as_bytes()).ok());
        let Some(mut payload) = parsed.map(|jws| jws.payload) else { return };
        if let Some(Value::String(client)) = payload.get("client_id").filter(|_| self.claimed.is_none()) {
            self.claimed_client = Some(visible(client));
        }
        let Some(value) = payload.remove(claim.1) else { return };
        let text = match value {
            Value::String(text) => text,
            Value::Array(several) => {
                several.iter().filter_map(Value::as_str).take(8).collect::<Vec<_>>().join(",")
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => return,
        };
        self.named = Some((claim.0, visible(&text)));
    }
}
