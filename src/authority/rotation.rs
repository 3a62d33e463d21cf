//! Which key signs when: each is published before it signs and kept until the last token it signed has expired.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tracing::info;

use super::rows::{self, KeyRow};
use super::signing::SigningKey;
use crate::state::{Store, StoreError};
use crate::time::Timestamp;

/// How long before it signs a key is published at most.
const AHEAD: Duration = Duration::from_secs(24 * 3600);
/// How much longer than its last token a key is kept, for clocks that differ.
const MARGIN: Duration = Duration::from_secs(300);

/// The keys at one moment.
#[derive(Debug)]
pub(super) struct KeyRing {
    /// The one that signs.
    pub(super) signing: Arc<SigningKey>,
    /// All that are published, as a JWK Set (RFC 7517 §5).
    pub(super) jwks: Bytes,
    /// The longest life of a token that any of them has signed.
    pub(super) longest_life: Duration,
    /// When this changes next.
    pub(super) until: Timestamp,
}

/// What is to be done about keys.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Plan {
    /// A key is to be made that signs from then on.
    create: Option<Timestamp>,
    /// The places of those that are kept.
    keep: Vec<usize>,
    /// When to look again.
    until: Timestamp,
}

/// How keys are to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) algorithm: Algorithm,
    pub(super) rotation: Duration,
    pub(super) token_lifetime: Duration,
}

/// What a plan needs to know of a key.
#[derive(Debug, Clone, Copy)]
struct Facts {
    algorithm: Algorithm,
    signs_from: Timestamp,
    longest_life: Duration,
}

/// How long before it signs a key is published, so that everybody who keeps a copy of the key set has it by then: a day,
/// and for short rotations half of one.
pub(super) fn ahead(rotation: Duration) -> Duration {
    AHEAD.min(rotation / 2)
}

/// `keys` in the order in which they sign.
fn plan(keys: &[Facts], rules: Rules, now: Timestamp) -> Plan {
    let started = keys.partition_point(|key| key.signs_from <= now);
    let ahead = ahead(rules.rotation);
    let mut until = now.plus(rules.rotation);
    let mut keep = Vec::new();
    for (place, key) in keys.iter().enumerate().take(started.saturating_sub(1)) {
        let successor = keys.get(place + 1).map_or(now, |next| next.signs_from);
        let end = successor.plus(key.longest_life).plus(MARGIN);
        if end > now {
            keep.push(place);
            until = until.min(end);
        }
    }
    let current = started.checked_sub(1).and_then(|place| Some((place, keys.get(place)?)));
    let next = keys.iter().enumerate().skip(started).find(|(_, key)| key.algorithm == rules.algorithm);
    let create = match current {
        Some((place, current)) => {
            keep.push(place);
            let due = current.signs_from.plus(rules.rotation);
            if current.algorithm != rules.algorithm {
                Some(now)
            } else if let Some((place, next)) = next {
                keep.push(place);
                until = until.min(next.signs_from);
                None
            } else if due.minus(ahead) <= now {
                Some(due.max(now.plus(ahead)))
            } else {
                until = until.min(due.minus(ahead));
                None
            }
        }
        None => Some(now),
    };
    Plan { create, keep, until }
}

/// Brings the stored keys to what the rules ask for at `now`.
///
/// # Errors
/// When the store cannot be used, holds a key that is none, or the system gives no random numbers.
pub(super) async fn rotate(store: &Store, rules: Rules, now: Timestamp) -> Result<KeyRing, StoreError> {
    let stored = store.transact(rows::signing_keys).await?;
    let mut keys = stored.clone();
    loop {
        let plan = plan(&keys.iter().map(facts).collect::<Vec<_>>(), rules, now);
        keys = plan.keep.iter().filter_map(|&place| keys.get(place).cloned()).collect();
        let Some(signs_from) = plan.create else {
            lengthen(&mut keys, rules, now);
            if keys != stored {
                let wanted = keys.clone();
                store.transact(move |db| rows::replace_signing_keys(db, &wanted)).await?;
            }
            return ring(&keys, plan.until, now);
        };
        let key = create(rules, signs_from).await?;
        info!(kid = &*key.kid, algorithm = ?rules.algorithm, %signs_from, "a signing key was made");
        keys.push(key);
        keys.sort_by_key(|key| key.signs_from);
    }
}

fn facts(key: &KeyRow) -> Facts {
    let longest_life = Duration::from_millis(u64::try_from(key.longest_life).unwrap_or(0));
    Facts { algorithm: key.algorithm, signs_from: key.signs_from, longest_life }
}

/// The tokens of the key that signs live as long as they may now, or as they might before.
fn lengthen(keys: &mut [KeyRow], rules: Rules, now: Timestamp) {
    let life = i64::try_from(rules.token_lifetime.as_millis()).unwrap_or(i64::MAX);
    let started = keys.partition_point(|key| key.signs_from <= now);
    for key in keys.iter_mut().skip(started.saturating_sub(1)) {
        key.longest_life = key.longest_life.max(life);
    }
}

async fn create(rules: Rules, signs_from: Timestamp) -> Result<KeyRow, StoreError> {
    let failed = || StoreError::Failed("a signing key could not be made".to_owned());
    let algorithm = rules.algorithm;
    // An RSA key takes a good part of a second, and nothing else should wait for it.
    let made = tokio::task::spawn_blocking(move || {
        let private = SigningKey::generate(algorithm).ok()?;
        let key = SigningKey::from_pkcs8(algorithm, &private)?;
        let kid = key.kid().into();
        Some(KeyRow { kid, algorithm, private, signs_from, longest_life: 0 })
    });
    made.await.ok().flatten().ok_or_else(failed)
}

fn ring(keys: &[KeyRow], until: Timestamp, now: Timestamp) -> Result<KeyRing, StoreError> {
    let mut signing = None;
    let mut published: Vec<Value> = Vec::with_capacity(keys.len());
    for row in keys {
        let key = SigningKey::from_pkcs8(row.algorithm, &row.private)
            .ok_or_else(|| StoreError::Failed(format!("the stored signing key {} is none", row.kid)))?;
        published.push(key.jwk().clone());
        if row.signs_from <= now {
            signing = Some(Arc::new(key));
        }
    }
    let signing = signing.ok_or_else(|| StoreError::Failed("there is no signing key".to_owned()))?;
    let longest_life = keys.iter().map(|row| facts(row).longest_life).max().unwrap_or_default();
    Ok(KeyRing { signing, jwks: json!({ "keys": published }).to_string().into(), longest_life, until })
}

/// The public halves of the stored keys as a JWK Set; `None` when there are none yet.
///
/// # Errors
/// When the store cannot be read.
pub async fn stored_key_set(store: &Store, now: Timestamp) -> Result<Option<Bytes>, StoreError> {
    let keys = store.transact(rows::signing_keys).await?;
    if keys.is_empty() { Ok(None) } else { ring(&keys, now, now).map(|ring| Some(ring.jwks)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);
    const HOUR: Duration = Duration::from_secs(3600);
    const START: Timestamp = Timestamp::from_secs(1_000_000_000);
    const RULES: Rules = Rules {
        algorithm: Algorithm::ES256,
        rotation: Duration::from_secs(30 * 24 * 3600),
        token_lifetime: HOUR,
    };

    fn key(signs_from: Timestamp) -> Facts {
        Facts { algorithm: Algorithm::ES256, signs_from, longest_life: HOUR }
    }

    #[test]
    fn a_key_is_published_a_day_before_it_signs_and_kept_an_hour_after() {
        let days = |days: u32| START.plus(DAY * days);
        assert_eq!(plan(&[], RULES, START), Plan { create: Some(START), keep: vec![], until: days(30) });
        let keys = [key(START)];
        assert_eq!(plan(&keys, RULES, START), Plan { create: None, keep: vec![0], until: days(29) });
        assert_eq!(plan(&keys, RULES, days(29)).create, Some(days(30)));
        assert_eq!(plan(&keys, RULES, days(300)).create, Some(days(301)), "also after a long sleep");

        let keys = [key(START), key(days(30))];
        assert_eq!(plan(&keys, RULES, days(29)), Plan { create: None, keep: vec![0, 1], until: days(30) });
        let end = days(30).plus(HOUR).plus(MARGIN);
        assert_eq!(plan(&keys, RULES, days(30)), Plan { create: None, keep: vec![0, 1], until: end });
        assert_eq!(plan(&keys, RULES, end), Plan { create: None, keep: vec![1], until: days(59) });
    }

    #[test]
    fn another_algorithm_signs_at_once_and_the_tokens_of_the_old_one_live_on() {
        let rules = Rules { algorithm: Algorithm::EdDSA, ..RULES };
        let keys = [key(START), key(START.plus(DAY * 30))];
        let now = START.plus(DAY * 29);
        let planned = plan(&keys, rules, now);
        assert_eq!((planned.create, planned.keep), (Some(now), vec![0]), "the next one of the old kind goes");
        let keys = [key(START), Facts { algorithm: Algorithm::EdDSA, ..key(now) }];
        assert_eq!(plan(&keys, rules, now).keep, [0, 1]);
    }

    #[tokio::test]
    async fn keys_survive_a_restart_and_take_turns() {
        let store = Store::in_memory(START).unwrap();
        let rules =
            Rules { rotation: Duration::from_secs(60), token_lifetime: Duration::from_secs(10), ..RULES };
        let first = rotate(&store, rules, START).await.unwrap();
        let again = rotate(&store, rules, START).await.unwrap();
        assert_eq!((first.signing.kid(), &first.jwks), (again.signing.kid(), &again.jwks));

        let ahead = rotate(&store, rules, first.until).await.unwrap();
        assert_eq!(ahead.signing.kid(), first.signing.kid());
        let published = |ring: &KeyRing| -> Vec<String> {
            let jwks: Value = serde_json::from_slice(&ring.jwks).unwrap();
            jwks["keys"]
                .as_array()
                .unwrap()
                .iter()
                .map(|key| key["kid"].as_str().unwrap().to_owned())
                .collect()
        };
        let [_, next] = published(&ahead).try_into().unwrap();
        let turned = rotate(&store, rules, ahead.until).await.unwrap();
        assert_eq!(turned.signing.kid(), next);
        assert!(published(&turned).contains(&first.signing.kid().to_owned()));
        let later =
            rotate(&store, rules, ahead.until.plus(Duration::from_secs(10)).plus(MARGIN)).await.unwrap();
        assert!(!published(&later).contains(&first.signing.kid().to_owned()));
        assert!(stored_key_set(&store, ahead.until).await.unwrap().is_some());
    }
}
