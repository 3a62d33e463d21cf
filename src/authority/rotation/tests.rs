//! Keys through time: where each stands, and what is planned about it, by tables and at random.

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
    use KeyStanding::{Expired, Next, Retired, Signing, Superseded};
    let is = |keys: &[Facts], now: Now, standings: &[KeyStanding], create: Option<Now>, until: Now| {
        let create = create.map(|at| at.monotonic);
        let expected = RotationPlan { standings: standings.to_vec(), create, until: until.monotonic };
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
    let end = days(30).plus(HOUR + LEEWAY + KEY_MARGIN);
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
        (days(30).plus(HOUR), [KeyStanding::Retired, KeyStanding::Signing, KeyStanding::Next]),
        (days(60).plus(HOUR), [KeyStanding::Expired, KeyStanding::Superseded, KeyStanding::Signing]),
    ] {
        assert_eq!(classify(&keys, RULES, now), expected);
        for (ahead, by) in [true, false].into_iter().flat_map(|ahead| sizes.map(|by| (ahead, by))) {
            let found = classify(&keys, RULES, wall_off(now, ahead, by));
            // A clock far behind keeps expired keys until it is right again.
            assert_eq!(found[1..], expected[1..], "{ahead} {by:?}");
            let keeps = found[0] == KeyStanding::Retired;
            assert!(keeps || found[0] == expected[0], "{ahead} {by:?}: {:?}", found[0]);
        }
    }
    // Tokens that a clock ahead dated into the future are alive when both the clock and the time have come.
    let dated = Facts { expires_by: Some(days(400).wall), ..retired(days(30)) };
    for (day, expected) in
        [(31, KeyStanding::Retired), (399, KeyStanding::Retired), (401, KeyStanding::Expired)]
    {
        assert_eq!(classify(&[dated, keys[1]], RULES, days(day))[0], expected, "{day}");
    }
}

#[test]
fn another_algorithm_signs_at_once_and_the_keys_of_living_tokens_stay() {
    use KeyStanding::{Next, Signing, Superseded, Unwanted};
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
    assert_eq!((planned.create, planned.standings), (None, vec![KeyStanding::Signing]));
}

fn kids(ring: &KeyRing) -> Vec<String> {
    let jwks: Value = serde_json::from_slice(&ring.jwks).unwrap();
    jwks["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

async fn whole(store: &Store, rules: Rules, now: Now) -> KeyRing {
    rotate(store, rules, now, Timestamp::EPOCH, PlanExtent::Whole).await.unwrap()
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
    let late = at(ahead.until).plus(10 * SECOND + LEEWAY + KEY_MARGIN + RECORDED_AHEAD);
    assert!(!kids(&whole(&store, rules, late).await).iter().any(is_first));
    assert!(stored_key_set(&store).await.unwrap().is_some());
}

#[tokio::test]
async fn the_store_holds_the_keys_that_are_published_and_a_plan_deletes_none() {
    let store = Store::in_memory(START).unwrap();
    assert_eq!(stored_key_set(&store).await.unwrap(), None);
    let first = whole(&store, RULES, START).await;
    assert_eq!(stored_key_set(&store).await.unwrap().as_ref(), Some(&first.jwks));
    let [_, next] = kids(&whole(&store, RULES, days(29)).await).try_into().unwrap();
    let additions = rotate(&store, EDDSA, days(29), Timestamp::EPOCH, PlanExtent::Additions).await.unwrap();
    assert!(kids(&additions).contains(&next), "the running configuration may still sign with it");
    let changed = whole(&store, EDDSA, days(29)).await;
    assert!(!kids(&changed).contains(&next));
    let mut stored =
        store.transact(rows::signing_keys).await.unwrap().into_iter().map(|key| key.kid.to_string());
    assert!(stored.all(|kid| kid != next), "deleted for good");
}

#[tokio::test]
async fn a_key_of_an_earlier_release_counts_as_one_that_has_signed_until_now() {
    let store = Store::in_memory(START).unwrap();
    whole(&store, RULES, START).await;
    let uptime = store.uptime();
    let stored = store.transact(rows::signing_keys).await.unwrap().remove(0);
    let now = days(10);
    let earlier = KeyRow { signs_uptime: None, expires_by: None, signs_from: days(7).wall, ..stored };
    let mut keys = [earlier.clone()];
    adopt(&mut keys, RULES, now, uptime);
    assert_eq!(keys[0].signs_uptime, Some(uptime.at(days(7).monotonic)));
    assert_eq!(keys[0].expires_by, Some(now.wall.plus(HOUR)));
    let mut again = keys.clone();
    adopt(&mut again, RULES, days(20), uptime);
    assert_eq!(again[0].expires_by, keys[0].expires_by, "once");
}

#[tokio::test]
async fn a_reload_that_is_refused_leaves_the_key_that_signs() {
    let store = Store::in_memory(START).unwrap();
    let first = whole(&store, RULES, START).await;
    let planned = rotate(&store, EDDSA, START, Timestamp::EPOCH, PlanExtent::Additions).await.unwrap();
    assert_ne!(planned.signing.kid(), first.signing.kid());
    assert_eq!(kids(&planned).len(), 2);
    let refused = whole(&store, RULES, START.plus(SECOND)).await;
    assert_eq!(refused.signing.kid(), first.signing.kid());
    assert_eq!(kids(&refused).len(), 2, "it may have signed");
    let planned = rotate(&store, EDDSA, START, Timestamp::EPOCH, PlanExtent::Additions).await.unwrap();
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
        let right = days(60).plus(2 * HOUR + RECORDED_AHEAD + LEEWAY + KEY_MARGIN);
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
        Now { wall: Timestamp::from_millis(self.real.as_millis() + self.offset), monotonic: self.monotonic }
    }

    /// The gate looks at its keys and issues a token.
    async fn look(&mut self, store: &Store, may_be_new: bool, place: &str) {
        let (now, rules) = (self.now(), self.rules);
        let ring = rotate(store, rules, now, self.latest, PlanExtent::Whole).await.unwrap();
        let (before, kid) =
            (std::mem::replace(&mut self.published, kids(&ring)), ring.signing.kid().to_owned());
        assert!(self.published.contains(&kid), "{place}");
        assert!(before.is_empty() || may_be_new || before.contains(&kid), "{place}: not published before");
        let (issued_at, expires_at) = (now.wall, now.wall.plus(rules.token_lifetime));
        assert!(expires_at <= ring.recorded_until, "{place}: not recorded");
        self.latest = self.latest.max(expires_at);
        let is_dated_ahead = issued_at > self.real.plus(KEY_MARGIN);
        self.tokens.push(Token { kid, is_dated_ahead, issued_at, expires_at });
    }

    fn forget_what_is_over(&mut self) {
        let (real, wall) = (self.real, self.now().wall);
        self.tokens.retain(|token| {
            let is_over_by_clock = token.expires_at.plus(LEEWAY + KEY_MARGIN) < wall;
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
