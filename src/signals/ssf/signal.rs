//! The meaning of CAEP 1.0, RISC 1.0 and SSF 1.0 events for a gate: which tokens end, and since when.

use serde_json::{Map, Value};

use super::set::{self, Set};
use super::{MAX_EVENTS, PassedOver, Settings, SignalRefusal, apple, malformed};
use crate::signals::subject::{Named, Nobody, SubjectReader};
use crate::state::record::{Event, EventKind, EventOrigin};
use crate::time::Timestamp;

const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";
const RISC: &str = "https://schemas.openid.net/secevent/risc/event-type/";
const SSF: &str = "https://schemas.openid.net/secevent/ssf/event-type/";
const LOGIN_GOV: &str = "https://schemas.login.gov/secevent/risc/event-type/";

/// The effect of an event type.
#[derive(Debug, Clone, Copy)]
enum Meaning {
    /// Ends the subject's tokens.
    End,
    /// Ends the subject's tokens, unless a credential was only added.
    CredentialChange,
    /// Ends the subject's tokens as outdated, if a role or a scope has changed.
    ClaimsChange,
    /// Has no effect.
    Nothing(PassedOver),
}

/// Every event type with an effect, as prefix and name, and whether only a tolerant receiver accepts it.
const SIGNALS: [(&str, &str, bool, Meaning); 14] = [
    (CAEP, "session-revoked", false, Meaning::End),
    (CAEP, "credential-change", false, Meaning::CredentialChange),
    (CAEP, "token-claims-change", false, Meaning::ClaimsChange),
    (RISC, "account-disabled", false, Meaning::End),
    (RISC, "account-purged", false, Meaning::End),
    (RISC, "credential-compromise", false, Meaning::End),
    (RISC, "sessions-revoked", false, Meaning::End),
    (SSF, "verification", false, Meaning::Nothing(PassedOver::Verification)),
    (SSF, "stream-updated", false, Meaning::Nothing(PassedOver::StreamUpdated)),
    (LOGIN_GOV, "password-reset", true, Meaning::End),
    (LOGIN_GOV, "mfa-limit-account-locked", true, Meaning::End),
    (apple::EVENT_TYPE, "consent-revoked", true, Meaning::End),
    (apple::EVENT_TYPE, "account-delete", true, Meaning::End),
    (apple::EVENT_TYPE, "account-deleted", true, Meaning::End),
];

/// Names of claims that carry permissions in the tokens of any issuer.
const ROLE_WORDS: [&str; 7] = ["role", "roles", "scope", "scp", "groups", "permissions", "entitlements"];

/// Why an event has no effect.
enum NoSignal {
    Malformed(SignalRefusal),
    PassedOver(PassedOver),
}

impl From<Nobody> for NoSignal {
    fn from(nobody: Nobody) -> Self {
        match nobody {
            Nobody::Malformed(description) => Self::Malformed(malformed(description)),
            Nobody::OtherIssuer => Self::PassedOver(PassedOver::OtherIssuer),
            Nobody::Unknown => Self::PassedOver(PassedOver::UnknownSubject),
            Nobody::CriticalMember => Self::PassedOver(PassedOver::CriticalMember),
        }
    }
}

/// Translates a token into events of this gate.
pub(super) fn translate(
    set: &Set,
    settings: &Settings,
    now: Timestamp,
) -> Result<(Vec<Event>, Vec<PassedOver>), SignalRefusal> {
    let (mut events, mut passed_over) = (Vec::new(), Vec::new());
    for (uri, members) in &set.events {
        let Value::Object(members) = members else {
            return Err(malformed("an event must be an object"));
        };
        match signal(uri, members, set, settings, now) {
            Ok(more) => events.extend(more),
            Err(NoSignal::PassedOver(why)) => passed_over.push(why),
            Err(NoSignal::Malformed(refusal)) => return Err(refusal),
        }
        if events.len() > MAX_EVENTS {
            return Err(malformed("the token names too many subjects"));
        }
    }
    Ok((events, passed_over))
}

fn signal(
    uri: &str,
    members: &Map<String, Value>,
    set: &Set,
    settings: &Settings,
    now: Timestamp,
) -> Result<Vec<Event>, NoSignal> {
    let kind = kind(uri, members, settings)?;
    let reader = SubjectReader {
        issuer: &settings.subject_issuer,
        sender: &settings.issuer,
        critical: &settings.critical_members,
        tolerant: settings.tolerant,
    };
    let named = reader.read(subject(members, set, settings.tolerant)?)?;
    let at = members.get("event_timestamp").map(|time| set::time(time, settings.tolerant)).transpose();
    let told_at = at.map_err(NoSignal::Malformed)?.unwrap_or(set.at);
    let origin = EventOrigin::signal(&settings.issuer, &set.id, uri, told_at);
    // The event happened before it was reported. A transmitter whose clock is ahead does not repeat rejected
    // signals, so its signal is accepted; but a time in the future would end tokens that are yet to be issued.
    let at = told_at.min(now);
    let event = |named: &Named| named.event(kind, &settings.subject_issuer.issuer, at, now);
    Ok(named.iter().map(|named| Event { origin: Some(origin), ..event(named) }).collect())
}

/// Returns the kind of event for a subject.
fn kind(uri: &str, members: &Map<String, Value>, settings: &Settings) -> Result<EventKind, NoSignal> {
    let known = SIGNALS.iter().find(|(base, word, tolerant, _)| {
        uri.strip_prefix(base) == Some(word) && (settings.tolerant || !tolerant)
    });
    match known.map(|(.., meaning)| *meaning) {
        Some(Meaning::End) => Ok(EventKind::SubjectRevoked),
        Some(Meaning::CredentialChange) => match members.get("change_type").and_then(Value::as_str) {
            Some("revoke" | "update" | "delete") => Ok(EventKind::SubjectRevoked),
            Some("create") => Err(NoSignal::PassedOver(PassedOver::NoEffect)),
            Some(_) | None => {
                Err(NoSignal::Malformed(malformed("`change_type` is not one that CAEP defines")))
            }
        },
        Some(Meaning::ClaimsChange) => match members.get("claims") {
            Some(Value::Object(claims)) if claims.keys().any(|name| carries_roles(name, settings)) => {
                Ok(EventKind::RoleChanged)
            }
            Some(Value::Object(_)) => Err(NoSignal::PassedOver(PassedOver::NoEffect)),
            _ => Err(NoSignal::Malformed(malformed("`claims` must be an object"))),
        },
        Some(Meaning::Nothing(why)) => Err(NoSignal::PassedOver(why)),
        None => Err(NoSignal::PassedOver(PassedOver::UnknownEvent)),
    }
}

/// Whether a claim carries roles or scopes: it is configured for the issuer, or its last segment has a known
/// name. SAML and OpenID Connect name claims with URIs.
fn carries_roles(name: &str, settings: &Settings) -> bool {
    let word = name.rsplit(['/', '#', ':']).next().unwrap_or(name);
    settings.role_claims.iter().any(|claim| claim == name)
        || ROLE_WORDS.iter().any(|known| known.eq_ignore_ascii_case(word))
}

/// Returns `sub_id` or, for a tolerant receiver, the event's own `subject`.
fn subject<'a>(members: &'a Map<String, Value>, set: &'a Set, tolerant: bool) -> Result<&'a Value, NoSignal> {
    let inside = || members.get("subject").filter(|_| tolerant);
    set.subject.as_ref().or_else(inside).ok_or(NoSignal::Malformed(malformed("the token has no `sub_id`")))
}
