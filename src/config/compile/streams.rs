//! Compiles how signals are delivered: `[[event_transmitters]]` and `[event_transmitters.stream]`.

use std::path::PathBuf;

use super::transmitters::is_field_value;
use crate::client::Url;
use crate::config::section::Section;
use crate::config::units;
use crate::config::values::Zero;
use crate::signals::Concealed;
use crate::signals::ssf::{KeptStream, PollByHand, SignalDelivery, StreamAccess, Transmission};

/// The delivery of one transmitter's signals. `endpoint` is the URL it pushes to; `discovers`: its metadata is fetched.
pub(super) fn transmission(
    s: &mut Section<'_>,
    endpoint: Option<String>,
    discovers: bool,
    (ca, insecure_http): (Option<PathBuf>, bool),
) -> Transmission {
    // Shown only if present: most transmitters are set up manually.
    let stream = s.take("stream").is_some().then(|| s.table("stream", |s| stream(s, insecure_http)));
    if stream.is_some() && !discovers {
        s.problem(
            "stream",
            "requires discovery = true: the transmitter's metadata names the endpoints for streams",
        );
    }
    let by_hand = by_hand(s, insecure_http);
    let polls = s.word("delivery", ("push", false), &[("poll", true)]);
    let heartbeat = s.duration("heartbeat", "10m", Zero::Allowed);
    let heartbeat = (!heartbeat.is_zero() && stream.is_some()).then_some(heartbeat);
    let refuse_when_stale = s.word("when_stale", ("serve", false), &[("refuse", true)]);
    if refuse_when_stale && heartbeat.is_none() && s.is_sound("heartbeat") {
        let needs = "\"refuse\" requires a heartbeat and so an [event_transmitters.stream]: without one, missing signals go unnoticed";
        s.problem("when_stale", needs);
    }
    let delivery = delivery(s, polls, (by_hand, stream.is_some()), endpoint);
    Transmission { delivery, stream, heartbeat, refuse_when_stale, ca, insecure_http }
}

fn delivery(
    s: &Section<'_>,
    polls: bool,
    (by_hand, is_kept): (Option<PollByHand>, bool),
    endpoint: Option<String>,
) -> SignalDelivery {
    match (polls, &by_hand, is_kept) {
        (false, Some(_), _) => s.problem("poll_url", "has no effect without delivery = \"poll\""),
        (true, Some(_), true) => {
            s.problem("poll_url", "is set by the transmitter when the gate creates the stream; remove it");
        }
        (true, None, false) if s.is_sound("poll_url") => {
            let needs = "\"poll\" requires poll_url, or an [event_transmitters.stream] so that the gate creates the stream";
            s.problem("delivery", needs);
        }
        (false, None, true) if endpoint.is_none() && s.is_sound("stream") => {
            s.problem(
                "stream",
                "requires signals.public_url, the base of the URL that the transmitter pushes to",
            );
        }
        _ => {}
    }
    if polls { SignalDelivery::Poll(by_hand) } else { SignalDelivery::Push(endpoint) }
}

fn by_hand(s: &mut Section<'_>, insecure_http: bool) -> Option<PollByHand> {
    let url = optional_url(s, "poll_url", insecure_http);
    let authorization = field_value(s, "poll_authorization");
    if authorization.is_some() && url.is_none() && s.is_sound("poll_url") {
        s.problem("poll_authorization", "has no effect without poll_url");
    }
    url.map(|url| PollByHand { url, authorization })
}

/// `[event_transmitters.stream]`.
fn stream(s: &mut Section<'_>, insecure_http: bool) -> KeptStream {
    let token_url = optional_url(s, "token_url", insecure_http);
    let token = field_value(s, "access_token");
    let id = s.text("client_id", "");
    let client_secret = s.secret("client_secret").map(Concealed::new);
    let scopes = s.list("scopes", &["ssf.manage", "ssf.read"], units::scope);
    let access = match (token_url, token) {
        (Some(_), Some(token)) => {
            s.problem("access_token", "cannot be combined with token_url; keep one");
            StreamAccess::Token(token)
        }
        (None, Some(token)) => {
            if !id.is_empty() || client_secret.is_some() {
                s.problem("client_id", "has no effect without token_url");
            }
            StreamAccess::Token(token)
        }
        (Some(token_url), None) => {
            if id.is_empty() {
                s.problem("client_id", "is required with token_url");
            }
            if client_secret.is_none() && s.is_sound("client_secret") {
                s.problem("client_secret", "is required with token_url");
            }
            let secret = client_secret.unwrap_or_else(|| Concealed::new(String::new()));
            StreamAccess::Client { token_url, id, secret, scopes }
        }
        (None, None) => {
            if s.is_sound("token_url") && s.is_sound("access_token") {
                s.own_problem(
                    "has no credential: set token_url, client_id and client_secret, or access_token",
                );
            }
            StreamAccess::Token(Concealed::new(String::new()))
        }
    };
    KeptStream {
        access,
        events: s.list("events", &[], units::name),
        add_subjects: s.flag("add_subjects", false),
    }
}

/// A secret that is sent in a header field.
pub(super) fn field_value(s: &mut Section<'_>, key: &'static str) -> Option<Concealed> {
    let value = s.secret(key)?;
    if !is_field_value(&value) {
        s.problem(
            key,
            "is not a valid header value: it must be visible ASCII without leading or trailing spaces",
        );
    }
    Some(Concealed::new(value))
}

fn optional_url(s: &mut Section<'_>, key: &'static str, insecure_http: bool) -> Option<Url> {
    let parse = |text: &str| match text {
        "" => Ok(None),
        text => Url::parse(text, insecure_http).map(Some).map_err(|error| error.to_string()),
    };
    s.parsed(key, "", parse).flatten()
}
