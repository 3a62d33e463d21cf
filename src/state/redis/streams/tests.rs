//! What gates tell each other about a stream, through a real server.

use testkit::redis_server::RedisServer;

use super::*;
use crate::state::redis::testing::Replica;

const STREAM: &str = "okta";
const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn one_gate_holds_a_stream_until_it_leaves_it() {
    let server = RedisServer::start();
    let (first, second) = (Replica::connected(&server).await, Replica::connected(&server).await);
    for (gate, holder, is_mine) in [(&first, "1", true), (&second, "2", false), (&first, "1", true)] {
        let lease = gate.store.hold_stream(STREAM, holder, HOUR).await.unwrap();
        assert_eq!((lease.is_mine, lease.told), (is_mine, None), "{holder}");
    }
    second.store.leave_stream(STREAM, "2").await.unwrap();
    assert!(!second.store.hold_stream(STREAM, "2", HOUR).await.unwrap().is_mine, "it did not hold it");
    first.store.leave_stream(STREAM, "1").await.unwrap();
    assert!(second.store.hold_stream(STREAM, "2", HOUR).await.unwrap().is_mine);
    assert!(first.store.hold_stream("entra", "1", HOUR).await.unwrap().is_mine, "each stream by itself");
}

#[tokio::test]
async fn what_is_told_of_a_stream_is_known_for_as_long_as_it_is_valid() {
    let server = RedisServer::start();
    let (first, second) = (Replica::connected(&server).await, Replica::connected(&server).await);
    for text in ["enabled", "paused by them"] {
        first.store.tell_of_stream(STREAM, text, HOUR).await.unwrap();
        let (told, left) = second.store.hold_stream(STREAM, "2", HOUR).await.unwrap().told.unwrap();
        assert_eq!(told, text);
        assert!(left > HOUR / 2 && left <= HOUR, "{left:?}");
    }
}

#[tokio::test]
async fn a_state_counts_once_and_only_if_it_was_asked_for() {
    let server = RedisServer::start();
    let (first, second) = (Replica::connected(&server).await, Replica::connected(&server).await);
    let confirm = |state, text| second.store.confirm_state(STREAM, state, (text, HOUR));
    assert_eq!(confirm("0af1", "verified").await, Ok(AskedState::Unknown));
    first.store.expect_state(STREAM, "0af1", HOUR).await.unwrap();
    first.store.expect_state(STREAM, "77", HOUR).await.unwrap();
    assert_eq!(confirm("0af1", "verified").await, Ok(AskedState::First));
    assert_eq!(confirm("0af1", "verified again").await, Ok(AskedState::Again));
    assert_eq!(confirm("other", "verified").await, Ok(AskedState::Unknown));
    let told = first.store.hold_stream(STREAM, "1", HOUR).await.unwrap().told;
    assert_eq!(told.map(|(text, _)| text).as_deref(), Some("verified"), "a replay tells nothing");
    assert_eq!(confirm("77", "verified once more").await, Ok(AskedState::First));
}

#[tokio::test]
async fn subjects_wait_in_their_order_for_the_gate_that_holds_the_stream() {
    let server = RedisServer::start();
    let (first, second) = (Replica::connected(&server).await, Replica::connected(&server).await);
    let subjects: Vec<Box<str>> = (0..=AT_ONCE).map(|subject| subject.to_string().into()).collect();
    first.store.offer_subjects(STREAM, &subjects).await.unwrap();
    for part in [&subjects[..AT_ONCE], &subjects[AT_ONCE..], &[]] {
        assert_eq!(second.store.take_subjects(STREAM).await.as_deref(), Ok(part));
    }
}

#[test]
fn a_time_to_live_is_one_that_the_server_takes() {
    for (duration, expected) in [(0, 1), (1, 1), (5, 5), (u64::MAX, 1_125_899_906_842_624)] {
        assert_eq!(millis(Duration::from_millis(duration)), expected);
    }
}
