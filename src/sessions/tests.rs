//! Idle clocks: what moves them, what ends them, what leaves for room, and what a restart keeps.

use super::*;
use crate::time::Now;

const IDLE: Duration = Duration::from_secs(60);
const HOUR: i64 = 3_600_000;

fn sessions(max_tracked: usize) -> Sessions {
    let leeway = Duration::from_secs(30);
    Sessions::new(Settings { idle_timeout: Some(IDLE), max_tracked, leeway, saved: true })
}

const fn ms(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
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
            expires_at: ms(self.2 + HOUR),
        }
    }
}

#[test]
fn only_a_forwarded_request_moves_the_clock() {
    let (sessions, token) = (sessions(10), Token::new("t", 0));
    let session = sessions.judge(&token.introduce(), ms(60_000)).unwrap();
    assert!(sessions.judge(&token.introduce(), ms(60_001)).is_err(), "judged, but never forwarded");
    assert!(!sessions.used(&session, ms(60_000)), "too late: it was found idle");

    let token = Token::new("u", 0);
    let session = sessions.judge(&token.introduce(), ms(60_000)).unwrap();
    assert!(sessions.used(&session, ms(60_000)));
    assert!(sessions.judge(&token.introduce(), ms(120_000)).is_ok());
    assert!(sessions.judge_again(&session, &token.introduce(), ms(120_001)).is_err());
    assert!(sessions.judge(&token.introduce(), ms(120_000)).is_err(), "for good");
}

#[test]
fn a_request_that_read_the_clock_early_cannot_revive_what_was_refused() {
    let (sessions, token) = (sessions(10), Token::new("t", 0));
    assert!(sessions.judge(&token.introduce(), ms(60_001)).is_err());
    assert!(sessions.judge(&token.introduce(), ms(59_999)).is_err());
}

#[test]
fn sessions_leave_only_when_idle_or_expired() {
    let sessions = sessions(10_000);
    for i in 0..1_000 {
        let token = Token::new(&i.to_string(), 0);
        let session = sessions.judge(&token.introduce(), ms(1_000)).unwrap();
        assert!(sessions.used(&session, ms(if i < 400 { 1_000 } else { 100_000 })));
    }
    let grace = i64::try_from(GRACE.as_millis()).unwrap();
    assert_eq!(sessions.sweep(ms(61_000 + grace), 1), Left::default());
    assert_eq!(sessions.sweep(ms(61_001 + grace), 1), Left { idle: 400, ..Left::default() });
    assert_eq!(sessions.tracked(), 600);

    sessions.set_idle_timeout(None);
    assert_eq!(sessions.sweep(ms(HOUR + 30_000), 1), Left::default());
    assert_eq!(sessions.sweep(ms(HOUR + 30_001), 1), Left { expired: 600, ..Left::default() });
    assert_eq!(sessions.tracked(), 0);
}

#[test]
fn what_leaves_for_room_is_counted_and_refused() {
    let sessions = sessions(100);
    let tokens: Vec<Token> = (0..300).map(|i| Token::new(&i.to_string(), 0)).collect();
    let use_at = |token: &Token, now| {
        let session = sessions.judge(&token.introduce(), ms(now)).unwrap();
        assert!(sessions.used(&session, ms(now)));
        session
    };
    let first = use_at(&tokens[0], 50_000);
    for token in &tokens[1..] {
        use_at(token, 55_000);
    }
    assert_eq!(sessions.tracked(), 100);
    assert_eq!(sessions.sweep(ms(55_000), 1).capacity, 200);
    let refused =
        tokens.iter().filter(|token| sessions.judge(&token.introduce(), ms(61_000)).is_err()).count();
    assert_eq!(refused, 200, "idle by their issue, though used since");
    assert!(!sessions.used(&first, ms(61_000)), "the least recently used was among them");
}

#[test]
fn lists_what_is_in_use_page_by_page() {
    let sessions = sessions(100_000);
    for i in 0..700 {
        let token = Token::new(&i.to_string(), 0);
        let session = sessions.judge(&token.introduce(), ms(1_000)).unwrap();
        assert!(i >= 500 || sessions.used(&session, ms(1_000)));
    }
    let alice = Some(SubjectKey::new("https://a/", "alice"));
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = sessions.list(alice, after, 64, ms(2_000));
        let Some(last) = page.last() else { break };
        after = Some(last.token);
        seen.extend(page.into_iter().map(|row| row.token));
    }
    assert_eq!(seen.len(), 500);
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]));
    assert!(sessions.list(Some(SubjectKey::new("https://b/", "alice")), None, 64, ms(2_000)).is_empty());
    assert!(sessions.list(alice, None, 64, ms(61_001)).is_empty(), "idle by now");
}

#[test]
fn threads_agree_on_the_end() {
    for round in 0..300 {
        let (sessions, token) = (sessions(10), Token::new(&round.to_string(), 0));
        let (clock, refused) = (AtomicI64::new(0), std::sync::atomic::AtomicBool::new(false));
        // A few requests at once, each step of the clock just short of what a thread that lags is refused for.
        let request = |_| {
            let was_refused = refused.load(Ordering::SeqCst);
            let now = ms(clock.fetch_add(25_000, Ordering::SeqCst));
            let used =
                sessions.judge(&token.introduce(), now).is_ok_and(|session| sessions.used(&session, now));
            assert!(!(used && was_refused), "revived");
            if !used {
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
        let session = before.judge(&token.introduce(), ms(0)).unwrap();
        assert!(before.used(&session, ms(now * 1_000)));
        assert!(before.used(&session, ms(now * 1_000)));
    }
    assert_eq!(before.save(&store).await, Ok(50));
    assert_eq!(before.save(&store).await, Ok(0), "nothing changed since");
    let session = before.judge(&tokens[0].introduce(), ms(9_000)).unwrap();
    assert!(before.used(&session, ms(9_000)));
    assert_eq!(before.save(&store).await, Ok(1));

    let now = ms(69_000);
    assert_eq!(after.restore(&store, now).await, Ok(43), "all but those used last at 2 to 8 seconds");
    for (token, used_at) in tokens.iter().zip(1..) {
        let alive = used_at == 1 || used_at >= 9;
        assert_eq!(after.judge(&token.introduce(), now).is_ok(), alive, "{used_at}");
    }
}
