//! What is read from the JSON of events is what is there: a batch is its events one by one, and none lies ahead.

use std::time::Duration;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::events::EventIssuer;
use crate::events::parse::events;
use crate::time::Timestamp;

const NOW: Timestamp = Timestamp::from_secs(1_767_225_600);
const LEEWAY: Duration = Duration::from_secs(30);

/// What must hold.
pub(super) fn check(input: &[u8]) {
    let issuers = ["https://a/"].map(|issuer| EventIssuer {
        issuer: issuer.into(),
        leeway: LEEWAY,
        max_lifetime: Duration::from_secs(3600),
    });
    let plain = serde_json::from_slice::<Vec<&RawValue>>(input);
    let read = match events(input, &issuers, NOW) {
        Ok(read) => read,
        Err(invalid) => {
            let count = plain.map_or(0, |list| list.len());
            assert!(invalid.index.is_none_or(|index| index < count), "{invalid} in {}", input.escape_ascii());
            return;
        }
    };
    match (plain, serde_json::from_slice::<Value>(input)) {
        (Ok(list), _) => {
            assert_eq!(list.len(), read.len());
            for (raw, event) in list.iter().zip(&read) {
                let alone = events(raw.get().as_bytes(), &issuers, NOW);
                assert_eq!(alone.as_deref(), Ok(std::slice::from_ref(event)), "{}", input.escape_ascii());
            }
        }
        (Err(_), Ok(Value::Object(members))) => {
            assert_eq!(read.len(), 1);
            let kind = read.first().map(|event| event.kind.as_str());
            assert_eq!(members.get("type").and_then(Value::as_str), kind);
        }
        (Err(_), other) => unreachable!("{other:?} is read as events: {}", input.escape_ascii()),
    }
    for event in &read {
        assert!(event.at <= NOW.plus(LEEWAY) && event.expires_at > NOW);
        assert_eq!(&*event.issuer, "https://a/");
        assert!(event.role_version.is_none_or(|version| i64::try_from(version).is_ok()));
    }
}
