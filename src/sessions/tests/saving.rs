//! What is saved of idle clocks, when, and what a startup restores.

use super::*;
use crate::state::record::{IdleFloor, IdleTerms};

#[test]
fn nothing_waits_to_be_saved_where_nothing_is_saved() {
    for (saved, waiting) in [(true, 50), (false, 0)] {
        let sessions = Sessions::new(Settings { saved, ..settings(100) });
        for i in 0..50 {
            let token = Token::new(&i.to_string(), 0);
            assert!(token.use_at(&sessions, at(1_000)) && token.use_at(&sessions, at(2_000)));
        }
        assert_eq!(sessions.unsaved.len(), waiting, "saved: {saved}");
    }
}

#[tokio::test]
async fn a_session_waits_once_however_often_it_is_used() {
    let (sessions, token) = (sessions(10), Token::new("t", 0));
    let store = Store::in_memory(at(0)).unwrap();
    for round in 0..3 {
        for second in 1..4 {
            assert!(token.use_at(&sessions, at(round * 10_000 + second * 1_000)));
            assert_eq!(sessions.unsaved.len(), 1, "{round} {second}");
        }
        sessions.save_again();
        assert_eq!(sessions.unsaved.len(), 1, "it waits as it is");
        assert_eq!(sessions.save(&store).await, Ok(1));
        sessions.save_again();
        assert_eq!(sessions.save(&store).await, Ok(1), "once more, for a store that lost it");
    }
}

#[tokio::test]
async fn what_left_for_room_is_not_in_the_store_any_more() {
    let (sessions, store) = (sessions(100), Store::in_memory(at(0)).unwrap());
    let use_all = |name: &str| {
        for i in 0..100 {
            assert!(Token::new(&format!("{name}-{i}"), 0).use_at(&sessions, at(1_000)));
        }
        sessions.left().capacity
    };
    assert_eq!(use_all("first"), 0);
    assert_eq!(sessions.save(&store).await, Ok(100));
    assert_eq!(use_all("second"), 100);
    assert_eq!(sessions.save(&store).await, Ok(100));
    let rows = store.sessions(None, 1_000).await.unwrap();
    let kept = rows.iter().filter(|row| sessions.find(row.token).is_some()).count();
    assert_eq!((rows.len(), kept), (100, 100), "a restart judges the others by their issue, too");
}

#[tokio::test]
async fn the_idle_timeout_is_written_when_it_changed_and_only_then() {
    let (sessions, store) = (sessions(10), Store::in_memory(at(0)).unwrap());
    let terms = |timeout| PerIssuer::from(IdleTerms { timeout: Some(timeout), floor: None });
    let kept = || async { store.idle_terms().await.unwrap() };
    assert_eq!(sessions.save(&store).await, Ok(0));
    assert_eq!(kept().await, Some(terms(IDLE)));
    assert!(store.save_idle_terms(terms(3 * IDLE)).await.is_ok());
    assert_eq!(sessions.save(&store).await, Ok(0));
    assert_eq!(kept().await, Some(terms(3 * IDLE)), "nothing changed here");
    assert!(!sessions.reconfigure(&Some(IDLE / 2).into(), Duration::ZERO, at(1_000)));
    assert_eq!(sessions.save(&store).await, Ok(0));
    assert_eq!(kept().await, Some(terms(IDLE / 2)));
}

#[test]
fn a_store_needs_sessions_again_only_when_it_is_to_keep_them_longer() {
    for (from, to, grew) in [
        (Some(60), Some(60), false),
        (Some(60), Some(59), false),
        (Some(60), Some(61), true),
        (Some(60), None, false),
        (None, Some(60), true),
        (None, None, false),
    ] {
        let secs = |secs: Option<u64>| secs.map(Duration::from_secs);
        let sessions = Sessions::new(Settings { idle_timeouts: secs(from).into(), ..settings(10) });
        assert_eq!(
            sessions.reconfigure(&secs(to).into(), Duration::ZERO, at(1_000)),
            grew,
            "{from:?} {to:?}"
        );
    }
}

#[tokio::test]
async fn what_was_idle_when_the_timeout_grew_is_not_taken_back_in() {
    let (before, store) = (sessions(10), Store::in_memory(at(0)).unwrap());
    let tokens = [(39_999, false), (40_000, true), (40_001, true)]
        .map(|(used, kept)| (Token::new(&used.to_string(), 0), used, kept));
    for (token, used, _) in &tokens {
        assert!(token.use_at(&before, at(*used)));
    }
    assert_eq!(before.save(&store).await, Ok(3));
    let floor = IdleFloor { monotonic: Monotonic::from_millis(40_000), wall: ms(40_000), timeout: IDLE };
    assert!(store.save_idle_terms(IdleTerms { timeout: None, floor: Some(floor) }.into()).await.is_ok());
    let after = Sessions::new(Settings { idle_timeouts: None.into(), ..settings(10) });
    assert_eq!(after.restore(&store, at(200_000)).await, Ok(2));
    for (token, used, kept) in &tokens {
        assert_eq!(after.find(token.1).is_some(), *kept, "{used}");
    }
}
