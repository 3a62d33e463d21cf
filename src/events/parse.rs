//! Parses events from JSON, strictly: an event that is misread ends the wrong tokens or none.

use std::fmt;

use ::time::OffsetDateTime;
use ::time::format_description::well_known::Rfc3339;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use super::EventIssuer;
use crate::state::record::{Event, EventKind, SubjectKind};
use crate::time::Timestamp;

/// Events in one call at most.
pub const BATCH: usize = 10_000;

/// What is wrong with what was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The place of the event at fault in an array, from 0.
    pub index: Option<usize>,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            Some(index) => write!(f, "event {index}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

impl std::error::Error for Invalid {}

/// Reads one event, or an array of at most [`BATCH`].
///
/// # Errors
/// When any of them is not an event.
pub fn events(json: &[u8], issuers: &[EventIssuer], now: Timestamp) -> Result<Vec<Event>, Invalid> {
    let whole = |what: String| Invalid { index: None, what };
    if json.trim_ascii_start().first() != Some(&b'[') {
        return Ok(vec![event(json, issuers, now).map_err(whole)?]);
    }
    let raw: Vec<&RawValue> = serde_json::from_slice(json).map_err(|error| whole(error.to_string()))?;
    if raw.len() > BATCH {
        return Err(whole(format!("the call has {} events; at most {BATCH} are accepted", raw.len())));
    }
    raw.iter()
        .enumerate()
        .map(|(index, raw)| {
            event(raw.get().as_bytes(), issuers, now).map_err(|what| Invalid { index: Some(index), what })
        })
        .collect()
}

/// The members of an event. A member that is there twice is an error, like one that is not listed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventMembers {
    r#type: String,
    issuer: Option<String>,
    subject: Option<String>,
    subject_kind: Option<String>,
    session: Option<String>,
    client: Option<String>,
    jti: Option<String>,
    at: Option<Value>,
    role_version: Option<u64>,
}

fn event(json: &[u8], issuers: &[EventIssuer], now: Timestamp) -> Result<Event, String> {
    let members: EventMembers = members(json)?;
    let kind = EventKind::from_word(&members.r#type)
        .filter(|kind| *kind != EventKind::Undone)
        .ok_or_else(|| format!("{:?} is not an event type", members.r#type))?;
    members.fit(kind)?;
    let subject_kind = members.subject_kind()?;
    let issuer = issuer(members.issuer.as_deref(), issuers)?;
    let at = members.at.as_ref().map_or(Ok(now), |at| time("at", at))?;
    if at > now.plus(issuer.leeway) {
        return Err(format!("`at` is in the future ({at}; now: {now})"));
    }
    let expires_at = issuer.expiry(now);
    let name = |member: &Option<String>| member.clone().unwrap_or_default();
    let event = match kind {
        EventKind::TokenRevoked => Event::token(&issuer.issuer, &name(&members.jti), at, expires_at),
        EventKind::ClientRevoked => Event::client(&issuer.issuer, &name(&members.client), at, expires_at),
        EventKind::IssuerRevoked | EventKind::Undone => Event::issuer(&issuer.issuer, at, expires_at),
        EventKind::RoleChanged | EventKind::SubjectRevoked => {
            let subject = name(&members.subject);
            Event::named(kind, &issuer.issuer, (subject_kind, &subject), at, expires_at)
        }
        EventKind::SessionRevoked => {
            let only = members.subject.as_deref().map(|subject| (subject_kind, subject));
            Event::session(&issuer.issuer, &name(&members.session), only, at, expires_at)
        }
    };
    Ok(Event { role_version: members.role_version, ..event })
}

/// Reads the members of a document, and names the one at fault.
///
/// # Errors
/// When it is not what is expected.
pub fn members<T: DeserializeOwned>(json: &[u8]) -> Result<T, String> {
    let kind = match json.trim_ascii_start().first() {
        // Which would be read as the members in their order.
        Some(b'[') => Some("an array"),
        // Which the error would quote, and it may be a secret that lacks its member.
        Some(b'"') => Some("a string"),
        Some(b'-' | b'0'..=b'9') => Some("a number"),
        _ => None,
    };
    if let Some(kind) = kind {
        return Err(format!("invalid type: {kind}, expected an object"));
    }
    let mut reader = serde_json::Deserializer::from_slice(json);
    let members = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let member = error.path().to_string();
        if member == "." { error.inner().to_string() } else { format!("`{member}`: {}", error.inner()) }
    })?;
    reader.end().map_err(|error| error.to_string())?;
    Ok(members)
}

impl EventMembers {
    /// Has what the type needs and nothing that it has no use for: an event with more means something else.
    fn fit(&self, kind: EventKind) -> Result<(), String> {
        let needed = match kind {
            EventKind::RoleChanged | EventKind::SubjectRevoked => "subject",
            EventKind::TokenRevoked => "jti",
            EventKind::ClientRevoked => "client",
            EventKind::SessionRevoked => "session",
            EventKind::IssuerRevoked | EventKind::Undone => "",
        };
        let named = [
            ("subject", &self.subject),
            ("session", &self.session),
            ("jti", &self.jti),
            ("client", &self.client),
        ];
        for (name, member) in named {
            match member.as_deref() {
                Some("") => return Err(format!("`{name}` is empty")),
                // Only that subject's tokens of the session.
                Some(_) if (kind, name) == (EventKind::SessionRevoked, "subject") => {}
                Some(_) if name != needed => {
                    return Err(format!("`{name}` is not allowed in {}", kind.as_str()));
                }
                None if name == needed => return Err(format!("{} requires `{name}`", kind.as_str())),
                Some(_) | None => {}
            }
        }
        if self.subject_kind.is_some() && self.subject.is_none() {
            return Err("`subject_kind` requires `subject`".into());
        }
        match self.role_version {
            Some(_) if kind != EventKind::RoleChanged => {
                Err(format!("`role_version` is not allowed in {}", kind.as_str()))
            }
            Some(version) if i64::try_from(version).is_err() => Err("`role_version` is too large".into()),
            Some(_) | None => Ok(()),
        }
    }
}

impl EventMembers {
    /// Which claim the subject is compared with; the subject itself, unless it says otherwise.
    fn subject_kind(&self) -> Result<SubjectKind, String> {
        let Some(word) = self.subject_kind.as_deref() else { return Ok(SubjectKind::Subject) };
        let unknown = || format!("`subject_kind` is {word:?}; it must be subject, email or alias");
        SubjectKind::from_word(word).ok_or_else(unknown)
    }
}

/// The issuer of this name; without a name, the only one there is.
///
/// # Errors
/// When no issuer has this name, or none is named and there are several; in words for the caller.
pub fn issuer<'a>(named: Option<&str>, issuers: &'a [EventIssuer]) -> Result<&'a EventIssuer, String> {
    match (named, issuers) {
        (Some(name), _) => issuers
            .iter()
            .find(|known| &*known.issuer == name)
            .ok_or_else(|| format!("{name:?} is not a configured issuer")),
        (None, [only]) => Ok(only),
        (None, _) => Err("`issuer` is required unless exactly one issuer is configured".into()),
    }
}

/// The time that a member holds: RFC 3339, or seconds since 1970 as a number or a text.
///
/// # Errors
/// When it is neither, with the name of the member.
pub fn time(member: &str, value: &Value) -> Result<Timestamp, String> {
    match value {
        Value::String(text) => parse_time(text),
        Value::Number(number) => seconds(number.as_f64().unwrap_or(f64::NAN)),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
    .ok_or_else(|| format!("`{member}` must be an RFC 3339 time or seconds since 1970"))
}

/// A time as people and programs write it: RFC 3339, or seconds since 1970 with or without a fraction.
#[must_use]
pub fn parse_time(text: &str) -> Option<Timestamp> {
    if let Ok(number) = text.parse() {
        return seconds(number);
    }
    let nanos = OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp_nanos();
    let millis = i64::try_from(nanos.div_euclid(1_000_000)).ok()?;
    (millis >= 0).then(|| Timestamp::from_millis(millis))
}

/// Seconds since 1970 up to the year 9999, in whole milliseconds.
#[must_use]
pub fn seconds(seconds: f64) -> Option<Timestamp> {
    /// The end of the year 9999, where RFC 3339 ends too.
    const END: f64 = 253_402_300_800.0;
    // Rounded down, so that a time stays within its second; the hundredth makes up for decimal fractions that no binary
    // one meets exactly.
    (0.0..END).contains(&seconds).then(|| Timestamp::from_millis((seconds * 1000.0 + 0.01).floor() as i64))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_767_225_600_500);

    fn issuers(names: &[&str]) -> Vec<EventIssuer> {
        let issuer = |name: &&str| EventIssuer {
            issuer: (*name).into(),
            leeway: Duration::from_secs(30),
            max_lifetime: Duration::from_secs(3600),
        };
        names.iter().map(issuer).collect()
    }

    fn one(json: &str) -> Result<Event, String> {
        let read = events(json.as_bytes(), &issuers(&["https://a/"]), NOW);
        read.map(|mut events| events.remove(0)).map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn reads_every_type() {
        for (json, kind) in [
            (r#"{"type":"role-changed","subject":"s"}"#, EventKind::RoleChanged),
            (r#"{"type":"role-changed","subject":"s","role_version":7}"#, EventKind::RoleChanged),
            (r#"{"type":"subject-revoked","subject":"s","issuer":"https://a/"}"#, EventKind::SubjectRevoked),
            (r#"{"type":"token-revoked","jti":"j","at":null}"#, EventKind::TokenRevoked),
            (r#" {"type":"client-revoked","client":"c"} "#, EventKind::ClientRevoked),
            (r#"{"type":"issuer-revoked"}"#, EventKind::IssuerRevoked),
            (r#"{"type":"session-revoked","session":"x"}"#, EventKind::SessionRevoked),
            (r#"{"type":"session-revoked","session":"x","subject":"s"}"#, EventKind::SessionRevoked),
            (r#"{"type":"subject-revoked","subject":"s","subject_kind":"email"}"#, EventKind::SubjectRevoked),
        ] {
            let event = one(json).unwrap();
            assert_eq!((event.kind, event.at), (kind, NOW), "{json}");
        }
    }

    #[test]
    fn whom_an_event_names_decides_its_key() {
        let a = "https://a/".into();
        let end = one(r#"{"type":"issuer-revoked"}"#).unwrap().expires_at;
        let email = (SubjectKind::Email, "A@B.test");
        for (json, expected) in [
            (r#"{"type":"session-revoked","session":"x"}"#, Event::session(&a, "x", None, NOW, end)),
            (
                r#"{"type":"session-revoked","session":"x","subject":"A@B.test","subject_kind":"email"}"#,
                Event::session(&a, "x", Some(email), NOW, end),
            ),
            (
                r#"{"type":"role-changed","subject":"A@B.test","subject_kind":"email"}"#,
                Event::named(EventKind::RoleChanged, &a, email, NOW, end),
            ),
            (
                r#"{"type":"subject-revoked","subject":"s","subject_kind":"alias"}"#,
                Event::named(EventKind::SubjectRevoked, &a, (SubjectKind::Alias, "s"), NOW, end),
            ),
            (
                r#"{"type":"subject-revoked","subject":"s","subject_kind":"subject"}"#,
                Event::subject(EventKind::SubjectRevoked, &a, "s", NOW, end),
            ),
        ] {
            assert_eq!(one(json).unwrap(), expected, "{json}");
        }
    }

    #[test]
    fn refuses_what_is_not_exactly_an_event() {
        for (json, complaint) in [
            ("", "EOF"),
            ("7", "invalid type"),
            (r#"{"subject":"s"}"#, "missing field `type`"),
            (r#"{"type":"revoked","subject":"s"}"#, "not an event type"),
            (r#"{"type":"revocation-undone"}"#, "not an event type"),
            (r#"{"type":"subject-revoked"}"#, "requires `subject`"),
            (r#"{"type":"subject-revoked","subject":null}"#, "requires `subject`"),
            (r#"{"type":"subject-revoked","subject":""}"#, "`subject` is empty"),
            (r#"{"type":"subject-revoked","subject":7}"#, "`subject`: invalid type"),
            (r#"{"type":"subject-revoked","subject":"s","subject":"t"}"#, "duplicate field"),
            (r#"{"type":"subject-revoked","subject":"s","sbuject":"t"}"#, "unknown field"),
            (r#"{"type":"subject-revoked","subject":"s","client":"c"}"#, "is not allowed"),
            (r#"{"type":"subject-revoked","subject":"s","role_version":1}"#, "is not allowed"),
            (r#"{"type":"token-revoked"}"#, "requires `jti`"),
            (r#"{"type":"session-revoked"}"#, "requires `session`"),
            (r#"{"type":"session-revoked","session":""}"#, "`session` is empty"),
            (r#"{"type":"session-revoked","session":"x","subject":""}"#, "`subject` is empty"),
            (r#"{"type":"session-revoked","session":"x","jti":"j"}"#, "is not allowed"),
            (r#"{"type":"subject-revoked","subject":"s","session":"x"}"#, "is not allowed"),
            (
                r#"{"type":"subject-revoked","subject":"s","subject_kind":"mail"}"#,
                "must be subject, email or alias",
            ),
            (r#"{"type":"token-revoked","jti":"j","subject_kind":"email"}"#, "requires"),
            (r#"{"type":"client-revoked"}"#, "requires `client`"),
            (r#"{"type":"role-changed","subject":"s","role_version":-1}"#, "invalid value"),
            (r#"{"type":"role-changed","subject":"s","role_version":1.5}"#, "invalid type"),
            (r#"{"type":"role-changed","subject":"s","role_version":9223372036854775808}"#, "too large"),
            (r#"{"type":"issuer-revoked","issuer":"https://a"}"#, "not a configured issuer"),
            (r#"{"type":"issuer-revoked","at":true}"#, "must be an RFC 3339 time"),
            (r#"{"type":"issuer-revoked","at":"yesterday"}"#, "must be an RFC 3339 time"),
            (r#"{"type":"issuer-revoked","at":-1}"#, "must be an RFC 3339 time"),
            (r#"{"type":"issuer-revoked","at":1e300}"#, "must be an RFC 3339 time"),
            (r#"{"type":"issuer-revoked","at":1767225630.501}"#, "future"),
            (r#"{"type":"issuer-revoked"} {}"#, "trailing"),
        ] {
            let told = one(json).unwrap_err();
            assert!(told.contains(complaint), "{json}: {told}");
        }
    }

    #[test]
    fn an_event_may_lie_ahead_by_the_leeway_and_no_further() {
        for (ahead, accepted) in [(-1, true), (0, true), (30_000, true), (30_001, false), (60_000, false)] {
            let at = Timestamp::from_millis(NOW.as_millis() + ahead);
            let read = one(&format!(r#"{{"type":"issuer-revoked","at":"{at}"}}"#));
            assert_eq!(read.map(|event| event.at).ok(), accepted.then_some(at), "{ahead}");
        }
    }

    #[test]
    fn times_are_read_in_both_forms() {
        for (text, millis) in [
            ("2026-01-01T00:00:00.123Z", 1_767_225_600_123),
            ("2026-01-01T02:00:00+02:00", 1_767_225_600_000),
            ("1767225599.999", 1_767_225_599_999),
            ("1767225599.9999", 1_767_225_599_999),
            ("1767225600", 1_767_225_600_000),
            ("1767225600.123", 1_767_225_600_123),
        ] {
            assert_eq!(parse_time(text), Some(Timestamp::from_millis(millis)), "{text}");
        }
        for text in ["", "NaN", "inf", "-1", "2026-01-01", "2026-01-01 00:00", "1969-12-31T23:59:59Z"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    #[test]
    fn a_batch_names_the_event_at_fault() {
        let json = r#"[{"type":"issuer-revoked"},{"type":"issuer-revoked","x":1}]"#;
        let told = events(json.as_bytes(), &issuers(&["https://a/"]), NOW).unwrap_err();
        assert_eq!(told.index, Some(1));
        for (count, accepted) in [(BATCH, true), (BATCH + 1, false)] {
            let many = format!("[{}]", vec![r#"{"type":"issuer-revoked"}"#; count].join(","));
            let read = events(many.as_bytes(), &issuers(&["https://a/"]), NOW);
            assert_eq!(read.is_ok_and(|events| events.len() == count), accepted, "{count}");
        }
    }

    #[test]
    fn the_issuer_may_be_left_out_when_there_is_one() {
        let json = br#"{"type":"issuer-revoked"}"#;
        assert!(events(json, &issuers(&["https://a/"]), NOW).is_ok());
        assert!(events(json, &issuers(&["https://a/", "https://b/"]), NOW).is_err());
        assert!(events(json, &issuers(&[]), NOW).is_err());
    }
}
