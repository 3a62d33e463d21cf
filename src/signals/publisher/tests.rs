//! Which tokens in use count as ended by a signal, and how signals are logged and counted.

use super::*;
use crate::identity::{SubjectKey, TokenKey, TokenNames};
use crate::log::testing::KeptLog;
use crate::sessions::{self, Introduction};
use crate::state::Store;
use crate::state::record::SubjectKind;
use crate::time::Timestamp;

const ISSUER: &str = "https://idp.example/";

struct Scene {
    signals: Arc<SignalLog>,
    sessions: Arc<Sessions>,
    log: Arc<EventLog>,
    metrics: Metrics,
    issuer: Arc<str>,
    now: Now,
}

impl Scene {
    async fn new() -> Self {
        let (now, metrics) = (Now::read(), Metrics::new().unwrap());
        let revocations = Arc::new(Revocations::new(None));
        let log = EventLog::start(Store::in_memory(now).unwrap(), Arc::clone(&revocations)).await.unwrap();
        let settings = sessions::Settings {
            idle_timeouts: None.into(),
            max_tracked: 1_000,
            leeway: Duration::ZERO,
            saved: false,
        };
        let sessions = Arc::new(Sessions::new(settings));
        let signals = SignalLog::start(Arc::clone(&log), revocations, Arc::clone(&sessions), &metrics);
        Self { signals, sessions, log, metrics, issuer: ISSUER.into(), now }
    }

    /// Uses a token that was issued `age` seconds ago.
    fn use_token(&self, jti: &str, subject: &str, session: &str, age: u64) {
        let issued_at = self.now.wall.minus(Duration::from_secs(age));
        let (subject, email) = (SubjectKey::new(ISSUER, subject), SubjectKey::email(ISSUER, subject));
        let names = TokenNames::new(ISSUER, Some(subject), vec![email], Some(session)).map(Arc::new);
        let token = Introduction {
            token: TokenKey::new(ISSUER, jti),
            issuer: &self.issuer,
            subject: Some(subject),
            client: Some(&"app".into()),
            names: names.as_ref(),
            issued_at,
            known_since: issued_at,
            expires_at: self.now.wall.plus(Duration::from_secs(3600)),
        };
        assert!(self.sessions.begin(None, &token, None, self.now).is_ok());
    }

    fn at(&self, age: u64) -> (Timestamp, Timestamp) {
        let wall = self.now.wall;
        (wall.minus(Duration::from_secs(age)), wall.plus(Duration::from_secs(9_000)))
    }

    fn named(&self, kind: SubjectKind, name: &str) -> Event {
        let (at, end) = self.at(0);
        Event::named(EventKind::SubjectRevoked, &self.issuer, (kind, name), at, end)
    }

    async fn publish(&self, events: Vec<Event>, passed_over: Vec<&'static str>) {
        let signal = Signal { source: EventSource::Scim, sender: "idp".into(), events, passed_over };
        self.signals.publish(signal, self.now).await.unwrap();
    }

    /// Returns how many signals were counted so far, by type and match; waits until there are `all`.
    async fn told(&self, all: u64) -> Vec<(&'static str, &'static str, u64)> {
        let types = [
            "subject-revoked",
            "role-changed",
            "session-revoked",
            "token-revoked",
            "client-revoked",
            "issuer-revoked",
            "none",
        ];
        testkit::eventually_async("the signals are counted", || {
            let each = types.into_iter().flat_map(|word| ["yes", "no"].map(|matched| (word, matched)));
            let count = |(word, matched)| {
                let count = self.metrics.signals.with_label_values(&["scim", word, matched]).get();
                (word, matched, count)
            };
            let told: Vec<_> = each.map(count).filter(|(.., count)| *count > 0).collect();
            (told.iter().map(|(.., count)| count).sum::<u64>() >= all).then_some(told)
        })
        .await
    }
}

#[tokio::test(start_paused = true)]
async fn a_signal_matches_when_it_ends_a_token_in_use_by_any_name() {
    for (number, (event, expected)) in (0..).zip([
        (0, true),
        (1, true),
        (2, true),
        (3, true),
        (4, true),
        (5, true),
        (6, true),
        (7, false),
        (8, false),
        (9, false),
        (10, false),
    ]) {
        let scene = Scene::new().await;
        scene.use_token("t", "ada@a.test", "s", 10);
        let ((now, end), (before, _)) = (scene.at(0), scene.at(20));
        let (issuer, only) = (&scene.issuer, Some((SubjectKind::Subject, "bob")));
        let events = [
            scene.named(SubjectKind::Subject, "ada@a.test"),
            scene.named(SubjectKind::Email, "ada@a.test"),
            Event::subject(EventKind::RoleChanged, issuer, "ada@a.test", now, end),
            Event::session(issuer, "s", None, now, end),
            Event::token(issuer, "t", before, end),
            Event::client(issuer, "app", now, end),
            Event::issuer(issuer, now, end),
            scene.named(SubjectKind::Alias, "ada@a.test"),
            Event::session(issuer, "s", only, now, end),
            Event::subject(EventKind::SubjectRevoked, issuer, "ada@a.test", before, end),
            Event::client(issuer, "other", now, end),
        ];
        let word = events[event].kind.as_str();
        scene.publish(vec![events[event].clone()], Vec::new()).await;
        let matched = if expected { "yes" } else { "no" };
        assert_eq!(scene.told(1).await, [(word, matched, 1)], "{number}: {:?}", events[event]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_counts_for_the_first_signal_that_ends_it_and_for_no_repetition() {
    let scene = Scene::new().await;
    for jti in ["1", "2", "3"] {
        scene.use_token(jti, "ada", "s", 10);
    }
    let subject = scene.named(SubjectKind::Subject, "ada");
    scene.publish(vec![subject.clone()], Vec::new()).await;
    assert_eq!(scene.told(1).await, [("subject-revoked", "yes", 1)]);
    scene.publish(vec![subject.clone()], Vec::new()).await;
    assert_eq!(scene.told(2).await, [("subject-revoked", "yes", 1), ("subject-revoked", "no", 1)]);
    // A signal that was undone and is delivered again ends nothing; a new one does.
    scene.log.undo(1, EventSource::Admin, scene.now).await.unwrap();
    scene.publish(vec![subject], Vec::new()).await;
    assert_eq!(scene.told(3).await, [("subject-revoked", "yes", 1), ("subject-revoked", "no", 2)]);
    scene.publish(vec![scene.named(SubjectKind::Email, "ada")], Vec::new()).await;
    assert_eq!(scene.told(4).await, [("subject-revoked", "yes", 2), ("subject-revoked", "no", 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_may_be_of_the_newest_role_version_is_ended_by_what_follows() {
    let scene = Scene::new().await;
    scene.use_token("t", "ada", "s", 10);
    let ((changed, end), issuer) = (scene.at(5), &scene.issuer);
    let change = Event::subject(EventKind::RoleChanged, issuer, "ada", changed, end);
    scene.publish(vec![Event { role_version: Some(7), ..change }], Vec::new()).await;
    assert_eq!(scene.told(1).await, [("role-changed", "yes", 1)], "a session does not know the version");
    scene.publish(vec![scene.named(SubjectKind::Subject, "ada")], Vec::new()).await;
    assert_eq!(scene.told(2).await, [("subject-revoked", "yes", 1), ("role-changed", "yes", 1)]);
}

#[tokio::test(start_paused = true)]
async fn what_has_no_meaning_is_told_as_such() {
    let scene = Scene::new().await;
    scene.use_token("t", "ada", "s", 10);
    scene.publish(Vec::new(), vec!["unknown-event", "no-effect"]).await;
    assert_eq!(scene.told(1).await, [("none", "no", 1)]);
    scene.publish(vec![scene.named(SubjectKind::Subject, "ada")], vec!["unknown-subject"]).await;
    assert_eq!(scene.told(3).await, [("subject-revoked", "yes", 1), ("none", "no", 2)]);
    for (word, count) in
        [("unknown-event", 1), ("no-effect", 1), ("unknown-subject", 1), ("subject-revoked", 1)]
    {
        assert_eq!(scene.metrics.events.with_label_values(&[word, "scim"]).get(), count, "{word}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_says_what_a_signal_said_and_ended() {
    let log = KeptLog::start();
    let scene = Scene::new().await;
    for jti in ["1", "2"] {
        scene.use_token(jti, "ada", "s", 10);
    }
    let (ada, bob) = (scene.named(SubjectKind::Subject, "ada"), scene.named(SubjectKind::Subject, "bob"));
    let ((now, end), issuer) = (scene.at(0), &scene.issuer);
    scene
        .publish(vec![bob, ada, Event::client(issuer, "other", now, end)], vec!["no-effect", "other-issuer"])
        .await;
    scene.publish(Vec::new(), vec!["unknown-event"]).await;
    scene.told(4).await;
    let lines = log.lines("signal");
    let shown = |line: &serde_json::Value| {
        ["source", "sender", "types", "passed_over", "tokens_ended"].map(|name| line[name].clone())
    };
    let expected: [[serde_json::Value; 5]; 2] = [
        [
            "scim".into(),
            "idp".into(),
            "subject-revoked client-revoked".into(),
            "no-effect other-issuer".into(),
            2.into(),
        ],
        ["scim".into(), "idp".into(), "".into(), "unknown-event".into(), 0.into()],
    ];
    assert_eq!(lines.iter().map(shown).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn signals_that_did_not_come_into_force_are_counted_by_their_source() {
    let scene = Scene::new().await;
    let count = |source: &str| scene.metrics.signals.with_label_values(&[source, "none", "no"]).get();
    scene.signals.ignored(EventSource::Logout);
    assert_eq!((count("logout"), count("gtr"), count("ssf")), (1, 0, 0));
    for sender in [Some("idp"), None] {
        scene.signals.refused(EventSource::GlobalRevocation, sender, "no reason");
    }
    assert_eq!((count("logout"), count("gtr"), count("ssf")), (1, 2, 0));
}

#[test]
fn an_event_reaches_the_tokens_that_were_issued_until_its_second_and_a_named_token_always() {
    let (issuer, end) = (Arc::<str>::from(ISSUER), Timestamp::from_secs(9_000));
    let at = Timestamp::from_millis(100_400);
    for (issued, expected) in [(99_999, true), (100_000, true), (100_999, true), (101_000, false)] {
        let facts = TokenFacts {
            token: TokenKey::new(ISSUER, "t"),
            issuer: IssuerKey::new(ISSUER),
            subject: None,
            client: None,
            issued_at: Timestamp::from_millis(issued),
            role_version: None,
            names: None,
        };
        let subject = Event::subject(EventKind::SubjectRevoked, &issuer, "ada", at, end);
        assert_eq!(reaches(&subject, &facts), expected, "{issued}");
        assert_eq!(reaches(&Event::issuer(&issuer, at, end), &facts), expected, "{issued}");
        assert!(reaches(&Event::token(&issuer, "t", at, end), &facts), "{issued}");
    }
}
