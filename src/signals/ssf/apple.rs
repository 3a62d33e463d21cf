//! Parses what Apple sends instead of a standard SET ("Processing changes for Sign in with Apple accounts"): a
//! JSON envelope, and one event as JSON text.

use serde_json::{Map, Value, json};

use super::{SignalRefusal, malformed};
use crate::jose::json;

/// The prefix of the event types that this module gives to Apple's.
pub(super) const EVENT_TYPE: &str = "https://appleid.apple.com/event-type/";

/// Returns the token in `{"payload": "<JWT>"}`.
pub(super) fn payload(body: &[u8]) -> Result<String, SignalRefusal> {
    let envelope = json::object(body).ok().and_then(|mut members| members.remove("payload"));
    match envelope {
        Some(Value::String(token)) => Ok(token),
        _ => Err(malformed("the body is neither a SET nor an envelope with a `payload`")),
    }
}

/// Converts `{"type", "sub", "event_time"}` to the `events` object of a SET.
///
/// Apple's `sub` identifies its user without an issuer, so it becomes an opaque identifier.
pub(super) fn events(text: &str) -> Result<Map<String, Value>, SignalRefusal> {
    let event = json::object(text.as_bytes()).ok();
    let event = event.ok_or(malformed("`events` is a string that does not contain a JSON object"))?;
    let word = event.get("type").and_then(Value::as_str).ok_or(malformed("the event has no `type`"))?;
    let mut members = Map::new();
    members.extend(event.get("sub").map(|sub| ("subject".into(), json!({"format": "opaque", "id": sub}))));
    members.extend(event.get("event_time").map(|time| ("event_timestamp".into(), time.clone())));
    Ok(Map::from_iter([(format!("{EVENT_TYPE}{word}"), Value::Object(members))]))
}
