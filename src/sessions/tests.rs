//! Idle clocks: what moves them, what ends them, what is evicted, and what survives a restart.

use super::*;
use crate::state::Store;
use crate::time::Monotonic;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

mod issuers;
mod saving;

const IDLE: Duration = Duration::from_secs(60);
const HOUR: i64 = 3_600_000;

fn settings(max_tracked: usize) -> Settings {
    Settings { idle_timeouts: Some(IDLE).into(), max_tracked, leeway: Duration::from_secs(30), saved: true }
}

fn sessions(max_tracked: usize) -> Sessions {
    Sessions::new(settings(max_tracked))
}

const fn ms(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

const fn at(millis: i64) -> Now {
    Now::at_millis(millis)
}

struct Token(Arc<str>, TokenKey, i64);

impl Token {
    fn new(name: &str, issued_at: i64) -> Self {
        Self("https://a/".into(), TokenKey::new("https://a/", name), issued_at)
    }

    fn introduce(&self) -> Introduction<'_> {
        Introduction {
            token: self.1,
            issuer: &self.0,
            subject: Some(SubjectKey::new("https://a/", "alice")),
            client: None,
            issued_at: ms(self.2),
            known_since: ms(self.2),
            expires_at: ms(self.2 + HOUR),
            names: None,
        }
    }

    fn is_in_use(&self, sessions: &Sessions, now: Now) -> bool {
        let session = sessions.find(self.1);
        sessions.judge(session.as_deref(), &self.introduce(), None, now) == Idleness::InUse
    }

    fn use_at(&self, sessions: &Sessions, now: Now) -> bool {
        let session = sessions.find(self.1);
        sessions.begin(session.as_ref(), &self.introduce(), None, now).is_ok()
    }
}

fn swept(sessions: &Sessions, now: Now) -> Left {
    sessions.sweep(now);
    sessions.left()
}

#[test]
fn only_a_forwarded_request_moves_the_clock_and_only_it_leaves_a_trace() {
    let (sessions, token) = (sessions(10), Token::new("t", 0));
    for _ in 0..3 {
        assert!(token.is_in_use(&sessions, at(60_000)));
        assert!(!token.is_in_use(&sessions, at(60_001)), "judged, but never forwarded");
    }
    assert!(!token.use_at(&sessions, at(60_001)), "too late");
    assert_eq!((swept(&sessions, at(60_001)), sessions.tracked()), (Left::default(), 0));

    assert!(token.use_at(&sessions, at(60_000)));
    assert!(token.is_in_use(&sessions, at(120_000)));
    assert!(!token.is_in_use(&sessions, at(120_001)));
    assert!(!token.use_at(&sessions, at(120_001)));
    assert_eq!((swept(&sessions, at(120_001)), sessions.tracked()), (Left::default(), 1));
}

#[test]
fn two_first_uses_at_once_share_a_session() {
    for round in 0..50 {
        let (sessions, token) = (sessions(10), Token::new(&round.to_string(), 0));
        let first = |_| sessions.begin(None, &token.introduce(), None, at(1_000)).unwrap().unwrap();
        let threads: Vec<_> = std::thread::scope(|scope| {
            let started: Vec<_> = (0..4).map(|n| scope.spawn(move || first(n))).collect();
            started.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(threads.windows(2).all(|pair| Arc::ptr_eq(&pair[0], &pair[1])));
    }
}

#[test]
fn a_request_that_read_the_clock_early_cannot_revive_what_was_refused() {
    let (sessions, token) = (sessions(10), Token::new("t", 0));
    assert!(token.use_at(&sessions, at(0)));
    let session = sessions.find(token.1).unwrap();
    assert!(!sessions.close(&session, &token.introduce(), at(60_000)));
    assert!(token.is_in_use(&sessions, at(60_000)), "not idle, so not closed");
    assert!(sessions.close(&session, &token.introduce(), at(60_001)));
    assert!(!token.use_at(&sessions, at(59_999)));
}

#[test]
fn a_wrong_wall_clock_closes_nothing() {
    let (sessions, token) = (sessions(10), Token::new("t", 0));
    assert!(token.use_at(&sessions, at(1_000)));
    let wrong = Now { wall: ms(1_000 * HOUR), ..at(2_000) };
    assert!(!token.is_in_use(&sessions, wrong) && !token.use_at(&sessions, wrong));
    assert!(sessions.close(&sessions.find(token.1).unwrap(), &token.introduce(), wrong), "denied");
    assert!(token.use_at(&sessions, at(3_000)), "the clock is right again");
}

#[test]
fn what_leaves_for_room_is_counted_and_judged_by_its_issue() {
    let sessions = sessions(100);
    let tokens: Vec<Token> = (0..300).map(|i| Token::new(&i.to_string(), 0)).collect();
    let first = sessions.begin(None, &tokens[0].introduce(), None, at(50_000)).unwrap().unwrap();
    for token in &tokens[1..] {
        assert!(token.use_at(&sessions, at(55_000)));
    }
    assert_eq!(sessions.left().capacity, 200);
    assert_eq!(sessions.tracked(), 100);
    let refused = tokens.iter().filter(|token| !token.is_in_use(&sessions, at(61_000))).count();
    assert_eq!(refused, 200, "idle by their issue, though used since");
    let token = tokens[0].introduce();
    assert!(first.is_evicted(), "the least recently used was among them");
    assert_eq!(sessions.judge(Some(&first), &token, None, at(60_000)), Idleness::InUse);
    assert_eq!(sessions.judge(Some(&first), &token, None, at(60_001)), Idleness::Idle);
    assert!(sessions.begin(Some(&first), &token, None, at(60_001)).is_err());
    let again = sessions.begin(Some(&first), &token, None, at(60_000)).unwrap().unwrap();
    assert!(!Arc::ptr_eq(&again, &first) && !again.is_evicted(), "it entered the table again");
}

#[test]
fn what_is_seen_in_use_now_and_then_stays_when_others_must_leave() {
    let sessions = sessions(100);
    let busy: Vec<Token> = (0..50).map(|i| Token::new(&format!("busy-{i}"), 0)).collect();
    let touch_all = |now| busy.iter().for_each(|token| assert!(token.use_at(&sessions, at(now))));
    touch_all(1_000);
    for round in 0..20 {
        for i in 0..40 {
            assert!(Token::new(&format!("{round}-{i}"), 0).use_at(&sessions, at(2_000 + round)));
        }
        // More than a fraction of the timeout apart, so that each use touches the table.
        touch_all(10_000 + round * 8_000 / 20 * 20 % 40_000);
        let _left = sessions.left();
    }
    let kept = busy.iter().filter(|token| sessions.find(token.1).is_some()).count();
    assert_eq!(kept, 50);
}

#[test]
fn the_table_is_bounded_in_bytes_as_well() {
    // Each session has 450 bytes, of which 52 are for its client's name.
    for (name, kept) in [(0, 100), (52, 100), (53, 99), (102, 90), (502, 50), (10_000, 4)] {
        let sessions = sessions(100);
        let client: Arc<str> = "x".repeat(name).into();
        for i in 0..100 {
            let token = Token::new(&i.to_string(), 0);
            let introduction = Introduction { client: Some(&client), ..token.introduce() };
            assert!(sessions.begin(None, &introduction, None, at(1_000)).is_ok());
        }
        let left = sessions.left();
        assert_eq!((sessions.tracked(), left.capacity), (kept, 100 - kept), "{name}");
    }
}

#[test]
fn a_use_is_shown_to_the_table_once_in_a_fraction_of_the_timeout() {
    let (sessions, token) = (sessions(10), Token::new("t", 0));
    assert!(token.use_at(&sessions, at(1_000)));
    let session = sessions.find(token.1).unwrap();
    let is_due = |millis| session.is_due_for_touch(at(millis).monotonic, IDLE / 8);
    for (used, next) in [(8_499, 8_500), (8_500, 16_000), (15_999, 16_000), (20_000, 27_500)] {
        assert!(token.use_at(&sessions, at(used)));
        assert!(!is_due(next - 1) && is_due(next), "used at {used}");
    }
}

#[test]
fn a_session_that_the_table_does_not_hold_is_out_of_it_when_it_is_shown() {
    let (table, other, token) = (sessions(10), sessions(10), Token::new("t", 0));
    assert!(token.use_at(&table, at(1_000)) && token.use_at(&other, at(1_000)));
    let (held, strange) = (table.find(token.1).unwrap(), other.find(token.1).unwrap());
    table.table.touch(&held, at(2_000).monotonic);
    table.table.touch(&strange, at(2_000).monotonic);
    assert!(!held.is_evicted() && strange.is_evicted());
}

#[test]
fn sessions_leave_when_they_are_idle_or_their_tokens_are_dead() {
    let begun = at(1_000_000);
    let table =
        |idle: Option<Duration>| Sessions::new(Settings { idle_timeouts: idle.into(), ..settings(1_000) });
    let (unused, dead) = (table(Some(IDLE)), table(None));
    let tokens: Vec<Token> = (0..100).map(|i| Token::new(&i.to_string(), 1_000_000)).collect();
    for token in &tokens {
        assert!(token.use_at(&unused, begun) && token.use_at(&dead, begun));
    }
    // The lifetime of an hour, two leeways, and a second.
    let (idle_at, dead_at) = (begun.plus(Duration::from_secs(61)), begun.plus(Duration::from_secs(3_661)));
    let later = Duration::from_millis(1);
    for (sessions, now, expected) in [
        (&unused, idle_at, Left::default()),
        (&dead, dead_at, Left::default()),
        // The wall clock does not matter here; it may be wrong by years.
        (&dead, Now { wall: ms(i64::MAX), ..dead_at }, Left::default()),
        // Without its session the token would pass while the wall clock is behind.
        (&unused, Now { wall: ms(1_000_000), ..idle_at.plus(IDLE) }, Left::default()),
        // Scanned a moment ago.
        (&unused, idle_at.plus(IDLE + later), Left::default()),
        (&unused, idle_at.plus(2 * IDLE), Left { idle: 100, ..Left::default() }),
        (&dead, dead_at.plus(2 * IDLE * 60), Left { idle: 100, ..Left::default() }),
        (&dead, dead_at.plus(9 * IDLE * 60), Left::default()),
    ] {
        let Left { expired, idle, capacity } = swept(sessions, now);
        // Which of the two causes is counted depends on the machine's wall clock.
        assert_eq!(Left { idle: idle + expired, expired: 0, capacity }, expected, "{now:?}");
    }
    assert_eq!((unused.tracked(), dead.tracked()), (0, 0));
}

#[test]
fn another_leeway_is_in_force_for_what_is_in_use() {
    let sessions = Sessions::new(Settings { idle_timeouts: None.into(), ..settings(100) });
    let token = Token::new("t", 0);
    assert!(token.use_at(&sessions, at(HOUR)));
    let count = |now| {
        let mut count = 0;
        sessions.each_in_use(now, |_| count += 1);
        count
    };
    let (expired, later) = (at(HOUR + 30_000), at(HOUR + 40_000));
    assert_eq!((count(expired), count(later)), (1, 0), "30 s after the end of the token");
    assert!(!sessions.reconfigure(&None.into(), Duration::from_secs(40), expired));
    assert_eq!(count(later), 1);
}

#[test]
fn what_is_in_use_stays_in_the_table_and_what_leaves_it_stays_idle() {
    let (sessions, tokens) = (sessions(100), ["busy", "idle"].map(|name| Token::new(name, 0)));
    let [busy, idle] = &tokens;
    assert!(idle.use_at(&sessions, at(0)));
    let held = sessions.find(idle.1).unwrap();
    for second in 0..70 {
        assert!(busy.use_at(&sessions, at(second * 1_000)));
    }
    assert_eq!(swept(&sessions, at(70_000)).capacity, 0);
    assert!(sessions.find(busy.1).is_some() && sessions.find(idle.1).is_none());
    let behind = Now { wall: ms(0), ..at(70_000) };
    assert_eq!(sessions.judge(Some(&held), &idle.introduce(), None, behind), Idleness::Idle);
    assert!(
        sessions.begin(Some(&held), &idle.introduce(), None, behind).is_err(),
        "the proof still holds it"
    );
}

#[test]
fn a_token_that_comes_back_while_its_session_leaves_gets_another() {
    let (sessions, token) = (sessions(10), Token::new("t", 0));
    assert!(token.use_at(&sessions, at(1_000)));
    let leaving = sessions.find(token.1).unwrap();
    // As a scan does just before it removes the session.
    leaving.mark_evicted();
    for known in [None, Some(&leaving)] {
        let entered = sessions.begin(known, &token.introduce(), None, at(2_000)).unwrap().unwrap();
        assert!(!Arc::ptr_eq(&entered, &leaving) && !entered.is_evicted());
        assert_eq!(entered.last_used_at(), ms(2_000));
    }
    assert!(token.is_in_use(&sessions, at(62_000)));
}

#[test]
fn lists_what_is_in_use_page_by_page() {
    let sessions = sessions(100_000);
    for i in 0..500 {
        assert!(Token::new(&i.to_string(), 0).use_at(&sessions, at(1_000)));
    }
    let alice = Some(SubjectKey::new("https://a/", "alice"));
    let list = |subject, after, now| sessions.list(subject, after, 64, at(now), |_| true);
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = list(alice, after, 2_000);
        let Some(last) = page.last() else { break };
        after = Some(last.token);
        seen.extend(page.into_iter().map(|row| row.token));
    }
    assert_eq!(seen.len(), 500);
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]));
    assert!(list(Some(SubjectKey::new("https://b/", "alice")), None, 2_000).is_empty());
    assert!(list(alice, None, 61_001).is_empty(), "idle by now");
}

#[test]
fn a_page_holds_the_first_of_what_is_wanted() {
    let sessions = sessions(100);
    let mut tokens: Vec<TokenKey> = (0..20).map(|i| Token::new(&i.to_string(), 0).1).collect();
    tokens.sort_unstable();
    for i in 0..20 {
        assert!(Token::new(&i.to_string(), 0).use_at(&sessions, at(1_000)));
    }
    let even = |token: &TokenKey| token.0.low().is_multiple_of(2);
    for limit in [0, 1, 2, 10, 19, 20, 21] {
        for after in [None, Some(tokens[0]), Some(tokens[9]), Some(tokens[19])] {
            let rest = || tokens.iter().copied().filter(|token| after.is_none_or(|after| *token > after));
            let page = |wanted: &dyn Fn(&TokenKey) -> bool| -> Vec<TokenKey> {
                let rows = sessions.list(None, after, limit, at(2_000), |row| wanted(&row.token));
                rows.into_iter().map(|row| row.token).collect()
            };
            assert_eq!(page(&|_| true), rest().take(limit).collect::<Vec<_>>(), "{limit} {after:?}");
            assert_eq!(page(&even), rest().filter(even).take(limit).collect::<Vec<_>>(), "{limit} {after:?}");
        }
    }
}

#[test]
fn threads_agree_on_the_end() {
    for round in 0..300 {
        let (sessions, token) = (sessions(10), Token::new(&round.to_string(), 0));
        assert!(token.use_at(&sessions, at(0)));
        let session = sessions.find(token.1).unwrap();
        let (clock, refused) = (AtomicI64::new(0), AtomicBool::new(false));
        // A few requests at once; each clock step is just short of what would reject a thread that lags.
        let request = |_| {
            let was_refused = refused.load(Ordering::SeqCst);
            let now = at(clock.fetch_add(25_000, Ordering::SeqCst));
            let used = token.use_at(&sessions, now);
            assert!(!(used && was_refused), "revived");
            if !used && sessions.close(&session, &token.introduce(), now) {
                refused.store(true, Ordering::SeqCst);
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(|| (0..30).for_each(request)))));
        clock.fetch_add(60_001, Ordering::SeqCst);
        request(0);
        assert!(refused.load(Ordering::SeqCst));
        request(0);
    }
}

#[tokio::test]
async fn a_restart_keeps_every_clock() {
    let (before, after) = (sessions(10_000), sessions(10_000));
    let store = Store::in_memory(Now::at_millis(0)).unwrap();
    let tokens: Vec<Token> = (0..50).map(|i| Token::new(&i.to_string(), 0)).collect();
    for (token, now) in tokens.iter().zip(1..) {
        assert!(token.use_at(&before, at(now * 1_000)));
        assert!(token.use_at(&before, at(now * 1_000)));
    }
    assert_eq!(before.save(&store).await, Ok(50));
    assert_eq!(before.save(&store).await, Ok(0), "nothing changed since");
    assert!(tokens[0].use_at(&before, at(9_000)));
    assert_eq!(before.save(&store).await, Ok(1));

    let now = at(69_000);
    assert_eq!(after.restore(&store, now).await, Ok(43), "all but those used last at 2 to 8 seconds");
    for (token, used_at) in tokens.iter().zip(1..) {
        let alive = used_at == 1 || used_at >= 9;
        assert_eq!(token.is_in_use(&after, now), alive, "{used_at}");
    }
    assert_eq!(after.find(tokens[49].1).unwrap().first_used_at(), ms(50_000));
}

#[tokio::test]
async fn many_are_saved_in_portions_and_one_that_fails_is_saved_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate.db");
    let (before, after) = (sessions(30_000), sessions(30_000));
    drop(Store::open(&path, Now::at_millis(0)).unwrap());
    for i in 0..25_000 {
        assert!(Token::new(&i.to_string(), 0).use_at(&before, at(1_000)));
    }
    let unwritable = Store::open_read_only(&path).unwrap().unwrap();
    assert!(before.save(&unwritable).await.is_err());
    drop(unwritable);
    let store = Store::open(&path, Now::at_millis(0)).unwrap();
    assert_eq!(before.save(&store).await, Ok(25_000));
    assert_eq!(before.save(&store).await, Ok(0));
    assert_eq!(after.restore(&store, at(1_000)).await, Ok(25_000));
    let (first, second) = (Token::new("0", 0), Token::new("1", 0));
    let (first, second) = (after.find(first.1).unwrap(), after.find(second.1).unwrap());
    assert!(Arc::ptr_eq(&first.row().issuer, &second.row().issuer), "its name is kept once");
}

#[tokio::test]
async fn what_cannot_be_saved_takes_no_more_memory_than_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate.db");
    drop(Store::open(&path, Now::at_millis(0)).unwrap());
    let (sessions, unwritable) = (sessions(100), Store::open_read_only(&path).unwrap().unwrap());
    for round in 0..10 {
        for i in 0..100 {
            assert!(Token::new(&format!("{round}-{i}"), 0).use_at(&sessions, at(1_000)));
        }
        let _left = sessions.left();
        assert!(sessions.save(&unwritable).await.is_err());
        assert!(sessions.unsaved.len() <= 100, "{round}");
    }
    drop(unwritable);
    let store = Store::open(&path, Now::at_millis(0)).unwrap();
    assert_eq!(sessions.save(&store).await, Ok(100));
    assert_eq!(store.sessions(None, 1_000).await.map(|rows| rows.len()), Ok(100));
}

#[test]
fn a_session_stays_small() {
    // A million sessions take 450 bytes each, most of which is moka's.
    assert!(size_of::<Session>() <= 120);
}

#[tokio::test]
async fn a_start_with_a_wrong_clock_loses_nothing() {
    let store = Store::in_memory(Now::at_millis(0)).unwrap();
    let (before, issued) = (sessions(10_000), 1_800_000_000_000);
    let now = Now { wall: ms(issued + 90_000), monotonic: Monotonic::from_millis(100_000) };
    let token = Token::new("t", issued);
    let used = Now { wall: ms(issued + 50_000), monotonic: Monotonic::from_millis(60_000) };
    assert!(token.use_at(&before, used));
    assert_eq!(before.save(&store).await, Ok(1));
    for wrong in [-3 * 24 * HOUR, 3 * 24 * HOUR, -20 * 365 * 24 * HOUR, 20 * 365 * 24 * HOUR] {
        let wrong = Now { wall: ms(now.wall.as_millis() + wrong), ..now };
        let gate = sessions(10_000);
        assert_eq!(gate.restore(&store, wrong).await, Ok(1));
        gate.sweep(wrong);
        let _used = token.use_at(&gate, wrong);
        assert!(gate.save(&store).await.is_ok());
        assert_eq!(gate.trim(&store, wrong.monotonic).await, Ok(0));
        assert!(token.is_in_use(&gate, now), "the clock was set right");
    }
    let (right, later) = (sessions(10_000), now.plus(Duration::from_secs(61)));
    assert_eq!(right.restore(&store, now).await, Ok(1));
    assert!(!token.is_in_use(&right, later), "the monotonic clock counts, whatever was stored of the other");
    assert_eq!(right.trim(&store, later.monotonic).await, Ok(1));
}

#[tokio::test]
async fn what_was_idle_before_the_timeout_grew_stays_so() {
    for restarts in [false, true] {
        let store = Store::in_memory(Now::at_millis(0)).unwrap();
        let (idle, used) = (Token::new("idle", 0), Token::new("used", 0));
        let longer = || Settings { idle_timeouts: Some(10 * IDLE).into(), ..settings(10_000) };
        let mut gate = sessions(10_000);
        assert!(idle.use_at(&gate, at(1_000)) && used.use_at(&gate, at(30_000)));
        assert_eq!(gate.save(&store).await, Ok(2));
        if restarts {
            gate = Sessions::new(longer());
            assert!(gate.restore(&store, at(70_000)).await.is_ok());
        } else {
            assert!(gate.reconfigure(&longer().idle_timeouts, longer().leeway, at(70_000)));
        }
        let never = Token::new("never used here", 9_000);
        let fresh = Token::new("fresh", 10_000);
        for (token, in_use) in [(&idle, false), (&used, true), (&never, false), (&fresh, true)] {
            assert_eq!(token.is_in_use(&gate, at(300_000)), in_use, "{}, restarts: {restarts}", token.1.0);
        }
        assert_eq!(gate.save(&store).await.map(drop), Ok(()));
        let again = Sessions::new(longer());
        assert!(again.restore(&store, at(300_000)).await.is_ok());
        assert!(!idle.is_in_use(&again, at(300_000)) && used.is_in_use(&again, at(300_000)));
        assert_eq!(again.trim(&store, at(300_000).monotonic).await, Ok(0), "by the settings in force");
    }
}
