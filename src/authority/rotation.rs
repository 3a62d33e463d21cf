//! Signing key rotation: a key is published before it signs, and kept until the last token it signed has expired.
//!
//! Keys rotate by running time, which never jumps (see `state::uptime`); the wall clock may be wrong by years at any start.
//! It matters only for deletion, together with running time: a key is deleted when both agree that its last token has
//! expired. Time in which no gate runs only delays rotation and deletion.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tracing::info;

use super::rows::{self, KeyRow};
use super::signing::SigningKey;
use crate::state::uptime::Uptime;
use crate::state::{Store, StoreError};
use crate::time::{Monotonic, Now, Timestamp};

/// The longest that a key is published before it signs.
const AHEAD: Duration = Duration::from_secs(24 * 3600);
/// How much longer than its last token and the leeway a key is kept, for clocks that differ.
pub const KEY_MARGIN: Duration = Duration::from_secs(300);
/// How often keys are looked at when nothing is due: what a machine sleeps through is caught up by then, and running
/// time is counted in the store.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(300);
/// How far ahead it is recorded until when tokens of the signing key live: two looks, so that the record never lags.
const RECORDED_AHEAD: Duration = Duration::from_secs(600);

/// The keys at one moment.
#[derive(Debug)]
pub(super) struct KeyRing {
    /// The one that signs.
    pub(super) signing: Arc<SigningKey>,
    /// All that are published, as a JWK Set (RFC 7517 §5).
    pub(super) jwks: Bytes,
    /// The longest life of a token that any of them has signed.
    pub(super) longest_life: Duration,
    /// The last token that any of them has signed expires by then, as far as it was recorded.
    pub(super) last_expiry: Timestamp,
    /// Tokens of the signing key that expire later are not yet covered by the record.
    pub(super) recorded_until: Timestamp,
    /// When this changes next.
    pub(super) until: Monotonic,
}

/// What keys must be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) algorithm: Algorithm,
    pub(super) rotation: Duration,
    pub(super) token_lifetime: Duration,
    /// How long after its `exp` a token is accepted.
    pub(super) leeway: Duration,
}

/// What a plan needs to know of a key.
#[derive(Debug, Clone, Copy)]
struct Facts {
    algorithm: Algorithm,
    /// When it begins to sign.
    signs_from: Monotonic,
    /// When another key took over.
    retired: Option<Monotonic>,
    longest_life: Duration,
    /// All tokens it has signed expire by then; none: it has signed nothing.
    expires_by: Option<Timestamp>,
}

/// Where a key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyStanding {
    /// It is published and waits for its time. It has signed nothing.
    Next,
    /// It signs.
    Signing,
    /// Another key has taken over, which is still to be recorded.
    Superseded,
    /// It signs no more, and tokens of it may be alive.
    Retired,
    /// Its last token has expired by both clocks: it may be deleted.
    Expired,
    /// It has signed nothing, and its algorithm is no longer the one to sign with: it may be deleted.
    Unwanted,
}

/// What is to be done about keys.
#[derive(Debug, PartialEq, Eq)]
struct RotationPlan {
    /// Of each key, in their order.
    standings: Vec<KeyStanding>,
    /// A key is to be made that signs from then on.
    create: Option<Monotonic>,
    /// When to look again.
    until: Monotonic,
}

/// How much of a plan is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PlanExtent {
    /// All of it.
    Whole,
    /// Only what a reload may do before it is certain: keys are made and recorded, none retires and none is deleted.
    Additions,
}

/// How long before it signs a key is published, so that everybody who keeps a copy of the key set has it by then: a day,
/// and for short rotations half of one.
pub(super) fn ahead(rotation: Duration) -> Duration {
    AHEAD.min(rotation / 2)
}

impl Facts {
    fn has_started(&self, now: Now) -> bool {
        self.signs_from <= now.monotonic || self.expires_by.is_some()
    }

    /// How long after its retirement tokens of it may be alive.
    fn afterlife(&self, rules: Rules) -> Duration {
        self.longest_life.saturating_add(rules.leeway).saturating_add(KEY_MARGIN)
    }

    /// Whether both clocks say that its last token has expired. Either alone may be wrong: the wall clock by being years
    /// ahead now, running time because a wall clock that was ahead dated tokens into the future.
    fn is_expired(&self, retired: Monotonic, rules: Rules, now: Now) -> bool {
        let margin = rules.leeway.saturating_add(KEY_MARGIN);
        let by_wall = self.expires_by.is_none_or(|end| end.plus(margin) <= now.wall);
        by_wall && retired.plus(self.afterlife(rules)) <= now.monotonic
    }

    fn standing(&self, is_signing: bool, rules: Rules, now: Now) -> KeyStanding {
        match self.retired {
            Some(retired) if self.is_expired(retired, rules, now) => KeyStanding::Expired,
            Some(_) => KeyStanding::Retired,
            None if is_signing => KeyStanding::Signing,
            None if self.has_started(now) => KeyStanding::Superseded,
            None if self.algorithm == rules.algorithm => KeyStanding::Next,
            None => KeyStanding::Unwanted,
        }
    }
}

/// Where each key stands. `keys` in the order in which they sign.
fn classify(keys: &[Facts], rules: Rules, now: Now) -> Vec<KeyStanding> {
    let can_sign = |key: &Facts| key.retired.is_none() && key.algorithm == rules.algorithm;
    let started = keys.iter().rposition(|key| can_sign(key) && key.has_started(now));
    // In a file whose running time was set back, the first to sign has perhaps not started; it signs all the same.
    let signing = started.or_else(|| keys.iter().position(can_sign));
    let of = |(place, key): (usize, &Facts)| key.standing(signing == Some(place), rules, now);
    keys.iter().enumerate().map(of).collect()
}

/// What the rules ask for at `now`. `keys` in the order in which they sign.
fn plan(keys: &[Facts], rules: Rules, now: Now) -> RotationPlan {
    let standings = classify(keys, rules, now);
    let first = |wanted| keys.iter().zip(&standings).find(|(_, standing)| **standing == wanted);
    let now = now.monotonic;
    let ends = keys.iter().filter_map(|key| Some(key.retired?.plus(key.afterlife(rules))));
    // A key that only the wall clock keeps has no such end; it is looked at again anyway.
    let mut until = ends.filter(|end| *end > now).min().unwrap_or(now.plus(rules.rotation));
    let create = match (first(KeyStanding::Signing), first(KeyStanding::Next)) {
        (None, _) => Some(now),
        (Some(_), Some((next, _))) => {
            until = until.min(next.signs_from);
            None
        }
        (Some((signing, _)), None) => {
            let (due, ahead) = (signing.signs_from.plus(rules.rotation), ahead(rules.rotation));
            let is_due = due.minus(ahead) <= now;
            until = if is_due { until } else { until.min(due.minus(ahead)) };
            is_due.then(|| due.max(now.plus(ahead)))
        }
    };
    RotationPlan { standings, create, until }
}

/// Brings the stored keys to what the rules ask for at `now`. `latest` is the latest `exp` of a token that was signed in
/// this process.
///
/// # Errors
/// When the store cannot be used, holds something that is not a key, or the random number generator fails.
pub(super) async fn rotate(
    store: &Store,
    rules: Rules,
    now: Now,
    latest: Timestamp,
    extent: PlanExtent,
) -> Result<KeyRing, StoreError> {
    let uptime = store.uptime();
    let stored = store.transact(rows::signing_keys).await?;
    let mut keys = stored.clone();
    adopt(&mut keys, rules, now, uptime);
    let plan = loop {
        let plan = plan(&facts(&keys, uptime), rules, now);
        let Some(signs_from) = plan.create else { break plan };
        let key = create(rules, now, uptime.at(signs_from)).await?;
        info!(kid = &*key.kid, algorithm = ?rules.algorithm, "created a signing key");
        keys.push(key);
        keys.sort_by_key(|key| key.signs_uptime);
    };
    let mut deleted = Vec::new();
    for (key, standing) in keys.iter_mut().zip(&plan.standings) {
        match standing {
            KeyStanding::Signing => record(key, rules, now, latest),
            KeyStanding::Superseded if extent == PlanExtent::Whole => {
                key.retired_uptime = Some(uptime.at(now.monotonic));
                key.expires_by = key.expires_by.max(Some(latest));
            }
            KeyStanding::Expired | KeyStanding::Unwanted if extent == PlanExtent::Whole => {
                deleted.push(key.kid.clone())
            }
            _ => {}
        }
    }
    save(store, &stored, &keys, deleted.clone()).await?;
    let kept = keys.iter().zip(&plan.standings).filter(|(key, _)| !deleted.contains(&key.kid));
    ring(&kept.collect::<Vec<_>>(), plan.until)
}

/// Stores what is different, before anything is signed by it.
async fn save(
    store: &Store,
    stored: &[KeyRow],
    keys: &[KeyRow],
    deleted: Vec<Box<str>>,
) -> Result<(), StoreError> {
    let changed: Vec<KeyRow> =
        keys.iter().filter(|key| !stored.contains(key) && !deleted.contains(&key.kid)).cloned().collect();
    if changed.is_empty() && deleted.is_empty() {
        return Ok(());
    }
    let gone = deleted.clone();
    store
        .transact(move |db| {
            changed.iter().try_for_each(|key| rows::put_signing_key(db, key))?;
            deleted.iter().try_for_each(|kid| rows::delete_signing_key(db, kid))
        })
        .await?;
    for kid in gone {
        info!(kid = &*kid, "deleted a signing key: all tokens signed with it have expired");
    }
    Ok(())
}

fn facts(keys: &[KeyRow], uptime: Uptime) -> Vec<Facts> {
    let of = |key: &KeyRow| Facts {
        algorithm: key.algorithm,
        signs_from: uptime.moment(key.signs_uptime.unwrap_or(0)),
        retired: key.retired_uptime.map(|at| uptime.moment(at)),
        longest_life: life(key),
        expires_by: key.expires_by,
    };
    keys.iter().map(of).collect()
}

fn life(key: &KeyRow) -> Duration {
    Duration::from_millis(u64::try_from(key.longest_life).unwrap_or(0))
}

/// Gives the keys that an earlier release wrote a place in running time.
///
/// Only the wall clock says when they were to sign, and it may be wrong now. So each counts as one that has signed until
/// now: the last of them signs, the others retire now, and none can expire before a whole life has passed.
fn adopt(keys: &mut [KeyRow], rules: Rules, now: Now, uptime: Uptime) {
    for key in keys.iter_mut().filter(|key| key.signs_uptime.is_none()) {
        let age = now.wall.since(key.signs_from).min(rules.rotation);
        key.signs_uptime = Some(uptime.at(now.monotonic.minus(age)));
        key.expires_by = Some(now.wall.max(key.signs_from).plus(life(key)));
    }
}

/// Records, before it signs, how long its tokens live and until when.
fn record(key: &mut KeyRow, rules: Rules, now: Now, latest: Timestamp) {
    key.longest_life =
        key.longest_life.max(i64::try_from(rules.token_lifetime.as_millis()).unwrap_or(i64::MAX));
    let end = now.wall.plus(rules.token_lifetime).plus(RECORDED_AHEAD);
    key.expires_by = key.expires_by.max(Some(end.max(latest)));
}

async fn create(rules: Rules, now: Now, signs_uptime: i64) -> Result<KeyRow, StoreError> {
    let failed = || StoreError::Failed("cannot create a signing key".to_owned());
    let algorithm = rules.algorithm;
    // An RSA key takes a good part of a second, and nothing else should wait for it.
    let made = tokio::task::spawn_blocking(move || {
        let private = SigningKey::generate(algorithm).ok()?;
        let key = SigningKey::from_pkcs8(algorithm, &private)?;
        Some(KeyRow {
            kid: key.kid().into(),
            algorithm,
            private,
            signs_from: now.wall,
            longest_life: 0,
            signs_uptime: Some(signs_uptime),
            retired_uptime: None,
            expires_by: None,
        })
    });
    made.await.ok().flatten().ok_or_else(failed)
}

fn ring(keys: &[(&KeyRow, &KeyStanding)], until: Monotonic) -> Result<KeyRing, StoreError> {
    let mut signing = None;
    let mut published: Vec<Value> = Vec::with_capacity(keys.len());
    for (row, standing) in keys {
        let key = signing_key(row)?;
        published.push(key.jwk().clone());
        if **standing == KeyStanding::Signing {
            signing = Some((Arc::new(key), row.expires_by.unwrap_or_default()));
        }
    }
    let (signing, recorded_until) =
        signing.ok_or_else(|| StoreError::Failed("there is no signing key".to_owned()))?;
    let recorded = |(row, _): &(&KeyRow, _)| row.expires_by.unwrap_or_default().minus(RECORDED_AHEAD);
    Ok(KeyRing {
        signing,
        jwks: json!({ "keys": published }).to_string().into(),
        longest_life: keys.iter().map(|(row, _)| life(row)).max().unwrap_or_default(),
        last_expiry: keys.iter().map(recorded).max().unwrap_or_default(),
        recorded_until,
        until,
    })
}

fn signing_key(row: &KeyRow) -> Result<SigningKey, StoreError> {
    let broken = || StoreError::Failed(format!("the stored signing key {} is invalid", row.kid));
    SigningKey::from_pkcs8(row.algorithm, &row.private).ok_or_else(broken)
}

/// The public halves of the stored keys as a JWK Set; `None` when there are none yet.
///
/// # Errors
/// When the store cannot be read.
pub async fn stored_key_set(store: &Store) -> Result<Option<Bytes>, StoreError> {
    let keys = store.transact(rows::signing_keys).await?;
    if keys.is_empty() {
        return Ok(None);
    }
    let published: Vec<Value> =
        keys.iter().map(|row| Ok(signing_key(row)?.jwk().clone())).collect::<Result<_, StoreError>>()?;
    Ok(Some(json!({ "keys": published }).to_string().into()))
}

#[cfg(test)]
mod tests;
