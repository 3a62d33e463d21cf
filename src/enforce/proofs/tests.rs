//! How long proofs are kept, what they weigh, and that no two are confused.

use serde_json::{Value, json};

use super::*;
use crate::enforce::testing::{TestRequest, enforcer, issuers, payload, route, token};

fn limits(idle: Option<Duration>) -> Arc<ArcSwap<PerIssuer<SessionLimits>>> {
    let leeway = Duration::from_secs(30);
    Arc::new(ArcSwap::from_pointee(SessionLimits { idle, leeway, floor: None, own_floor: None }.into()))
}

fn verified(changes: Value) -> Arc<VerifiedToken> {
    let gate = enforcer(issuers(), vec![route("/{*rest}")]);
    TestRequest::new(&gate, "/x").token(&token(&payload(changes))).decide().token.expect("a token")
}

fn proof(generation: u64) -> Remembered {
    Remembered { token: verified(json!({})), generation }
}

fn key(number: u16) -> ProofKey {
    ProofKey(Key::from_bytes(u128::from(number).to_be_bytes()))
}

fn at(millis: i64) -> Monotonic {
    Monotonic::from_millis(1_000_000 + millis)
}

#[test]
fn a_proof_at_hand_serves_for_less_than_ten_seconds() {
    let (table, key) = (Proofs::new(10, limits(None)), key(1));
    let generation = |millis| table.get(key, at(millis)).map(|proof| proof.generation);
    table.put(key, proof(7), at(0));
    table.cache.invalidate(&key);
    for (millis, expected) in [(0, Some(7)), (9_999, Some(7)), (10_000, None), (10_001, None)] {
        assert_eq!(generation(millis), expected, "since it was made: {millis}");
    }
    table.put(key, proof(8), at(0));
    assert_eq!(generation(10_000), Some(8), "asked for again");
    table.cache.invalidate(&key);
    for (millis, expected) in [(19_999, Some(8)), (20_000, None)] {
        assert_eq!(generation(millis), expected, "since it was asked for: {millis}");
    }
}

#[test]
fn all_proofs_in_use_are_at_hand_up_to_a_share_of_the_table() {
    let (table, proof) = (Proofs::new(800, limits(None)), proof(1));
    assert_eq!(table.at_hand, 256);
    assert_eq!(Proofs::new(80_000, limits(None)).at_hand, 10_000);
    assert_eq!(Proofs::new(1_000_000, limits(None)).at_hand, 16 * 1024);
    let mut at_hand = AtHand::default();
    let put = |at_hand: &mut AtHand, numbers: std::ops::Range<u16>| {
        numbers.for_each(|number| at_hand.put(&table, key(number), proof.clone(), at(0)));
    };
    let found = |at_hand: &mut AtHand, numbers: std::ops::Range<u16>| {
        numbers.filter(|number| at_hand.get(&table, key(*number), at(1)).is_some()).count()
    };
    put(&mut at_hand, 0..256);
    assert_eq!(found(&mut at_hand, 0..256), 256);
    // One more begins a generation; what is used meanwhile stays, and what is not leaves with the one after.
    put(&mut at_hand, 256..257);
    assert_eq!(found(&mut at_hand, 0..100), 100);
    put(&mut at_hand, 257..500);
    assert_eq!(found(&mut at_hand, 0..256), 100);
    // However many are in use, there are no more than two generations of them.
    for _ in 0..5 {
        put(&mut at_hand, 1_000..1_200);
        found(&mut at_hand, 0..2_000);
        assert!((256..=512).contains(&at_hand.len()), "{}", at_hand.len());
    }
}

#[test]
fn a_proof_that_is_not_used_for_twenty_seconds_is_no_longer_at_hand() {
    let (table, mut at_hand, proof) = (Proofs::new(10, limits(None)), AtHand::default(), proof(1));
    for (millis, expected) in [(0, 1), (9_999, 2), (10_000, 3), (19_999, 4), (20_000, 3), (50_000, 2)] {
        let number = key(u16::try_from(millis).unwrap());
        at_hand.put(&table, number, proof.clone(), at(millis));
        assert_eq!(at_hand.len(), expected, "at {millis}");
    }
}

#[test]
fn tables_with_one_key_are_not_confused() {
    let (one, other) = (Proofs::new(10, limits(None)), Proofs::new(10, limits(None)));
    for number in [1, 2] {
        one.put(key(number), proof(number.into()), at(0));
    }
    let generation = |table: &Proofs, number| table.get(key(number), at(1)).map(|proof| proof.generation);
    for (number, expected) in [(1, Some(1)), (2, Some(2)), (3, None), (2, Some(2)), (1, Some(1))] {
        assert_eq!(generation(&one, number), expected, "{number}");
    }
    assert_eq!(generation(&other, 1), None);
    other.put(key(1), proof(9), at(0));
    for _ in 0..2 {
        assert_eq!((generation(&one, 1), generation(&other, 1)), (Some(1), Some(9)));
    }
}

#[test]
fn a_proof_is_kept_until_its_token_is_idle_or_dead() {
    let (key, proof) = (key(0), proof(1));
    let second = Duration::from_secs(1);
    // The token lives 610 seconds, plus two leeways and a second of grace.
    for (idle, created, read) in [
        (None, 671 * second, [(0, 671 * second), (600, 71 * second), (671, Duration::ZERO)]),
        (
            Some(60 * second),
            Duration::from_millis(68_500),
            [(0, Duration::from_millis(68_500)), (600, Duration::from_millis(68_500)), (670, second)],
        ),
        // At least as long as a worker keeps it in its own table.
        (Some(Duration::ZERO), 10 * second, [(0, second), (600, second), (671, Duration::ZERO)]),
    ] {
        let (lifetimes, start) = (Lifetimes(limits(idle)), Instant::now());
        assert_eq!(lifetimes.expire_after_create(&key, &proof, start), Some(created), "{idle:?}");
        for (age, expected) in read {
            let now = start + age * second;
            let left = lifetimes.expire_after_read(&key, &proof, now, Some(second), start);
            assert_eq!(left, Some(expected), "{idle:?} at {age}");
        }
    }
}

#[test]
fn a_proof_is_kept_by_the_idle_timeout_of_its_issuer() {
    let (proof, key, start) = (proof(1), key(1), Instant::now());
    let issuer: Arc<str> = payload(json!({}))["iss"].as_str().unwrap().into();
    let limits = |idle| SessionLimits { idle, leeway: Duration::from_secs(30), floor: None, own_floor: None };
    let minute = Some(Duration::from_secs(60));
    for (common, of, own, kept) in [
        (None, &issuer, minute, 68_500),
        (minute, &issuer, None, 671_000),
        (minute, &"https://other.example/".into(), None, 68_500),
    ] {
        let per = PerIssuer::new(limits(common), [(Arc::clone(of), limits(own))]);
        let lifetimes = Lifetimes(Arc::new(ArcSwap::from_pointee(per)));
        let created = lifetimes.expire_after_create(&key, &proof, start);
        assert_eq!(created, Some(Duration::from_millis(kept)), "{common:?} {of} {own:?}");
        let read = lifetimes.expire_after_read(&key, &proof, start, None, start);
        assert_eq!(read, created);
    }
}

#[test]
fn a_proof_weighs_what_it_takes_and_at_least_its_unit() {
    let small = verified(json!({}));
    assert!(OWN + small.size() < 2_048);
    assert_eq!(weight(&small), 2_048);
    for more in [0, 1] {
        let large = verified(json!({"roles": ["r".repeat(2_000 + more)]}));
        assert_eq!(weight(&large) as usize, 360 + large.size());
    }
}

#[test]
fn a_sweep_counts_what_was_put() {
    let table = Proofs::new(10, limits(None));
    table.put(key(1), proof(1), at(0));
    table.sweep();
    assert_eq!((table.cache.entry_count(), table.cache.weighted_size()), (1, 2_048));
}
