//! Formats the details of a check. This module knows no rules.
//!
//! Everything that comes from the token is escaped and truncated, because it is printed on terminals.

use std::time::Duration;

use http::header::ORIGIN;
use http::{HeaderMap, Method};
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use crate::enforce::denial::Reason;
use crate::enforce::mcp::{McpCall, McpFault};
use crate::enforce::policy::{Mode, Route, WebOrigin};
use crate::enforce::resource::Resource;
use crate::enforce::signals::SignalClock;
use crate::enforce::token::{Validity, VerifiedToken, Words};
use crate::keys::store::Availability;
use crate::keys::{self, KeySource};
use crate::revocations::{Ended, EndedBy, TokenFacts};
use crate::sessions::IdleLook;
use crate::time::{Now, Timestamp};

/// Maximum number of characters shown of one value.
const LONGEST: usize = 200;
/// Maximum number of members shown of one list.
const MOST: usize = 20;

pub(super) fn target(method: &Method, path: &str, good: bool) -> String {
    let asked = format!("{} {}", escaped(method.as_str()), quoted(path));
    let has_encoded_slash =
        path.split('?').next().is_some_and(|path| path.to_ascii_lowercase().contains("%2f"));
    let keep = if has_encoded_slash {
        "; a %2f is accepted on a route with encoded_slashes = \"keep\", unless the decoded path has a dot segment or an empty segment"
    } else {
        ""
    };
    if good { asked } else { format!("{asked} is ambiguous or not a path{keep}") }
}

pub(super) fn route(found: Option<&Route>, method: &Method, path: &str, host: Option<&str>) -> String {
    let Some(route) = found else {
        let host = host.map_or("without a host".to_owned(), |host| format!("on {}", quoted(host)));
        return format!("none for {} {} {host}", escaped(method.as_str()), quoted(path));
    };
    let (number, settings) = (route.index() + 1, route.settings());
    let anonymous = if settings.anonymous { ", which requires no token" } else { "" };
    let shadow = match settings.mode {
        Mode::Enforce => "",
        Mode::Shadow => ", which is in shadow mode: the request is forwarded whatever the verdict",
    };
    format!("{}, number {number} of the configuration{anonymous}{shadow}", quoted(route.pattern()))
}

/// The MCP headers of a request, on a route that is chosen by them.
pub(super) fn mcp(
    is_named: bool,
    call: Result<&McpCall<'_>, &McpFault>,
    judged: Result<(), McpFault>,
) -> String {
    match (judged, call) {
        (Err(fault), _) => fault.to_string(),
        (Ok(()), Ok(McpCall { method, name })) if is_named => {
            let name = name.as_ref().map(|name| format!(", Mcp-Name {}", quoted(name))).unwrap_or_default();
            format!("Mcp-Method {}{name}", quoted(method))
        }
        (Ok(()), _) => "the route does not depend on MCP headers".to_owned(),
    }
}

/// The resource that the token is for, and the one that the route belongs to.
pub(super) fn resource(resource: Option<&Resource>, token: &VerifiedToken) -> String {
    let named = list(token.audiences.iter());
    match resource {
        Some(Resource { url, require_audience: true, .. }) => {
            format!("aud is {named}; required: {}", quoted(url))
        }
        _ if token.is_for_resources => {
            let own =
                resource.map_or("to none".to_owned(), |resource| format!("to {}", quoted(&resource.url)));
            format!("aud is {named}, so the token is only for these resources; the route belongs {own}")
        }
        _ => "the route does not require a resource URL in aud".to_owned(),
    }
}

pub(super) fn form(fault: Option<Reason>) -> String {
    let text = match fault {
        None => "a signed JWT",
        Some(Reason::Ambiguous) => "the query also contains an access_token",
        Some(Reason::Malformed) => {
            "not in the token format of RFC 6750, or longer than 16 KiB; omit the prefix \"Bearer\""
        }
        Some(Reason::NotJwt) => "not three parts of strict base64url, the first two of them JSON objects",
        Some(_) => {
            "has a repeated or too deeply nested member, a kid that is not a string, or an unsupported extension (crit, b64)"
        }
    };
    text.to_owned()
}

pub(super) fn issuer<'a>(named: Option<&Value>, known: impl Iterator<Item = &'a str>, good: bool) -> String {
    let legacy = if named.is_some_and(|named| named == LEGACY) { NEVER_EXPIRES } else { "" };
    let named = format!("iss is {}{legacy}", value(named));
    if good { named } else { format!("{named}; configured: {}", list(known)) }
}

/// The issuer of Kubernetes' tokens that never expire.
const LEGACY: &str = "kubernetes/serviceaccount";
const NEVER_EXPIRES: &str = ", the issuer of legacy service account tokens, which never expire and are not accepted; \
    use a projected token, which has an audience and an expiry";

/// Why a service account token lasts too long, and what to do.
pub(super) const EXTENDED: &str = "Kubernetes extends the lifetime of automatically mounted tokens to a year; \
    mount a projected token with an audience and expirationSeconds, or raise max_lifetime";

pub(super) fn trust_domain(subject: Option<&Value>, domain: &str) -> String {
    format!("sub is {}, of the trust domain {}", value(subject), quoted(domain))
}

/// The dates of a token. `undated` is when a token without `iat` counts as issued.
pub(super) fn dates(payload: &Map<String, Value>, undated: Option<Timestamp>) -> String {
    let shown = |name| format!("{name} is {}", value(payload.get(name)));
    let dates = ["iat", "exp", "nbf"].map(shown).join(", ");
    let undated = undated
        .map(|at| format!("; it counts as issued at {at}, its nbf or the time when it was first seen"));
    let never = payload.get("exp").is_none() && payload.get("iss").is_some_and(|iss| iss == LEGACY);
    dates + &undated.unwrap_or_default() + if never { NEVER_EXPIRES } else { "" }
}

pub(super) fn expiry(times: &Validity, leeway: Duration, now: Timestamp) -> String {
    let word = if times.expires_at <= now { "expired" } else { "expires" };
    format!("{word} {}; leeway {}", relative(times.expires_at, now), span(leeway))
}

pub(super) fn not_before(times: &Validity, leeway: Duration, now: Timestamp) -> String {
    match times.not_before {
        None => "nbf is absent".to_owned(),
        Some(from) if from <= now => format!("valid since {from}"),
        Some(from) => format!("valid {}; leeway {}", relative(from, now), span(leeway)),
    }
}

pub(super) fn issued_at(times: &Validity, leeway: Duration, now: Timestamp) -> String {
    format!("issued {}; leeway {}", relative(times.issued_at, now), span(leeway))
}

pub(super) fn lifetime(times: &Validity, longest: Duration) -> String {
    if times.expires_at <= times.issued_at {
        return "exp is not after iat".to_owned();
    }
    format!("exp − iat is {}; max_lifetime {}", span(times.expires_at.since(times.issued_at)), span(longest))
}

pub(super) fn required(names: &[String], missing: &[&str]) -> String {
    match (names, missing) {
        ([], _) => "none besides exp and iat".to_owned(),
        (names, []) => format!("present: {}", list(names.iter().map(String::as_str))),
        (_, missing) => format!("missing: {}", list(missing.iter().copied())),
    }
}

pub(super) fn no_keys(settings: &keys::Settings, availability: Availability) -> String {
    let place = match &settings.source {
        KeySource::File(path) => format!("in {}", path.display()),
        KeySource::Url(url) => format!("at {}", quoted(url)),
        KeySource::Discovery | KeySource::SignalsMetadata(_) => "found by discovery".to_owned(),
        KeySource::Secret(_) => "derived from the secret".to_owned(),
        KeySource::Authority => "of the embedded authority".to_owned(),
    };
    match availability {
        Availability::TooOld => {
            format!("the keys {place} were last confirmed longer than {} ago", span(settings.max_stale))
        }
        Availability::NeverLoaded | Availability::Usable => {
            format!("unavailable: the keys {place} were never loaded")
        }
    }
}

pub(super) fn key(kid: Option<&str>, algorithm: Algorithm, keys: usize, fault: Option<Reason>) -> String {
    let named = kid.map_or("kid is absent".to_owned(), |kid| format!("kid is {}", quoted(kid)));
    match (fault, kid) {
        (None, Some(_)) => format!("{named}, a key for {algorithm:?}"),
        (None, None) => format!("{named}; the issuer has keys for {algorithm:?}"),
        (Some(Reason::UnknownKey), _) => format!("{named}; none of the issuer's {keys} keys has this kid"),
        (Some(_), Some(_)) => format!("{named}, but that key is not for {algorithm:?}"),
        (Some(_), None) => format!("{named}, and none of the issuer's {keys} keys is for {algorithm:?}"),
    }
}

pub(super) fn signature(good: bool) -> String {
    let text = if good {
        "matches"
    } else {
        "does not match; the following checks use unverified claims of the token"
    };
    text.to_owned()
}

/// The allowed origins, and the one that was sent.
pub(super) fn origin(listed: &[WebOrigin], headers: &HeaderMap) -> String {
    let sent = headers.get_all(ORIGIN).iter().map(|value| quoted(&String::from_utf8_lossy(value.as_bytes())));
    let sent: Vec<_> = sent.collect();
    let sent = match sent.as_slice() {
        [] => "Origin is absent".to_owned(),
        [one] => format!("Origin is {one}"),
        several => format!("Origin is repeated: {}", several.join(", ")),
    };
    match listed {
        [] => format!("{sent}; the route accepts every origin"),
        listed => {
            let listed: Vec<_> = listed.iter().map(ToString::to_string).collect();
            format!("{sent}; listed: {}", list(listed.iter().map(String::as_str)))
        }
    }
}

/// The identity in the token: subject, client, tenant and so on.
pub(super) fn holder(token: &VerifiedToken) -> String {
    let version = token.role_version.map(|version| version.to_string());
    let parts = [
        ("subject", token.subject.as_deref()),
        ("client", token.client.as_deref()),
        ("tenant", token.tenant.as_deref()),
        ("jti", token.jti.as_deref()),
        ("role version", version.as_deref()),
    ];
    let parts: Vec<_> =
        parts.into_iter().filter_map(|(name, is)| Some(format!("{name} {}", quoted(is?)))).collect();
    let holder = if parts.is_empty() { "the token names no subject".to_owned() } else { parts.join(", ") };
    match &token.identity.omitted {
        Some(names) => format!("{holder}; identity headers omitted because they are too long: {names}"),
        None => holder,
    }
}

pub(super) fn certificate(good: bool) -> String {
    let rule = if good { "" } else { ", but sender_constraint of its issuer requires it" };
    format!("the token is not bound to a client certificate{rule}")
}

pub(super) fn proof(bound: bool, good: bool) -> String {
    let text = match (bound, good) {
        (true, _) => "the token is bound to a key, which sender_constraint of its issuer ignores",
        (false, true) => "the token is not bound to a key",
        (false, false) => "the token is not bound to a key, but sender_constraint of its issuer requires it",
    };
    text.to_owned()
}

pub(super) fn revocation(
    ended: Option<(Ended, EndedBy)>,
    token: &VerifiedToken,
    facts: &TokenFacts,
) -> String {
    let Some((ended, grounds)) = ended else { return "no event ended it".to_owned() };
    let whose = match ended {
        Ended::Token => return "the token has been revoked".to_owned(),
        Ended::Session => "tokens of its login session issued up to then are revoked",
        Ended::Subject => "tokens of its subject issued up to then are revoked",
        Ended::Client => "tokens of its client issued up to then are revoked",
        Ended::Issuer => "tokens of its issuer issued up to then are revoked",
        Ended::Roles => "the roles of its subject changed then",
        Ended::BeforeState => "earlier revocations are unknown",
    };
    let at = grounds.at.filter(|at| *at > Timestamp::EPOCH).map(|at| format!("{at}: {whose}"));
    let versions = grounds.role_version.zip(token.role_version).filter(|(now, then)| then < now);
    let versions = versions.map(|(now, then)| {
        format!("the roles of its subject have version {now}; the token has version {then}")
    });
    let grounds: Vec<String> = versions.into_iter().chain(at).collect();
    let seen = match facts.issued_at < token.issued_at {
        true => format!(", and was already seen at {}", facts.issued_at),
        false => String::new(),
    };
    format!("{}; it was issued at {}{seen}", grounds.join("; "), token.issued_at)
}

pub(super) fn stale_signals(clock: &SignalClock, now: Now) -> String {
    let name = quoted(clock.transmitter());
    match clock.is_suspended() {
        true => format!("the event transmitter {name} has stopped sending signals"),
        false => format!(
            "the heartbeat of the event transmitter {name} is overdue: not confirmed for {}",
            span(clock.age(now.monotonic))
        ),
    }
}

pub(super) fn idle(look: &IdleLook, issued_at: Timestamp, now: Timestamp) -> String {
    let Some(timeout) = look.idle_timeout else { return "idle_timeout is off".to_owned() };
    let used = relative(look.last_used_at, now);
    let used = if look.last_used_at == issued_at {
        format!("not used since it was issued, {used}")
    } else {
        format!("last used {used}")
    };
    format!("{used}; idle_timeout {}", span(timeout))
}

pub(super) fn needed(all: &[String], any: &[String], held: &Words) -> String {
    let parts = [("all of", all), ("one of", any)].into_iter().filter(|(_, wanted)| !wanted.is_empty());
    let parts: Vec<_> =
        parts.map(|(how, wanted)| format!("{how} {}", list(wanted.iter().map(String::as_str)))).collect();
    let needed = if parts.is_empty() { "none".to_owned() } else { parts.join(" and ") };
    format!("required: {needed}; the token has: {}", list(held.iter()))
}

pub(super) fn list<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let mut texts = texts.peekable();
    if texts.peek().is_none() {
        return "none".to_owned();
    }
    let shown: Vec<String> = texts.by_ref().take(MOST).map(quoted).collect();
    let more = texts.count();
    let shown = shown.join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

/// The value of a claim or parameter.
pub(super) fn value(value: Option<&Value>) -> String {
    match value {
        None => "absent".to_owned(),
        Some(Value::String(text)) => quoted(text),
        Some(other) => escaped(&other.to_string()),
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text))
}

/// Escapes everything that a terminal would interpret, and truncates.
fn escaped(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text.chars();
    for c in rest.by_ref().take(LONGEST) {
        match c {
            '"' | '\'' | '\\' => shown.push(c),
            _ => shown.extend(c.escape_debug()),
        }
    }
    if rest.next().is_some() {
        shown.push('…');
    }
    shown
}

/// `3m12s ago, at 2026-01-31T23:59:59.000Z`.
fn relative(at: Timestamp, now: Timestamp) -> String {
    if at <= now {
        format!("{} ago, at {at}", span(now.since(at)))
    } else {
        format!("in {}, at {at}", span(at.since(now)))
    }
}

/// The two largest units of a duration.
pub(crate) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds == 0 {
        return if duration.is_zero() { "0s".to_owned() } else { format!("{}ms", duration.as_millis()) };
    }
    let units =
        [(seconds / 86_400, "d"), (seconds / 3_600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let greatest = units.iter().skip_while(|(count, _)| *count == 0).take(2);
    greatest.filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count}{unit}")).collect()
}

#[cfg(test)]
mod tests;
