//! Issuers with idle timeouts of their own: each token follows its issuer's, wherever idle timeouts apply.

use super::*;
use crate::state::record::IdleTerms;

const COMMON: &str = "https://common/";
const SHORT: &str = "https://short/";
const NEVER: &str = "https://never/";
const ISSUERS: [&str; 3] = [COMMON, SHORT, NEVER];

fn secs(secs: u64) -> Option<Duration> {
    Some(Duration::from_secs(secs))
}

fn timeouts(common: Option<Duration>, own: &[(&str, Option<Duration>)]) -> IdleTimeouts {
    IdleTimeouts::new(common, own.iter().map(|(issuer, idle)| ((*issuer).into(), *idle)))
}

/// A minute for most, ten seconds for one, none for another.
fn mixed() -> IdleTimeouts {
    timeouts(Some(IDLE), &[(SHORT, secs(10)), (NEVER, None)])
}

fn gate(idle_timeouts: IdleTimeouts) -> Sessions {
    Sessions::new(Settings { idle_timeouts, ..settings(10_000) })
}

/// A token of an issuer.
fn token(issuer: &str, name: &str, issued_at: i64) -> Token {
    Token(issuer.into(), TokenKey::new(issuer, name), issued_at)
}

#[test]
fn a_token_is_in_use_for_the_timeout_of_its_issuer_and_no_longer() {
    for (issuer, idle, last) in [
        (COMMON, Some(IDLE), Some(60_000)),
        (SHORT, secs(10), Some(10_000)),
        (NEVER, None, None),
        ("https://other/", Some(IDLE), Some(60_000)),
    ] {
        let sessions = gate(mixed());
        let (unused, used) = (token(issuer, "unused", 0), token(issuer, "used", 0));
        assert!(used.use_at(&sessions, at(1_000)));
        assert_eq!(sessions.look(&unused.introduce(), at(0)).idle_timeout, idle, "{issuer}");
        let end = last.unwrap_or(100 * HOUR);
        for (token, since) in [(&unused, 0), (&used, 1_000)] {
            let look = |millis| sessions.look(&token.introduce(), at(since + millis)).in_force;
            assert!(token.is_in_use(&sessions, at(since + end)) && look(end), "{issuer} {since}");
            let after = last.is_none();
            assert_eq!(token.is_in_use(&sessions, at(since + end + 1)), after, "{issuer} {since}");
            assert_eq!(look(end + 1), after, "{issuer} {since}");
        }
        let session = sessions.find(used.1).unwrap();
        let closed = sessions.close(&session, &used.introduce(), at(1_000 + end + 1));
        assert_eq!(closed, last.is_some(), "{issuer}");
        assert_eq!(used.use_at(&sessions, at(1_000 + end)), last.is_none(), "{issuer}: for good");
        assert_eq!(unused.use_at(&sessions, at(end + 1)), last.is_none(), "{issuer}");
    }
}

#[test]
fn a_reload_changes_one_issuer_and_what_was_idle_by_its_old_timeout_stays_so() {
    // Before and after, for the common timeout and one issuer's; whether tokens unused for 30 s then pass.
    for (before, after, expected) in [
        (mixed(), mixed(), [true, false, true]),
        (mixed(), timeouts(Some(IDLE), &[(SHORT, None), (NEVER, None)]), [true, false, true]),
        (mixed(), timeouts(Some(IDLE), &[(NEVER, None)]), [true, false, true]),
        (mixed(), timeouts(secs(20), &[(SHORT, secs(10)), (NEVER, None)]), [false, false, true]),
        (mixed(), timeouts(Some(IDLE), &[(SHORT, secs(10)), (NEVER, secs(29))]), [true, false, false]),
        (mixed(), timeouts(Some(IDLE), &[(SHORT, secs(10)), (NEVER, secs(30))]), [true, false, true]),
        (mixed(), timeouts(None, &[]), [true, false, true]),
        (timeouts(Some(IDLE), &[]), mixed(), [true, false, true]),
        (timeouts(secs(20), &[]), mixed(), [false, false, false]),
        (timeouts(secs(20), &[]), timeouts(secs(20), &[(NEVER, None)]), [false, false, false]),
        (timeouts(None, &[]), mixed(), [true, false, true]),
        (timeouts(None, &[(SHORT, secs(10))]), timeouts(None, &[]), [true, false, true]),
    ] {
        let sessions = gate(before.clone());
        let tokens = ISSUERS.map(|issuer| (token(issuer, "used", 0), token(issuer, "unused", 5_000)));
        for (used, _) in &tokens {
            assert!(used.use_at(&sessions, at(5_000)));
        }
        let _longer = sessions.reconfigure(&after, Duration::ZERO, at(35_000));
        for _ in 0..2 {
            let pass = tokens.each_ref().map(|(used, unused)| {
                (used.is_in_use(&sessions, at(35_000)), unused.is_in_use(&sessions, at(35_000)))
            });
            assert_eq!(pass, expected.map(|pass| (pass, pass)), "{before:?} to {after:?}");
            // What is used from now on follows the new timeout, whatever the old one was.
            for (issuer, name) in ISSUERS.iter().zip(["a", "b", "c"]) {
                let fresh = token(issuer, name, 35_000);
                let idle = after.of(issuer).map_or(100 * HOUR, |idle| idle.as_millis() as i64);
                assert!(fresh.is_in_use(&sessions, at(35_000 + idle)), "{before:?} to {after:?}");
            }
            let _longer = sessions.reconfigure(&after, Duration::ZERO, at(35_000));
        }
    }
}

#[test]
fn a_floor_outlives_the_timeout_of_an_issuers_own() {
    let sessions = gate(mixed());
    let idle = token(SHORT, "t", 0);
    assert!(idle.use_at(&sessions, at(1_000)));
    let own = |idle| timeouts(Some(IDLE), &[(SHORT, idle)]);
    for (millis, next) in [(20_000, own(None)), (21_000, timeouts(Some(IDLE), &[])), (22_000, own(secs(50)))]
    {
        let _longer = sessions.reconfigure(&next, Duration::ZERO, at(millis));
        assert!(!idle.is_in_use(&sessions, at(22_000)), "{next:?}");
        assert!(token(COMMON, "t", 1_000).is_in_use(&sessions, at(22_000)), "no other issuer is concerned");
    }
}

#[test]
fn last_uses_are_needed_for_the_longest_timeout() {
    for (before, after, longer) in [
        (mixed(), mixed(), false),
        (mixed(), timeouts(Some(IDLE), &[(SHORT, Some(IDLE))]), false),
        (mixed(), timeouts(Some(IDLE), &[(SHORT, secs(61))]), true),
        (mixed(), timeouts(Some(IDLE), &[(SHORT, None)]), false),
        (mixed(), timeouts(secs(5), &[(SHORT, secs(60))]), false),
        (timeouts(None, &[]), timeouts(None, &[(SHORT, secs(1))]), true),
        (timeouts(None, &[(SHORT, secs(1))]), timeouts(None, &[]), false),
    ] {
        assert_eq!(
            gate(before.clone()).reconfigure(&after, Duration::ZERO, at(1_000)),
            longer,
            "{before:?} {after:?}"
        );
    }
    assert_eq!(longest_timeout(&mixed()), Some(IDLE));
    assert_eq!(longest_timeout(&timeouts(Some(IDLE), &[(SHORT, secs(61))])), secs(61));
    assert_eq!(longest_timeout(&timeouts(None, &[])), None);
}

#[test]
fn a_session_leaves_when_it_is_idle_by_the_timeout_of_its_issuer() {
    let sessions = gate(mixed());
    let tokens = ISSUERS.map(|issuer| token(issuer, "t", 0));
    tokens.iter().for_each(|token| assert!(token.use_at(&sessions, at(0))));
    let held = |millis| {
        sessions.sweep(at(millis));
        let _left = sessions.left();
        tokens.each_ref().map(|token| sessions.find(token.1).is_some())
    };
    // A lifetime of an hour, two leeways and a second. Scans are an eighth of the shortest timeout apart.
    for (millis, expected) in [
        (11_000, [true, true, true]),
        (12_249, [true, true, true]),
        (12_250, [true, false, true]),
        (61_000, [true, false, true]),
        (62_250, [false, false, true]),
        (HOUR + 61_000, [false, false, true]),
        (HOUR + 62_250, [false, false, false]),
    ] {
        assert_eq!(held(millis), expected, "{millis}");
    }
}

#[test]
fn a_use_is_shown_to_the_table_once_in_a_fraction_of_the_timeout_of_its_issuer() {
    for (issuer, fraction) in [(COMMON, 7_500), (SHORT, 1_250), (NEVER, 600_000)] {
        let sessions = gate(timeouts(Some(IDLE), &[(SHORT, secs(10)), (NEVER, None)]));
        let token = token(issuer, "t", 0);
        assert!(token.use_at(&sessions, at(0)));
        let session = sessions.find(token.1).unwrap();
        sessions.table.touch(&session, at(0).monotonic);
        let step = if fraction > 10_000 { 500_000 } else { fraction - 1 };
        assert!(token.use_at(&sessions, at(step)));
        assert!(session.is_due_for_touch(at(fraction).monotonic, Duration::from_millis(fraction as u64)));
        assert!(token.use_at(&sessions, at(fraction)));
        let next = Duration::from_millis(fraction as u64);
        assert!(!session.is_due_for_touch(at(2 * fraction - 1).monotonic, next), "{issuer}");
        assert!(session.is_due_for_touch(at(2 * fraction).monotonic, next), "{issuer}");
    }
}

#[test]
fn lists_show_what_is_in_use_by_the_timeout_of_its_issuer() {
    let sessions = gate(mixed());
    ISSUERS.iter().for_each(|issuer| assert!(token(issuer, "t", 0).use_at(&sessions, at(0))));
    for (millis, expected) in [
        (10_000, vec![COMMON, NEVER, SHORT]),
        (10_001, vec![COMMON, NEVER]),
        (60_000, vec![COMMON, NEVER]),
        (60_001, vec![NEVER]),
        (HOUR, vec![NEVER]),
    ] {
        let rows = sessions.list(None, None, 9, at(millis), |_| true);
        let mut listed: Vec<String> = rows.iter().map(|row| row.issuer.to_string()).collect();
        listed.sort_unstable();
        assert_eq!(listed, expected, "{millis}");
        let mut shown = Vec::new();
        sessions.each_in_use(at(millis), |session| shown.push(session.issuer().to_owned()));
        shown.sort_unstable();
        assert_eq!(shown, expected, "{millis}");
    }
}

#[tokio::test]
async fn a_restart_keeps_the_clocks_and_the_floors_of_every_issuer() {
    let store = Store::in_memory(at(0)).unwrap();
    let before = gate(mixed());
    let tokens = ISSUERS.map(|issuer| token(issuer, "t", 0));
    tokens.iter().for_each(|token| assert!(token.use_at(&before, at(1_000))));
    assert_eq!(before.save(&store).await, Ok(3));
    // One token goes idle; then the next gate would let it stay unused indefinitely, and the one after it for
    // a minute too.
    let patient = || timeouts(Some(IDLE), &[(SHORT, None), (NEVER, None)]);
    let in_use = |gate: &Sessions| tokens.each_ref().map(|token| token.is_in_use(gate, at(30_000)));
    let second = gate(patient());
    assert_eq!(second.restore(&store, at(30_000)).await, Ok(2), "it is not taken back in");
    assert_eq!(in_use(&second), [true, false, true]);
    assert_eq!(second.save(&store).await.map(drop), Ok(()));
    let kept = store.idle_terms().await.unwrap().unwrap();
    assert_eq!(kept.of(SHORT).floor.map(|floor| floor.timeout), secs(10));
    assert_eq!((kept.of(SHORT).timeout, *kept.of(NEVER)), (None, IdleTerms { timeout: None, floor: None }));
    assert_eq!(*kept.common(), IdleTerms { timeout: Some(IDLE), floor: None });
    for next in [patient(), timeouts(Some(IDLE), &[])] {
        let third = gate(next.clone());
        assert_eq!(third.restore(&store, at(30_000)).await, Ok(2));
        assert_eq!(in_use(&third), [true, false, true], "{next:?}");
        assert!(token(SHORT, "later", 25_000).is_in_use(&third, at(80_000)), "{next:?}");
    }
}

#[tokio::test]
async fn the_store_lets_last_uses_go_by_the_timeout_of_their_issuer() {
    let store = Store::in_memory(at(0)).unwrap();
    let sessions =
        gate(timeouts(Some(IDLE), &[(SHORT, secs(10)), (NEVER, None), ("https://nobody's/", secs(1))]));
    ISSUERS.iter().for_each(|issuer| assert!(token(issuer, "t", 0).use_at(&sessions, at(1_000))));
    assert_eq!(sessions.save(&store).await, Ok(3));
    for (millis, trimmed, left) in [
        (11_000, 0, vec![COMMON, NEVER, SHORT]),
        (11_001, 1, vec![COMMON, NEVER]),
        (61_000, 0, vec![COMMON, NEVER]),
        (61_001, 1, vec![NEVER]),
        // The lifetime of an hour, and two leeways.
        (HOUR + 61_000, 0, vec![NEVER]),
        (HOUR + 61_001, 1, vec![]),
    ] {
        assert_eq!(sessions.trim(&store, at(millis).monotonic).await, Ok(trimmed), "{millis}");
        let mut rows: Vec<String> =
            store.sessions(None, 9).await.unwrap().iter().map(|row| row.issuer.to_string()).collect();
        rows.sort_unstable();
        assert_eq!(rows, left, "{millis}");
    }
}
