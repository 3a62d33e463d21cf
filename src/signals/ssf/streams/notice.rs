//! Notices about the stream itself, which arrive in a token like any other event (SSF 1.0 §8.1.4, §8.1.5). Pure.

use serde_json::{Map, Value};

use super::description::StreamStatus;

const BASE: &str = "https://schemas.openid.net/secevent/ssf/event-type/";

/// A notice about a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamNotice {
    /// A verification event, with the requested state.
    Verification(Option<String>),
    /// A change of the stream's status.
    Updated {
        /// The id of the stream.
        stream: Option<String>,
        /// The new status.
        status: NoticedStatus,
        /// The reason.
        reason: Option<String>,
    },
}

/// A status from a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoticedStatus(pub(super) StreamStatus);

/// Extracts what a token with this subject and these events says about the stream.
pub(in crate::signals::ssf) fn notices(
    subject: Option<&Value>,
    events: &Map<String, Value>,
) -> Vec<StreamNotice> {
    let text = |members: &Value, name: &str| members.get(name).and_then(Value::as_str).map(str::to_owned);
    let notices = events.iter().filter_map(|(uri, members)| match uri.strip_prefix(BASE)? {
        "verification" => Some(StreamNotice::Verification(text(members, "state"))),
        "stream-updated" => {
            let status = StreamStatus::read(&text(members, "status")?)?;
            let stream = subject.and_then(|subject| text(subject, "id"));
            Some(StreamNotice::Updated {
                stream,
                status: NoticedStatus(status),
                reason: text(members, "reason"),
            })
        }
        _ => None,
    });
    notices.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn notices_are_found_among_events() {
        let subject = json!({"format": "opaque", "id": "s1"});
        let read = |word: &str, members: Value| {
            let events = json!({format!("{BASE}{word}"): members, "urn:other": {"state": "x"}});
            notices(Some(&subject), events.as_object().unwrap())
        };
        let updated = |status, reason: Option<&str>| StreamNotice::Updated {
            stream: Some("s1".to_owned()),
            status: NoticedStatus(status),
            reason: reason.map(str::to_owned),
        };
        for (word, members, expected) in [
            ("verification", json!({"state": "a"}), Some(StreamNotice::Verification(Some("a".to_owned())))),
            ("verification", json!({}), Some(StreamNotice::Verification(None))),
            ("verification", json!({"state": 7}), Some(StreamNotice::Verification(None))),
            ("stream-updated", json!({"status": "enabled"}), Some(updated(StreamStatus::Enabled, None))),
            (
                "stream-updated",
                json!({"status": "paused", "reason": "x"}),
                Some(updated(StreamStatus::Paused, Some("x"))),
            ),
            ("stream-updated", json!({"status": "disabled"}), Some(updated(StreamStatus::Disabled, None))),
            ("stream-updated", json!({"status": "off"}), None),
            ("stream-updated", json!({}), None),
            ("other", json!({"state": "a"}), None),
        ] {
            assert_eq!(
                read(word, members.clone()),
                expected.into_iter().collect::<Vec<_>>(),
                "{word} {members}"
            );
        }
    }
}
