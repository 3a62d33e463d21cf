//! One session at its boundaries: when its token expires, when it must be touched, and what its flags say.

use super::*;
use crate::identity::Key;

const IDLE: Duration = Duration::from_secs(60);
const HOUR: i64 = 3_600_000;

const fn ms(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

const fn monotonic_at(millis: i64) -> Monotonic {
    Monotonic::from_millis(millis)
}

/// A token of one hour that was issued at zero, with its last use, which is saved.
fn session(used: i64) -> Session {
    Session::from_row(&row(used), &SessionNames::new(), monotonic_at(used))
}

fn row(used: i64) -> SessionRow {
    SessionRow {
        token: TokenKey(Key::from_bytes([7; 16])),
        issuer: "https://a/".into(),
        subject: None,
        client: None,
        issued_at: ms(0),
        first_used_at: ms(used),
        last_used_at: ms(used),
        last_used_monotonic: monotonic_at(used),
        expires_at: ms(HOUR),
        names: None,
    }
}

fn limits() -> SessionLimits {
    SessionLimits { idle: Some(IDLE), leeway: Duration::from_secs(30), floor: None, own_floor: None }
}

fn case(now: i64) -> IdleCase {
    IdleCase { tracked: None, issued_at: ms(0), told: None, is_shared: false, now: Now::at_millis(now) }
}

#[test]
fn a_token_expires_after_its_leeway_and_not_before() {
    for (now, expired) in
        [(0, false), (HOUR, false), (HOUR + 30_000, false), (HOUR + 30_001, true), (2 * HOUR, true)]
    {
        assert_eq!(session(0).is_expired(ms(now), Duration::from_secs(30)), expired, "{now}");
    }
}

#[test]
fn the_table_is_shown_a_session_once_in_a_fraction() {
    let fraction = Duration::from_millis(1_000);
    // The low half of the clock suffices, wherever it wraps.
    for shown in [0, 500, i64::from(u32::MAX) - 500, i64::from(u32::MAX) + 1, -500] {
        let session = session(shown);
        for (later, due) in [
            (-1, false),
            (0, false),
            (999, false),
            (1_000, true),
            (1_001, true),
            // Half of the range; beyond it, the clock counts as read earlier.
            (i64::from(i32::MAX), true),
            (i64::from(i32::MAX) + 1, false),
        ] {
            let now = monotonic_at(shown + later);
            assert_eq!(session.is_due_for_touch(now, fraction), due, "{shown} and {later} later");
        }
        session.touch(monotonic_at(shown + 5_000));
        assert!(!session.is_due_for_touch(monotonic_at(shown + 5_999), fraction), "{shown}");
        assert!(session.is_due_for_touch(monotonic_at(shown + 6_000), fraction), "{shown}");
    }
}

#[test]
fn the_first_use_since_a_session_was_saved_is_told_once() {
    let session = session(1_000);
    let use_at = |now| session.use_at(&case(now), &limits());
    assert_eq!(use_at(3_000), UseResult::First(Duration::from_secs(2)));
    assert_eq!(use_at(3_000), UseResult::Again, "at the same moment");
    assert_eq!(use_at(4_000), UseResult::Again);
    assert!(!session.mark_unsaved(), "it was marked");
    session.clear_unsaved();
    assert_eq!(use_at(9_000), UseResult::First(Duration::from_secs(5)));
    session.clear_unsaved();
    assert!(session.mark_unsaved());
    assert!(!session.mark_unsaved());
    assert_eq!(use_at(10_000), UseResult::Again, "it waits to be saved");
}

#[test]
fn a_use_is_judged_by_the_last_one_and_not_by_the_issue() {
    let used = session(30_000);
    assert_eq!(used.use_at(&case(90_000), &limits()), UseResult::First(IDLE));
    assert_eq!(used.use_at(&case(150_001), &limits()), UseResult::Idle);
}

#[test]
fn a_session_owns_the_name_of_its_client_and_the_names_of_its_token() {
    let names = crate::identity::TokenNames::new("https://a/", None, Vec::new(), Some("s1")).map(Arc::new);
    let size = names.as_ref().unwrap().size();
    let of = |client: Option<&str>, names| {
        let row = SessionRow { client: client.map(Into::into), names, ..row(0) };
        Session::from_row(&row, &SessionNames::new(), monotonic_at(0)).heap_size()
    };
    assert_eq!(of(None, None), 0);
    assert_eq!(of(Some("app"), None), 3);
    assert_eq!(of(Some("app"), names), 3 + SHARED + size);
}

#[test]
fn what_ended_stays_so_however_often_it_ends() {
    let session = session(1_000);
    assert!(!session.end_if_idle(&case(61_000), &limits()));
    assert_eq!(session.stamp().monotonic, monotonic_at(1_000));
    for _ in 0..3 {
        assert!(session.end_if_idle(&case(61_001), &limits()));
        assert!(session.stamp().is_over);
        assert_eq!(session.use_at(&case(2_000), &limits()), UseResult::Idle, "the clock was read earlier");
    }
    assert!(session.end_if_idle(&case(2_000), &limits()), "over, whatever the clock says");
}

#[test]
fn what_left_the_table_stays_out_and_keeps_its_last_use() {
    let second = |secs: i64| Now::at_millis(secs * 1_000);
    let (idle, dead) = (session(5_000), session(5_000));
    let never = SessionLimits { idle: None, ..limits() };
    // An hour of lifetime, two leeways and a second after creation; a minute and a second after its use.
    for (session, limits, last) in [(&idle, limits(), second(66)), (&dead, never, second(5 + 3_661))] {
        assert!(!session.evict_if_done(&limits, last));
        assert!(!session.is_evicted());
        for _ in 0..2 {
            assert!(session.evict_if_done(&limits, last.plus(Duration::from_millis(1))));
            assert!(session.is_evicted());
            assert_eq!(session.last_used(), monotonic_at(5_000));
        }
    }
}
