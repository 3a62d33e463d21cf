//! What two gates know of each other through one Redis server, call by call.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a broken promise fails the test")]

use std::time::Duration;

use portcullis::identity::{Key, TokenKey};
use portcullis::metrics::Metrics;
use portcullis::sessions::{self, Sessions};
use portcullis::state::redis::endpoint::RedisEndpoint;
use portcullis::state::redis::{self, RedisTerms, SharedUse};
use portcullis::state::{AskedState, OpenError, Store, StreamLease};
use portcullis::time::Timestamp;
use testkit::redis_server::RedisServer;

use crate::transfer::{TERMS, follow};

const HOUR: Duration = Duration::from_secs(3_600);

fn settings(server: &RedisServer) -> redis::Settings {
    let endpoint = RedisEndpoint::parse(&server.url()).unwrap();
    redis::Settings { endpoint, events: None, ca: None, key_prefix: "t".to_owned() }
}

/// Two gates' ends of one server. Never stale, so that a test may take as long as it needs.
async fn two(server: &RedisServer) -> [Store; 2] {
    let settings = settings(server);
    let terms = RedisTerms { max_staleness: HOUR, ..TERMS };
    [follow(&settings, terms).await, follow(&settings, terms).await]
}

/// Calls until the server responds within its time, which a busy machine may take away.
async fn answered<T, E>(call: impl AsyncFn() -> Result<T, E>) -> T {
    for _ in 0..100 {
        if let Ok(answer) = call().await {
            return answer;
        }
    }
    panic!("the server does not respond");
}

#[tokio::test]
async fn a_gate_that_starts_is_told_that_it_must_not_use_the_server() {
    let server = RedisServer::start();
    let opened = async || {
        let (store, _changes) = Store::shared(settings(&server), TERMS, Metrics::new().unwrap()).unwrap();
        store.opened(HOUR).await
    };
    server.ask::<String>(&["CONFIG", "SET", "requirepass", "secret"]);
    let refused = opened().await.unwrap_err();
    assert!(matches!(refused, OpenError::Refused(_)), "{refused:?}");
    assert!(refused.to_string().contains("rejected the credentials"), "{refused}");
}

#[tokio::test]
async fn a_proof_is_used_once_and_a_nonce_key_is_the_same_in_all_gates() {
    let server = RedisServer::start();
    let [one, two] = two(&server).await;
    for (number, store, is_new) in [(1, &one, true), (1, &two, false), (1, &one, false), (2, &two, true)] {
        let claimed = store.claim_proof(Key::from_bytes([number; 16]), HOUR).await.unwrap();
        assert_eq!(claimed, is_new, "{number}");
    }
    for (period, store, fresh, key) in [(7, &one, 1, 1), (7, &two, 2, 1), (7, &one, 3, 1), (8, &two, 4, 4)] {
        assert_eq!(store.nonce_key(period, &[fresh; 32], HOUR).await.unwrap(), [key; 32], "{period} {fresh}");
    }
}

#[tokio::test]
async fn one_gate_holds_a_stream_and_all_know_what_was_asked_seen_and_said_of_it() {
    let server = RedisServer::start();
    let [one, two] = two(&server).await;
    let lease = |is_mine: bool, told: Option<&str>| (is_mine, told.map(str::to_owned));
    let held = async |store: &Store, holder: &str| {
        let StreamLease { is_mine, told } = answered(|| store.hold_stream("idp", holder, HOUR)).await;
        let told = told.map(|(text, left)| {
            assert!(left > HOUR / 2 && left <= HOUR, "{left:?}");
            text
        });
        (is_mine, told)
    };
    assert_eq!(held(&one, "one").await, lease(true, None));
    assert_eq!(held(&two, "two").await, lease(false, None));
    answered(|| one.leave_stream("idp", "two")).await;
    assert_eq!(held(&two, "two").await, lease(false, None), "it was left by who did not hold it");
    answered(|| one.leave_stream("idp", "one")).await;
    assert_eq!(held(&two, "two").await, lease(true, None));
    answered(|| one.tell_of_stream("idp", "silent", HOUR)).await;
    assert_eq!(held(&two, "two").await, lease(true, Some("silent")));

    let confirm = async |store: &Store, state: &str| {
        answered(|| store.confirm_state("idp", state, ("alive", HOUR))).await
    };
    assert_eq!(confirm(&two, "a").await, AskedState::Unknown);
    assert_eq!(held(&two, "two").await, lease(true, Some("silent")));
    answered(|| one.expect_state("idp", "a", HOUR)).await;
    assert_eq!(confirm(&two, "a").await, AskedState::First);
    assert_eq!(confirm(&one, "a").await, AskedState::Again);
    assert_eq!(held(&one, "one").await, lease(false, Some("alive")));

    let subjects = ["ada", "bob"].map(Box::from);
    answered(|| one.offer_subjects("idp", &subjects)).await;
    let mut taken = answered(|| two.take_subjects("idp")).await;
    taken.sort();
    assert_eq!(taken, subjects);
    let left = answered(|| one.take_subjects("idp")).await;
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_token_is_over_once_it_was_idle_for_the_timeout_of_its_issuer_in_all_gates() {
    let server = RedisServer::start();
    let [one, two] = two(&server).await;
    let table = |store: Store, idle: Option<Duration>| {
        let settings = sessions::Settings {
            idle_timeouts: idle.into(),
            max_tracked: 10,
            leeway: Duration::ZERO,
            saved: false,
        };
        Sessions::sharing(settings, store, Duration::from_secs(5))
    };
    let (hourly, never) = (table(one, Some(HOUR)), table(two, None));
    let used = |ago: Duration| Timestamp::now().minus(ago);
    let asked = async |sessions: &Sessions, name: &str, known: Timestamp| {
        let token = TokenKey::new("https://a.example.com/", name);
        for _ in 0..100 {
            match sessions.ask_others(token, "https://a.example.com/", known).await {
                SharedUse::Unknown => {}
                told => return told,
            }
        }
        panic!("the server does not respond");
    };
    let (recent, old) = (used(HOUR / 2), used(HOUR * 2));
    assert_eq!(asked(&hourly, "recent", recent).await, SharedUse::LastUsed(recent));
    assert_eq!(asked(&never, "old", old).await, SharedUse::LastUsed(old));
    assert_eq!(asked(&hourly, "old", old).await, SharedUse::Over);
    assert_eq!(asked(&hourly, "old", Timestamp::now()).await, SharedUse::Over, "for good");
}
