//! An event as an entry of the shared log: JSON with short names, readable with `redis-cli XRANGE`.

use redis::Value;
use serde::{Deserialize, Serialize};

use crate::identity::Key;
use crate::state::record::{Event, EventKind, EventOrigin, EventSource, Identity, StoredEvent, SubjectKind};
use crate::time::Timestamp;

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogEntry {
    /// Its place.
    pub(crate) sequence: u64,
    /// The place of the entry before it.
    pub(crate) previous: u64,
    /// What happened.
    pub(crate) event: Event,
    /// The event that this one undoes.
    pub(crate) undoes: Option<Identity>,
    /// Where it came from.
    pub(crate) source: EventSource,
    /// When it arrived.
    pub(crate) received_at: Timestamp,
    /// Which replica appended it.
    pub(crate) writer: u32,
    /// Whether `undoes` includes the signal of the undone event; entries of earlier releases do not.
    pub(crate) names_origin: bool,
}

/// The wire format, also used in exported files.
#[derive(Serialize, Deserialize)]
pub(crate) struct EntryWire {
    #[serde(rename = "k")]
    kind: i64,
    #[serde(rename = "h")]
    key: String,
    #[serde(rename = "a")]
    at: i64,
    #[serde(rename = "v", skip_serializing_if = "Option::is_none")]
    role_version: Option<u64>,
    #[serde(rename = "i")]
    issuer: String,
    #[serde(rename = "s", skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(rename = "c", skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(rename = "j", skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    /// The login session. Earlier releases neither write nor read this field and the next.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    /// Which claim the subject is compared with.
    #[serde(rename = "q", default, skip_serializing_if = "Option::is_none")]
    subject_kind: Option<i64>,
    #[serde(rename = "o")]
    source: i64,
    #[serde(rename = "r")]
    received_at: i64,
    #[serde(rename = "x")]
    expires_at: i64,
    #[serde(rename = "w", default)]
    writer: u32,
    /// Kind, time and role version of the undone event; its key is the same as this one's.
    #[serde(rename = "u", skip_serializing_if = "Option::is_none")]
    undoes: Option<(i64, i64, Option<u64>)>,
    /// The signal that it came with. Earlier releases neither write nor read this field and the next.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    /// The signal of the undone event; empty if it came without one.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    undoes_origin: Option<String>,
}

fn hex(key: Key) -> String {
    key.to_string()
}

fn unhex(text: &str) -> Option<Key> {
    u128::from_str_radix(text, 16).ok().map(|key| Key::from_bytes(key.to_be_bytes()))
}

/// Serializes an entry, without its place.
pub(crate) fn encode(entry: &LogEntry) -> String {
    // Strings and numbers always serialize.
    serde_json::to_string(&entry.wire()).unwrap_or_default()
}

fn wire(entry: &LogEntry) -> EntryWire {
    let LogEntry { event, undoes, source, received_at, writer, .. } = entry;
    let text = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
    EntryWire {
        kind: event.kind.code(),
        key: hex(event.key),
        at: event.at.as_millis(),
        role_version: event.role_version,
        issuer: event.issuer.to_string(),
        subject: text(&event.subject),
        client: text(&event.client),
        jti: text(&event.jti),
        session: text(&event.session),
        subject_kind: Some(event.subject_kind.code()).filter(|code| *code != 0),
        source: source.code(),
        received_at: received_at.as_millis(),
        expires_at: event.expires_at.as_millis(),
        writer: *writer,
        undoes: undoes
            .as_ref()
            .map(|undone| (undone.kind.code(), undone.at.as_millis(), undone.role_version)),
        origin: event.origin.map(|origin| hex(origin.0)),
        undoes_origin: undoes
            .as_ref()
            .map(|undone| undone.origin.map_or_else(String::new, |origin| hex(origin.0))),
    }
}

impl LogEntry {
    /// Creates an entry for an event that has no place yet.
    pub(crate) fn new(event: &Event, source: EventSource, received_at: Timestamp) -> Self {
        Self {
            sequence: 0,
            previous: 0,
            event: event.clone(),
            undoes: None,
            source,
            received_at,
            writer: 0,
            names_origin: true,
        }
    }

    /// Creates an entry from an event that was read from the log earlier, to append it again.
    pub(crate) fn again(stored: StoredEvent, undoes: Option<Identity>) -> Self {
        let StoredEvent { sequence, event, source, received_at, .. } = stored;
        Self { sequence, previous: 0, event, undoes, source, received_at, writer: 0, names_origin: true }
    }

    /// Parses an element of an `XRANGE` or `XREAD` reply; `None` if it is not an entry of this log.
    pub(crate) fn read(value: &Value) -> Option<Self> {
        let Value::Array(parts) = value else { return None };
        let [id, Value::Array(fields)] = parts.as_slice() else { return None };
        let id = text(id)?;
        let (millis, rest) = id.split_once('-')?;
        let sequence = millis.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(rest.parse().ok()?)?;
        let field = |name: &str| {
            let mut pairs = fields.chunks_exact(2);
            pairs.find_map(|pair| (text(&pair[0])? == name).then(|| text(&pair[1]))?)
        };
        let previous = field("p")?.parse().ok()?;
        Self::from_wire(serde_json::from_str(field("e")?).ok()?, sequence, previous)
    }

    /// Converts it to the wire format, without its place.
    pub(crate) fn wire(&self) -> EntryWire {
        wire(self)
    }

    /// Converts it from the wire format; `None` if this release does not understand it.
    pub(crate) fn from_wire(wire: EntryWire, sequence: u64, previous: u64) -> Option<Self> {
        let key = unhex(&wire.key)?;
        let origin = |text: &str| unhex(text).map(EventOrigin);
        let names_origin = wire.undoes.is_none() || wire.undoes_origin.is_some();
        let undoes = match wire.undoes {
            Some((kind, at, role_version)) => Some(Identity {
                kind: EventKind::from_code(kind)?,
                key,
                at: Timestamp::from_millis(at),
                role_version,
                origin: wire.undoes_origin.as_deref().and_then(origin),
            }),
            None => None,
        };
        let event = Event {
            kind: EventKind::from_code(wire.kind)?,
            issuer: wire.issuer.into(),
            subject: wire.subject.map(Into::into),
            client: wire.client.map(Into::into),
            jti: wire.jti.map(Into::into),
            session: wire.session.map(Into::into),
            subject_kind: SubjectKind::from_code(wire.subject_kind.unwrap_or_default())?,
            key,
            at: Timestamp::from_millis(wire.at),
            role_version: wire.role_version,
            expires_at: Timestamp::from_millis(wire.expires_at),
            origin: wire.origin.as_deref().and_then(origin),
        };
        let (source, received_at) =
            (EventSource::from_code(wire.source)?, Timestamp::from_millis(wire.received_at));
        Some(Self {
            sequence,
            previous,
            event,
            undoes,
            source,
            received_at,
            writer: wire.writer,
            names_origin,
        })
    }
}

/// The stream id of a sequence.
pub(crate) fn id(sequence: u64) -> String {
    format!("{}-{}", sequence / 1000, sequence % 1000)
}

/// When an entry was appended, by the server's clock.
pub(super) fn appended_at(sequence: u64) -> Timestamp {
    Timestamp::from_millis(i64::try_from(sequence / 1000).unwrap_or(i64::MAX))
}

fn text(value: &Value) -> Option<&str> {
    // Redis sends ids and fields as bulk strings.
    let Value::BulkString(bytes) = value else { return None };
    std::str::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_reads_as_it_was_written() {
        let (at, until) = (Timestamp::from_millis(1_001), Timestamp::from_millis(9_009));
        let issuer = "https://a/".into();
        let subject = Event {
            role_version: Some(7),
            ..Event::subject(EventKind::RoleChanged, &issuer, "é", at, until)
        };
        let signal =
            Event { origin: Some(EventOrigin::signal("https://idp/", "1", "t", at)), ..subject.clone() };
        let (undone, undone_signal) = (Identity::of(&subject), Identity::of(&signal));
        let undoing = subject.undoing(until);
        let token = Event::token(&issuer, "t", at, until);
        let client = Event::client(&issuer, "c", at, until);
        let email = (SubjectKind::Email, "a@b.test");
        let (session, narrowed) = (
            Event::session(&issuer, "s", None, at, until),
            Event::session(&issuer, "s", Some(email), at, until),
        );
        let alias = Event::named(EventKind::RoleChanged, &issuer, (SubjectKind::Alias, "x"), at, until);
        for (event, undoes) in [
            (subject, None),
            (signal, None),
            (undoing.clone(), Some(undone)),
            (undoing, Some(undone_signal)),
            (token, None),
            (client, None),
            (session, None),
            (narrowed, None),
            (alias, None),
        ] {
            let sequence = 1_700_000_000_123_456;
            let entry = LogEntry {
                undoes,
                previous: 41,
                sequence,
                writer: 7,
                ..LogEntry::new(&event, EventSource::Ssf, until)
            };
            let bulk = |text: &str| Value::BulkString(text.into());
            let fields = ["p", "41", "e", &encode(&entry)].map(bulk).to_vec();
            let value = Value::Array(vec![bulk(&id(entry.sequence)), Value::Array(fields)]);
            assert_eq!(LogEntry::read(&value), Some(entry));
        }
        assert_eq!(LogEntry::read(&Value::Array(vec![Value::Nil, Value::Array(vec![])])), None);
    }
}
