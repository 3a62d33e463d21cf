//! Which key signs when: each key is published before it signs, and kept until the last token it signed has expired.
//!
//! Keys rotate by running time, which never steps (see `state::uptime`); the wall clock may be wrong by years at any start.
//! It decides only together with running time, and only about deletion: a key is deleted when both agree that its last
//! token has expired. What the time in which no gate runs does to keys: nothing. They rotate and expire later.

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
const MARGIN: Duration = Duration::from_secs(300);
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
enum Standing {
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
struct Plan {
    /// Of each key, in their order.
    standings: Vec<Standing>,
    /// A key is to be made that signs from then on.
    create: Option<Monotonic>,
    /// When to look again.
    until: Monotonic,
}

/// How much of a plan is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
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
        self.longest_life.saturating_add(rules.leeway).saturating_add(MARGIN)
    }

    /// Whether both clocks say that its last token has expired. Either alone may be wrong: the wall clock by being years
    /// ahead now, running time because a wall clock that was ahead dated tokens into the future.
    fn is_expired(&self, retired: Monotonic, rules: Rules, now: Now) -> bool {
        let margin = rules.leeway.saturating_add(MARGIN);
        let by_wall = self.expires_by.is_none_or(|end| end.plus(margin) <= now.wall);
        by_wall && retired.plus(self.afterlife(rules)) <= now.monotonic
    }

    fn standing(&self, is_signing: bool, rules: Rules, now: Now) -> Standing {
        match self.retired {
            Some(retired) if self.is_expired(retired, rules, now) => Standing::Expired,
            Some(_) => Standing::Retired,
            None if is_signing => Standing::Signing,
            None if self.has_started(now) => Standing::Superseded,
            None if self.algorithm == rules.algorithm => Standing::Next,
            None => Standing::Unwanted,
        }
    }
}

/// Where each key stands. `keys` in the order in which they sign.
fn classify(keys: &[Facts], rules: Rules, now: Now) -> Vec<Standing> {
    let can_sign = |key: &Facts| key.retired.is_none() && key.algorithm == rules.algorithm;
    let started = keys.iter().rposition(|key| can_sign(key) && key.has_started(now));
    // In a file whose running time was set back, the first to sign has perhaps not started; it signs all the same.
    let signing = started.or_else(|| keys.iter().position(can_sign));
    let of = |(place, key): (usize, &Facts)| key.standing(signing == Some(place), rules, now);
    keys.iter().enumerate().map(of).collect()
}

/// What the rules ask for at `now`. `keys` in the order in which they sign.
fn plan(keys: &[Facts], rules: Rules, now: Now) -> Plan {
    let standings = classify(keys, rules, now);
    let first = |wanted| keys.iter().zip(&standings).find(|(_, standing)| **standing == wanted);
    let now = now.monotonic;
    let ends = keys.iter().filter_map(|key| Some(key.retired?.plus(key.afterlife(rules))));
    // A key that only the wall clock keeps has no such end; it is looked at again anyway.
    let mut until = ends.filter(|end| *end > now).min().unwrap_or(now.plus(rules.rotation));
    let create = match (first(Standing::Signing), first(Standing::Next)) {
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
    Plan { standings, create, until }
}

/// Brings the stored keys to what the rules ask for at `now`. `latest` is the latest `exp` of a token that was signed in
/// this process.
///
/// # Errors
/// When the store cannot be used, holds something that is no key, or the random number generator fails.
pub(super) async fn rotate(
    store: &Store,
    rules: Rules,
    now: Now,
    latest: Timestamp,
    extent: Extent,
) -> Result<KeyRing, StoreError> {
    let uptime = store.uptime();
    let stored = store.transact(rows::signing_keys).await?;
    let mut keys = stored.clone();
    adopt(&mut keys, rules, now, uptime);
    let plan = loop {
        let plan = plan(&facts(&keys, uptime), rules, now);
        let Some(signs_from) = plan.create else { break plan };
        let key = create(rules, now, uptime.at(signs_from)).await?;
        info!(kid = &*key.kid, algorithm = ?rules.algorithm, "a signing key was created");
        keys.push(key);
        keys.sort_by_key(|key| key.signs_uptime);
    };
    let mut deleted = Vec::new();
    for (key, standing) in keys.iter_mut().zip(&plan.standings) {
        match standing {
            Standing::Signing => record(key, rules, now, latest),
            Standing::Superseded if extent == Extent::Whole => {
                key.retired_uptime = Some(uptime.at(now.monotonic));
                key.expires_by = key.expires_by.max(Some(latest));
            }
            Standing::Expired | Standing::Unwanted if extent == Extent::Whole => {
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
        info!(kid = &*kid, "a signing key was deleted: no token of it can be alive");
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
    let failed = || StoreError::Failed("a signing key could not be created".to_owned());
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

fn ring(keys: &[(&KeyRow, &Standing)], until: Monotonic) -> Result<KeyRing, StoreError> {
    let mut signing = None;
    let mut published: Vec<Value> = Vec::with_capacity(keys.len());
    for (row, standing) in keys {
        let key = signing_key(row)?;
        published.push(key.jwk().clone());
        if **standing == Standing::Signing {
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
    let broken = || StoreError::Failed(format!("the stored signing key {} is not a key", row.kid));
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
mod tests {
    use super::*;
    use crate::authority::ALGORITHMS;

    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(24 * 3600);
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    /// By both clocks; long after the start of the process.
    const START: Now = Now::at_millis(1_000_000_000_000);
    const LEEWAY: Duration = Duration::from_secs(30);
    const RULES: Rules = Rules {
        algorithm: Algorithm::ES256,
        rotation: Duration::from_secs(30 * 24 * 3600),
        token_lifetime: HOUR,
        leeway: LEEWAY,
    };
    const EDDSA: Rules = Rules { algorithm: Algorithm::EdDSA, ..RULES };

    /// A key that has signed nothing.
    fn next(signs_from: Now) -> Facts {
        Facts {
            algorithm: Algorithm::ES256,
            signs_from: signs_from.monotonic,
            retired: None,
            longest_life: Duration::ZERO,
            expires_by: None,
        }
    }

    /// A key whose tokens were last recorded at some moment.
    fn signing(signs_from: Now, recorded: Now) -> Facts {
        let expires_by = Some(recorded.wall.plus(HOUR + RECORDED_AHEAD));
        Facts { longest_life: HOUR, expires_by, ..next(signs_from) }
    }

    fn retired(at: Now) -> Facts {
        Facts { retired: Some(at.monotonic), ..signing(START, at) }
    }

    fn days(days: u32) -> Now {
        START.plus(DAY * days)
    }

    fn wall_off(now: Now, ahead: bool, by: Duration) -> Now {
        Now { wall: if ahead { now.wall.plus(by) } else { now.wall.minus(by) }, ..now }
    }

    #[test]
    fn a_key_is_published_a_day_before_it_signs_and_kept_after_its_last_token() {
        use Standing::{Expired, Next, Retired, Signing, Superseded};
        let is = |keys: &[Facts], now: Now, standings: &[Standing], create: Option<Now>, until: Now| {
            let create = create.map(|at| at.monotonic);
            let expected = Plan { standings: standings.to_vec(), create, until: until.monotonic };
            assert_eq!(plan(keys, RULES, now), expected);
        };
        is(&[], START, &[], Some(START), days(30));
        let first = signing(START, START);
        is(&[first], START, &[Signing], None, days(29));
        is(&[first], days(29), &[Signing], Some(days(30)), days(59));
        is(&[first], days(300), &[Signing], Some(days(301)), days(330));

        let keys = [first, next(days(30))];
        is(&keys, days(29), &[Signing, Next], None, days(30));
        is(&keys, days(30), &[Superseded, Signing], None, days(59));
        let keys = [retired(days(30)), signing(days(30), days(30))];
        let end = days(30).plus(HOUR + LEEWAY + MARGIN);
        is(&keys, days(30), &[Retired, Signing], None, end);
        // The record was ahead of the clock, so the wall clock agrees a little later.
        is(&keys, end, &[Retired, Signing], None, days(59));
        is(&keys, end.plus(RECORDED_AHEAD), &[Expired, Signing], None, days(59));
    }

    #[test]
    fn no_step_of_the_wall_clock_changes_which_key_signs_or_deletes_one_that_may_be_needed() {
        let keys = [retired(days(30)), signing(days(30), days(30)), next(days(60))];
        let sizes = [20 * SECOND, HOUR, DAY, 40 * YEAR];
        for (now, expected) in [
            (days(30).plus(HOUR), [Standing::Retired, Standing::Signing, Standing::Next]),
            (days(60).plus(HOUR), [Standing::Expired, Standing::Superseded, Standing::Signing]),
        ] {
            assert_eq!(classify(&keys, RULES, now), expected);
            for (ahead, by) in [true, false].into_iter().flat_map(|ahead| sizes.map(|by| (ahead, by))) {
                let found = classify(&keys, RULES, wall_off(now, ahead, by));
                // A clock far behind keeps what is over, until it is right again.
                assert_eq!(found[1..], expected[1..], "{ahead} {by:?}");
                let keeps = found[0] == Standing::Retired;
                assert!(keeps || found[0] == expected[0], "{ahead} {by:?}: {:?}", found[0]);
            }
        }
        // Tokens that a clock ahead dated into the future are alive when both the clock and the time have come.
        let dated = Facts { expires_by: Some(days(400).wall), ..retired(days(30)) };
        for (day, expected) in [(31, Standing::Retired), (399, Standing::Retired), (401, Standing::Expired)] {
            assert_eq!(classify(&[dated, keys[1]], RULES, days(day))[0], expected, "{day}");
        }
    }

    #[test]
    fn another_algorithm_signs_at_once_and_the_keys_of_living_tokens_stay() {
        use Standing::{Next, Signing, Superseded, Unwanted};
        let now = days(29);
        let keys = [signing(START, now), next(days(30))];
        let planned = plan(&keys, EDDSA, now);
        assert_eq!((planned.create, planned.standings), (Some(now.monotonic), vec![Superseded, Unwanted]));
        // Made and recorded by the plan of a reload; the running configuration keeps its own key.
        let made = Facts { algorithm: Algorithm::EdDSA, ..signing(now, now) };
        let keys = [keys[0], made, keys[1]];
        assert_eq!(classify(&keys, EDDSA, now), [Superseded, Signing, Unwanted]);
        assert_eq!(classify(&keys, RULES, now), [Signing, Superseded, Next], "it may have signed");
    }

    #[test]
    fn a_file_whose_running_time_was_set_back_still_signs_with_what_it_has() {
        let before = Now::at_millis(0);
        let planned = plan(&[next(days(30))], RULES, before);
        assert_eq!((planned.create, planned.standings), (None, vec![Standing::Signing]));
    }

    fn kids(ring: &KeyRing) -> Vec<String> {
        let jwks: Value = serde_json::from_slice(&ring.jwks).unwrap();
        jwks["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    }

    async fn whole(store: &Store, rules: Rules, now: Now) -> KeyRing {
        rotate(store, rules, now, Timestamp::EPOCH, Extent::Whole).await.unwrap()
    }

    #[tokio::test]
    async fn keys_survive_a_restart_and_rotate() {
        let store = Store::in_memory(START).unwrap();
        let rules = Rules { rotation: Duration::from_secs(60), token_lifetime: 10 * SECOND, ..RULES };
        let first = whole(&store, rules, START).await;
        let again = whole(&store, rules, START).await;
        assert_eq!((first.signing.kid(), &first.jwks), (again.signing.kid(), &again.jwks));
        let at = |moment: Monotonic| START.plus(moment.since(START.monotonic));
        let ahead = whole(&store, rules, at(first.until)).await;
        assert_eq!(ahead.signing.kid(), first.signing.kid());
        let [_, next] = kids(&ahead).try_into().unwrap();
        let rotated = whole(&store, rules, at(ahead.until)).await;
        assert_eq!(rotated.signing.kid(), next);
        let is_first = |kid: &String| kid == first.signing.kid();
        assert!(kids(&rotated).iter().any(is_first));
        let late = at(ahead.until).plus(10 * SECOND + LEEWAY + MARGIN + RECORDED_AHEAD);
        assert!(!kids(&whole(&store, rules, late).await).iter().any(is_first));
        assert!(stored_key_set(&store).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_reload_that_is_refused_leaves_the_key_that_signs() {
        let store = Store::in_memory(START).unwrap();
        let first = whole(&store, RULES, START).await;
        let planned = rotate(&store, EDDSA, START, Timestamp::EPOCH, Extent::Additions).await.unwrap();
        assert_ne!(planned.signing.kid(), first.signing.kid());
        assert_eq!(kids(&planned).len(), 2);
        let refused = whole(&store, RULES, START.plus(SECOND)).await;
        assert_eq!(refused.signing.kid(), first.signing.kid());
        assert_eq!(kids(&refused).len(), 2, "it may have signed");
        let planned = rotate(&store, EDDSA, START, Timestamp::EPOCH, Extent::Additions).await.unwrap();
        let committed = whole(&store, EDDSA, START.plus(SECOND)).await;
        assert_eq!(committed.signing.kid(), planned.signing.kid());
    }

    #[tokio::test]
    async fn the_keys_of_an_earlier_release_are_all_kept_whatever_the_clock_says() {
        for (ahead, by) in [(true, Duration::ZERO), (true, 40 * YEAR), (false, HOUR), (false, 30 * YEAR)] {
            let store = Store::in_memory(START).unwrap();
            let mut kids_before = Vec::new();
            for signs_from in [START, days(30), days(60)] {
                let key = create(RULES, signs_from, 0).await.unwrap();
                kids_before.push(key.kid.to_string());
                let key = KeyRow { signs_uptime: None, longest_life: 3_600_000, ..key };
                store.transact(move |db| rows::put_signing_key(db, &key)).await.unwrap();
            }
            let now = wall_off(days(60).plus(HOUR), ahead, by);
            let ring = whole(&store, RULES, now).await;
            assert_eq!(ring.signing.kid(), kids_before[2], "{ahead} {by:?}");
            assert!(kids_before.iter().all(|kid| kids(&ring).contains(kid)), "{ahead} {by:?}");
            let right = days(60).plus(2 * HOUR + RECORDED_AHEAD + LEEWAY + MARGIN);
            let ring = whole(&store, RULES, right).await;
            assert_eq!(ring.signing.kid(), kids_before[2]);
        }
    }

    /// A small generator of random numbers, the same for a seed on every machine.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % sides
        }
    }

    struct Token {
        kid: String,
        /// By a clock that was further ahead than the margin.
        is_dated_ahead: bool,
        issued_at: Timestamp,
        expires_at: Timestamp,
    }

    /// Real time, the clocks of a gate, and what the gate has issued.
    struct World {
        dice: Dice,
        rules: Rules,
        real: Timestamp,
        monotonic: Monotonic,
        /// How far the wall clock is ahead, in milliseconds.
        offset: i64,
        latest: Timestamp,
        published: Vec<String>,
        tokens: Vec<Token>,
    }

    impl World {
        fn new(seed: u64) -> Self {
            Self {
                dice: Dice(seed),
                rules: Rules { rotation: 40 * HOUR, ..RULES },
                real: START.wall,
                monotonic: START.monotonic,
                offset: 0,
                latest: Timestamp::EPOCH,
                published: Vec::new(),
                tokens: Vec::new(),
            }
        }

        /// Something happens; whether it was a reload that may bring a key that was not published before.
        fn happen(&mut self) -> bool {
            match self.dice.roll(12) {
                0 => self.offset = 0,
                1 => {
                    let size = [20_000, 3_600_000, 86_400_000, 1_000_000_000_000][self.dice.roll(4) as usize];
                    self.offset = if self.dice.roll(2) == 0 { size } else { -size };
                }
                // A crash forgets the running time since the last look, and what was not recorded.
                2 => (self.monotonic, self.latest) = (self.monotonic.minus(LOOK_AGAIN), Timestamp::EPOCH),
                // No gate runs for a while.
                3 => self.real = self.real.plus(HOUR * self.dice.roll(48) as u32),
                4 => self.rules.token_lifetime = HOUR * (1 + self.dice.roll(6) as u32),
                5 if self.dice.roll(10) == 0 => {
                    self.rules.algorithm = ALGORITHMS[self.dice.roll(2) as usize * 2];
                    return true;
                }
                _ => {
                    let passed = Duration::from_secs(60 * self.dice.roll(300));
                    (self.real, self.monotonic) = (self.real.plus(passed), self.monotonic.plus(passed));
                }
            }
            false
        }

        fn now(&self) -> Now {
            Now {
                wall: Timestamp::from_millis(self.real.as_millis() + self.offset),
                monotonic: self.monotonic,
            }
        }

        /// The gate looks at its keys and issues a token.
        async fn look(&mut self, store: &Store, may_be_new: bool, place: &str) {
            let (now, rules) = (self.now(), self.rules);
            let ring = rotate(store, rules, now, self.latest, Extent::Whole).await.unwrap();
            let (before, kid) =
                (std::mem::replace(&mut self.published, kids(&ring)), ring.signing.kid().to_owned());
            assert!(self.published.contains(&kid), "{place}");
            assert!(
                before.is_empty() || may_be_new || before.contains(&kid),
                "{place}: not published before"
            );
            let (issued_at, expires_at) = (now.wall, now.wall.plus(rules.token_lifetime));
            assert!(expires_at <= ring.recorded_until, "{place}: not recorded");
            self.latest = self.latest.max(expires_at);
            let is_dated_ahead = issued_at > self.real.plus(MARGIN);
            self.tokens.push(Token { kid, is_dated_ahead, issued_at, expires_at });
        }

        fn forget_what_is_over(&mut self) {
            let (real, wall) = (self.real, self.now().wall);
            self.tokens.retain(|token| {
                let is_over_by_clock = token.expires_at.plus(LEEWAY + MARGIN) < wall;
                token.expires_at.plus(LEEWAY) >= real && !(token.is_dated_ahead && is_over_by_clock)
            });
        }

        fn the_keys_of_living_tokens_are_published(&self, place: &str) {
            let living = self.tokens.iter().filter(|token| token.issued_at <= self.real.plus(LEEWAY));
            for token in living {
                assert!(self.published.contains(&token.kid), "{place}: the key of a living token is gone");
            }
        }
    }

    /// Steps of real time and of the clocks, restarts, reloads. Whatever happens: the key that signs is published; a token
    /// that is alive by the right clock has its key; and a key that takes over was published before.
    ///
    /// One limit: a token that was dated into the future by a wrong clock loses its key when the clock is wrong once more,
    /// so far ahead that the token has expired by it, after another key took over.
    #[tokio::test]
    async fn no_clock_restart_or_reload_loses_the_key_of_a_living_token() {
        for seed in 1..=4 {
            let (mut world, store) = (World::new(seed), Store::in_memory(START).unwrap());
            for step in 0..1_500 {
                let place = format!("seed {seed}, step {step}");
                let may_be_new = world.happen();
                world.forget_what_is_over();
                world.look(&store, may_be_new, &place).await;
                world.the_keys_of_living_tokens_are_published(&place);
            }
        }
    }
}
