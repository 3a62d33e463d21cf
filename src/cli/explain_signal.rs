//! `portcullis explain --signal`: says what a security event token or a logout token would do, without a running gate.
//!
//! Reads the configuration as the gate would, fetches the sender's keys once, and passes the token to the
//! module for its kind. Publishes nothing.

use std::path::Path;

use serde_json::{Value, json};

use super::explain::load_keys;
use super::table::columns;
use crate::config::{self, Settings};
use crate::jose::jws::Jws;
use crate::keys::store::KeyStore;
use crate::metrics::Metrics;
use crate::signals::logout::{self, LogoutSender};
use crate::signals::ssf::{self, Accepted, KeysAsked, Transmitter, Unaccepted};
use crate::signals::token::TokenFault;
use crate::state::record::Event;
use crate::time::Timestamp;

/// The effect of a signal.
pub(super) struct SignalVerdict {
    /// The configured name of the sender that it was judged as.
    sender: Option<String>,
    /// Why it would be rejected.
    refusal: Option<String>,
    events: Vec<Event>,
    passed_over: Vec<&'static str>,
}

impl SignalVerdict {
    fn refused(sender: Option<&str>, why: impl Into<String>) -> Self {
        let sender = sender.map(str::to_owned);
        Self { sender, refusal: Some(why.into()), events: Vec::new(), passed_over: Vec::new() }
    }

    /// Whether it would end tokens.
    pub(super) fn would_end_tokens(&self) -> bool {
        !self.events.is_empty()
    }

    /// Formats it for people.
    pub(super) fn table(&self) -> String {
        let mut rows = Vec::new();
        let mut row = |mark: &str, what: &str, detail: String| {
            rows.push([mark.to_owned(), what.to_owned(), detail]);
        };
        match &self.sender {
            Some(sender) => row("ok", "sender", sender.clone()),
            None => row("FAIL", "sender", self.refusal.clone().unwrap_or_default()),
        }
        match (&self.sender, &self.refusal) {
            (Some(_), Some(why)) => row("FAIL", "token", why.clone()),
            (Some(_), None) => row("ok", "token", "signed by the sender, and well-formed".to_owned()),
            (None, _) => {}
        }
        for why in &self.passed_over {
            row("-", "passed over", (*why).to_owned());
        }
        for event in &self.events {
            row("ok", event.kind.as_str(), whose(event));
        }
        let verdict = if self.would_end_tokens() { "would end tokens" } else { "would end no token" };
        format!("{}{verdict}\n", columns(&rows))
    }

    /// Formats it for programs.
    pub(super) fn json(&self) -> String {
        let event = |event: &Event| {
            json!({
                "type": event.kind.as_str(),
                "issuer": &*event.issuer,
                "subject": event.subject,
                "subject_kind": event.subject.as_ref().map(|_| event.subject_kind.as_str()),
                "session": event.session,
                "jti": event.jti,
                "at": event.at.to_string(),
            })
        };
        let verdict = json!({
            "would_end_tokens": self.would_end_tokens(),
            "sender": self.sender,
            "refusal": self.refusal,
            "events": self.events.iter().map(event).collect::<Vec<Value>>(),
            "passed_over": self.passed_over,
        });
        serde_json::to_string_pretty(&verdict).map(|text| text + "\n").unwrap_or_default()
    }
}

/// Describes whose tokens an event ends.
fn whose(event: &Event) -> String {
    let subject =
        event.subject.as_ref().map(|subject| format!("{} {subject:?}", event.subject_kind.as_str()));
    let session = event.session.as_ref().map(|session| format!("session {session:?}"));
    let jti = event.jti.as_ref().map(|jti| format!("jti {jti:?}"));
    let names: Vec<String> = session.into_iter().chain(subject).chain(jti).collect();
    format!("{} of {}, issued until {}", names.join(" of "), event.issuer, event.at)
}

/// Judges a signal at this time; `named` is the sender to judge it as, if the token's issuer does not determine it.
///
/// # Errors
/// When the configuration is invalid, or TLS to the sender's server cannot be set up.
pub(super) async fn judge(
    path: &Path,
    token: &str,
    named: Option<&str>,
    now: Timestamp,
) -> Result<SignalVerdict, String> {
    let settings = config::load(path).map_err(|problems| problems.to_string())?.settings;
    let body = token.trim();
    // Apple sends it in an envelope.
    let envelope = serde_json::from_str::<Value>(body).ok();
    let inner = envelope.as_ref().and_then(|envelope| envelope.get("payload")).and_then(Value::as_str);
    let Ok(jws) = Jws::parse(inner.unwrap_or(body).as_bytes()) else {
        return Ok(SignalVerdict::refused(
            None,
            "the file does not contain a signed token (JWS compact serialization)",
        ));
    };
    let issuer = jws.payload.get("iss").and_then(Value::as_str).unwrap_or_default();
    let metrics = Metrics::new().map_err(|error| error.to_string())?;
    if let Some(sender) = logout_sender(&settings, &jws, issuer, named) {
        let keys = settings.issuers.iter().find(|known| known.rules.issuer == sender.issuer.issuer.issuer);
        let Some(keys) = keys else {
            return Ok(SignalVerdict::refused(None, "its issuer is not configured"));
        };
        let keys = KeyStore::new(keys.keys.clone(), metrics);
        load_keys(&keys, None, now).await?;
        return Ok(logged_out(&LogoutSender::new(sender.clone(), keys), body, now));
    }
    let Some(transmitter) = transmitter(&settings, issuer, named) else {
        return Ok(SignalVerdict::refused(None, nobody(&settings, issuer, named)));
    };
    let keys = KeyStore::new(transmitter.keys.clone(), metrics);
    load_keys(&keys, None, now).await?;
    let content_type = if inner.is_some() { "application/json" } else { "application/secevent+jwt" };
    Ok(received(&Transmitter::new(transmitter.clone(), keys), body, content_type, now))
}

/// The provider that a logout token came from.
fn logout_sender<'s>(
    settings: &'s Settings,
    jws: &Jws<'_>,
    issuer: &str,
    named: Option<&str>,
) -> Option<&'s logout::Settings> {
    if !logout::is_logout_token(&jws.payload) {
        return None;
    }
    let is_theirs = |sender: &&logout::Settings| match named {
        Some(name) => sender.name == name,
        None => *sender.issuer.issuer.issuer == *issuer,
    };
    settings.logout.iter().find(is_theirs)
}

fn transmitter<'s>(settings: &'s Settings, issuer: &str, named: Option<&str>) -> Option<&'s ssf::Settings> {
    let mut theirs = settings.transmitters.iter();
    match named {
        Some(name) => theirs.find(|known| known.name == name),
        None => theirs.find(|known| known.issuer == issuer),
    }
}

/// Explains why no configured sender matches.
fn nobody(settings: &Settings, issuer: &str, named: Option<&str>) -> String {
    let transmitters = settings.transmitters.iter().map(|known| known.name.as_str());
    let names: Vec<&str> =
        transmitters.chain(settings.logout.iter().map(|known| known.name.as_str())).collect();
    let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    match named {
        Some(name) => format!("{name:?} is not configured; configured: {known}"),
        None => format!("no sender has the issuer {issuer:?}; name one with --transmitter: {known}"),
    }
}

fn received(transmitter: &Transmitter, body: &str, content_type: &str, now: Timestamp) -> SignalVerdict {
    let name = &transmitter.settings().name;
    match transmitter.receive(body.as_bytes(), Some(content_type), KeysAsked::Keys, now) {
        Ok(Accepted { events, passed_over, .. }) => SignalVerdict {
            sender: Some(format!("{name} of [[event_transmitters]]")),
            refusal: None,
            events,
            passed_over: passed_over.into_iter().map(ssf::PassedOver::as_str).collect(),
        },
        Err(Unaccepted::Refused(refusal)) => {
            let why = format!("{}: {}", refusal.code.as_str(), refusal.description);
            SignalVerdict::refused(Some(name), why)
        }
        Err(Unaccepted::Ask(_) | Unaccepted::NoKeys) => SignalVerdict::refused(Some(name), NO_KEYS),
    }
}

fn logged_out(sender: &LogoutSender, body: &str, now: Timestamp) -> SignalVerdict {
    let name = &sender.settings().name;
    match sender.read(body.as_bytes(), KeysAsked::Keys, now) {
        Ok(events) => SignalVerdict {
            sender: Some(format!("{name} of [[logout]]")),
            refusal: None,
            events,
            passed_over: Vec::new(),
        },
        Err(TokenFault::Refused(why)) => SignalVerdict::refused(Some(name), why),
        Err(TokenFault::Ask(_) | TokenFault::NoKeys) => SignalVerdict::refused(Some(name), NO_KEYS),
    }
}

const NO_KEYS: &str = "the sender's keys are not available, or none of them fits this token";
