//! The verdict of a snapshot: which reason is reported, what is undone, and what deleted events still end.

use super::*;
use crate::identity::{ClientKey, SessionKey, SubjectKey, TokenKey, TokenNames};
use crate::time::Monotonic;

const NOW: Now = Now::at_millis(200_000);

fn facts(issuer: &str, issued_at: i64) -> TokenFacts {
    TokenFacts {
        token: TokenKey::new(issuer, "jti"),
        issuer: IssuerKey::new(issuer),
        subject: Some(SubjectKey::new(issuer, "alice")),
        client: Some(ClientKey::new(issuer, "app")),
        issued_at: Timestamp::from_secs(issued_at),
        role_version: None,
        names: TokenNames::new(issuer, None, Vec::new(), Some("log-in")).map(Arc::new),
    }
}

fn all(issuer: &str, at: i64) -> Vec<Ends> {
    let at = Timestamp::from_secs(at);
    let subject = SubjectKey::new(issuer, "alice");
    vec![
        Ends::Token(TokenKey::new(issuer, "jti")),
        Ends::Session(SessionKey::new(issuer, "log-in"), at),
        Ends::Subject(subject, at),
        Ends::Client(ClientKey::new(issuer, "app"), at),
        Ends::Issuer(IssuerKey::new(issuer), at),
        Ends::Roles { subject, at, version: None },
    ]
}

#[test]
fn the_first_reason_of_the_list_is_told() {
    let reasons = [
        Ended::Token,
        Ended::Session,
        Ended::Subject,
        Ended::Client,
        Ended::Issuer,
        Ended::Roles,
        Ended::BeforeState,
    ];
    for (first, reason) in reasons.into_iter().enumerate() {
        let revocations = Revocations::new(Some(Timestamp::from_millis(100_999)));
        let ends = all("https://a/", 100);
        revocations.apply(ends.into_iter().skip(first));
        assert_eq!(revocations.load().judge(&facts("https://a/", 99), NOW), Some(reason));
        assert_eq!(revocations.load().judge(&facts("https://b/", 100), NOW), None, "another issuer's token");
    }
}

#[test]
fn the_second_of_the_stores_creation_is_still_accepted() {
    let revocations = Revocations::new(Some(Timestamp::from_millis(100_999)));
    assert_eq!(revocations.load().judge(&facts("https://a/", 100), NOW), None);
    assert_eq!(revocations.load().judge(&facts("https://a/", 99), NOW), Some(Ended::BeforeState));
}

#[test]
fn restating_takes_back_one_event_and_leaves_the_others() {
    for (index, ends) in all("https://a/", 100).into_iter().enumerate() {
        let revocations = Revocations::new(None);
        revocations.apply([ends]);
        let before = revocations.load().generation();
        assert!(revocations.load().judge(&facts("https://a/", 100), NOW).is_some(), "{index}");
        revocations.restate([(ends, None)]);
        assert_eq!(revocations.load().judge(&facts("https://a/", 100), NOW), None, "{index}");
        assert_eq!(revocations.load().counts(), Counts::default());
        revocations.restate([(ends, Some(ends))]);
        assert!(revocations.load().judge(&facts("https://a/", 100), NOW).is_some(), "{index}");
        assert!(revocations.load().generation() > before);
    }
}

#[test]
fn what_was_deleted_ends_old_tokens_of_its_issuer_and_no_others() {
    let at = |wall: i64, monotonic: i64| Now {
        wall: Timestamp::from_secs(wall),
        monotonic: Monotonic::from_millis(monotonic * 1_000),
    };
    // The event came at 100 by the correct clock and 1,000 of running time, and was kept for 50 s.
    for (now, issued_at, ended) in [
        (at(200, 1_100), 99, true),
        (at(200, 1_100), 100, true),
        (at(200, 1_100), 101, false),
        (at(100_000, 100_900), 100, true),
        (at(100_000, 100_900), 101, false),
        // Events for tokens younger than the retention were not deleted.
        (at(120, 1_020), 71, false),
        (at(120, 1_020), 70, true),
        // 30 s in which no gate ran are not counted: the event seems to have come later.
        (at(230, 1_100), 130, true),
        (at(230, 1_100), 131, false),
    ] {
        let revocations = Revocations::new(None);
        let horizon =
            Horizon { until: Monotonic::from_millis(1_000_000), retention: Duration::from_secs(50) };
        revocations.set_horizons([(IssuerKey::new("https://a/"), horizon)]);
        let snapshot = revocations.load();
        let facts = |issuer| facts(issuer, issued_at);
        let judged = snapshot.judge(&facts("https://a/"), now);
        assert_eq!(judged, ended.then_some(Ended::BeforeState), "{now:?} {issued_at}");
        assert_eq!(snapshot.judge(&facts("https://b/"), now), None, "another issuer's");
        if ended {
            let since = snapshot.grounds(&facts("https://a/"), Ended::BeforeState, now).at;
            assert!(since > Some(Timestamp::from_secs(issued_at)), "{now:?} {issued_at}");
        }
    }
}

#[test]
fn a_token_lasts_if_it_expires_before_it_is_older_than_what_is_known() {
    let revocations = Revocations::new(None);
    let (a, of) = (IssuerKey::new("https://a/"), |secs| Duration::from_secs(secs));
    let (early, late) = (Monotonic::from_millis(0), Monotonic::from_millis(9_000_000));
    revocations.set_horizons([
        (a, Horizon { until: late, retention: of(500) }),
        (a, Horizon { until: early, retention: of(50) }),
    ]);
    let snapshot = revocations.load();
    for (issuer, life, lasting) in
        [("https://a/", 50, true), ("https://a/", 51, false), ("https://b/", 9_000, true)]
    {
        let expires_at = Timestamp::from_secs(100 + life);
        assert_eq!(snapshot.is_lasting(&facts(issuer, 100), expires_at), lasting, "{issuer} {life}");
    }
}

#[test]
fn a_held_snapshot_stays_as_it_was() {
    let revocations = Revocations::new(None);
    let held = revocations.load();
    let ends = Ends::Issuer(IssuerKey::new("https://a/"), Timestamp::from_secs(100));
    revocations.apply([ends]);
    assert_eq!(held.judge(&facts("https://a/", 100), NOW), None);
    assert_eq!(revocations.load().judge(&facts("https://a/", 100), NOW), Some(Ended::Issuer));
}

#[test]
fn entries_are_counted_by_what_they_name() {
    let revocations = Revocations::new(None);
    let (key, at) = (|i: u8| Key::from_bytes([i; 16]), Timestamp::from_secs(100));
    revocations.apply((0..4).map(|i| Ends::Subject(SubjectKey(key(i)), at)));
    revocations.apply((0..3).map(|i| Ends::Client(ClientKey(key(i)), at)));
    revocations.apply((0..2).map(|i| Ends::Token(TokenKey(key(i)))));
    revocations.apply((0..5).map(|i| Ends::Session(SessionKey(key(i)), at)));
    revocations.apply([Ends::Issuer(IssuerKey(key(0)), at)]);
    revocations.apply([Ends::Roles { subject: SubjectKey(key(0)), at, version: None }]);
    let counted = revocations.load().counts();
    assert_eq!(counted, Counts { subjects: 4, clients: 3, sessions: 5, tokens: 2, issuers: 1 });
}

#[test]
fn a_later_beginning_of_the_store_ends_what_was_issued_before_it() {
    let revocations = Revocations::new(None);
    assert_eq!(revocations.load().not_before(), None);
    for begins in [100_999, 50_000, 150_000] {
        let before = revocations.load().generation();
        revocations.set_not_before(Timestamp::from_millis(begins));
        let snapshot = revocations.load();
        assert_eq!(snapshot.not_before(), Some(Timestamp::from_millis(begins)));
        assert!(snapshot.generation() > before, "what was judged before is judged again");
        let judged = |issued_at| snapshot.judge(&facts("https://a/", issued_at), NOW);
        assert_eq!(judged(begins / 1_000), None, "{begins}");
        assert_eq!(judged(begins / 1_000 - 1), Some(Ended::BeforeState), "{begins}");
    }
}

#[test]
fn what_was_deleted_of_a_shared_log_ends_old_tokens_of_every_issuer() {
    let revocations = Revocations::new(None);
    let horizon = |secs: i64, retention| Horizon {
        until: Monotonic::from_millis(secs * 1_000),
        retention: Duration::from_secs(retention),
    };
    revocations.set_common_horizons([horizon(90, 10), horizon(120, 10)]);
    for issuer in ["https://a/", "https://b/"] {
        assert_eq!(revocations.load().judge(&facts(issuer, 120), NOW), Some(Ended::BeforeState));
        assert_eq!(revocations.load().judge(&facts(issuer, 121), NOW), None);
        let expires_at = |life: i64| Timestamp::from_secs(121 + life);
        assert!(revocations.load().is_lasting(&facts(issuer, 121), expires_at(10)));
        assert!(!revocations.load().is_lasting(&facts(issuer, 121), expires_at(11)));
    }
    revocations.set_common_horizons([]);
    assert_eq!(revocations.load().judge(&facts("https://a/", 120), NOW), None, "replaced");
}

#[test]
fn the_grounds_of_a_verdict_name_what_the_token_was_compared_with() {
    let (issuer, at) = ("https://a/", Timestamp::from_secs(100));
    let subject = SubjectKey::new(issuer, "alice");
    for (version, ended, expected) in [
        (None, Ended::Roles, EndedBy { at: Some(at), role_version: None }),
        (Some(0), Ended::Roles, EndedBy { at: Some(at), role_version: None }),
        (Some(1), Ended::Roles, EndedBy { at: Some(at), role_version: Some(1) }),
        (Some(7), Ended::Roles, EndedBy { at: Some(at), role_version: Some(7) }),
        (Some(7), Ended::Subject, EndedBy { at: Some(at), role_version: None }),
        (Some(7), Ended::Token, EndedBy { at: None, role_version: None }),
    ] {
        let revocations = Revocations::new(None);
        revocations.apply(all(issuer, 100));
        revocations.apply([Ends::Roles { subject, at, version }]);
        let grounds = revocations.load().grounds(&facts(issuer, 99), ended, NOW);
        assert_eq!(grounds, expected, "{version:?} {ended:?}");
    }
}

#[test]
fn folding_is_due_when_much_changed_and_changes_no_verdict() {
    // Keys that lie in the first part of their table.
    let key = |i: u64| Key::from_bytes(u128::from(i).to_be_bytes());
    let at = Timestamp::from_secs(100);
    let kinds: [&dyn Fn(u64) -> Ends; 3] =
        [&|i| Ends::Subject(SubjectKey(key(i)), at), &|i| Ends::Client(ClientKey(key(i)), at), &|i| {
            Ends::Token(TokenKey(key(i)))
        }];
    for (kind, ends) in kinds.into_iter().enumerate() {
        let revocations = Revocations::new(None);
        revocations.apply((0..64).map(ends));
        assert!(!revocations.is_due(), "{kind}");
        revocations.apply([ends(64)]);
        assert!(revocations.is_due(), "{kind}");
        let (generation, counted) = (revocations.load().generation(), revocations.load().counts());
        revocations.fold();
        assert!(!revocations.is_due(), "{kind}");
        assert_eq!((revocations.load().generation(), revocations.load().counts()), (generation, counted));
        for i in 0..66 {
            let facts = TokenFacts {
                token: TokenKey(key(i)),
                subject: Some(SubjectKey(key(i))),
                client: Some(ClientKey(key(i))),
                ..facts("https://a/", 100)
            };
            assert_eq!(revocations.load().judge(&facts, NOW).is_some(), i < 65, "{kind} {i}");
        }
        let replayed = Revocations::new(None);
        replayed.replay((0..65).map(ends));
        assert!(!replayed.is_due(), "folded as it was replayed: {kind}");
        assert_eq!(replayed.load().counts(), counted);
    }
}

/// A token of ada's: her address, an alias of hers, and her login session `x`.
fn named() -> TokenFacts {
    let (issuer, subject) = ("https://a/", SubjectKey::new("https://a/", "ada"));
    let others = vec![SubjectKey::email(issuer, "ada@A.test"), SubjectKey::alias(issuer, "007")];
    let names = TokenNames::new(issuer, Some(subject), others, Some("x")).map(Arc::new);
    TokenFacts { subject: Some(subject), names, ..facts(issuer, 100) }
}

#[test]
fn an_event_reaches_a_token_by_every_name_that_it_carries() {
    let (a, b) = ("https://a/", "https://b/");
    let ada = SubjectKey::new(a, "ada");
    let at = Timestamp::from_secs(100);
    let roles = |subject| Ends::Roles { subject, at, version: None };
    for (ends, expected) in [
        (Ends::Subject(ada, at), Some(Ended::Subject)),
        (Ends::Subject(SubjectKey::email(a, "ada@a.test"), at), Some(Ended::Subject)),
        (Ends::Subject(SubjectKey::alias(a, "007"), at), Some(Ended::Subject)),
        (roles(SubjectKey::email(a, "ada@a.test")), Some(Ended::Roles)),
        (roles(SubjectKey::alias(a, "007")), Some(Ended::Roles)),
        (Ends::Session(SessionKey::new(a, "x"), at), Some(Ended::Session)),
        (Ends::Session(SessionKey::of(a, "x", ada), at), Some(Ended::Session)),
        (Ends::Session(SessionKey::of(a, "x", SubjectKey::alias(a, "007")), at), Some(Ended::Session)),
        (Ends::Session(SessionKey::new(a, "x"), Timestamp::from_secs(99)), None),
        (Ends::Session(SessionKey::of(a, "x", SubjectKey::new(a, "bob")), at), None),
        (Ends::Session(SessionKey::new(a, "y"), at), None),
        (Ends::Session(SessionKey::new(b, "x"), at), None),
        (Ends::Subject(SubjectKey::email(a, "Ada@a.test"), at), None),
        (Ends::Subject(SubjectKey::new(a, "ada@a.test"), at), None),
        (Ends::Subject(SubjectKey::new(a, "007"), at), None),
        (Ends::Subject(SubjectKey::alias(a, "ada"), at), None),
        (Ends::Subject(SubjectKey::alias(b, "007"), at), None),
    ] {
        let revocations = Revocations::new(None);
        revocations.apply([ends]);
        let snapshot = revocations.load();
        assert_eq!(snapshot.judge(&named(), NOW), expected, "{ends:?}");
        let grounds = expected.map(|ended| snapshot.grounds(&named(), ended, NOW).at);
        assert_eq!(grounds, expected.map(|_| Some(at)), "{ends:?}");
        let bare = TokenFacts { names: None, ..named() };
        let expected = expected.filter(|_| ends == Ends::Subject(ada, at));
        assert_eq!(snapshot.judge(&bare, NOW), expected, "without its names: {ends:?}");
        revocations.restate([(ends, [])]);
        assert_eq!(revocations.load().judge(&named(), NOW), None, "taken back: {ends:?}");
    }
}

#[test]
fn the_latest_event_under_any_name_counts() {
    let a = "https://a/";
    let (ada, alias) = (SubjectKey::new(a, "ada"), SubjectKey::alias(a, "007"));
    let at = Timestamp::from_secs;
    let revocations = Revocations::new(None);
    revocations.apply([
        Ends::Subject(ada, at(150)),
        Ends::Subject(alias, at(120)),
        Ends::Roles { subject: ada, at: at(10), version: Some(3) },
        Ends::Roles { subject: alias, at: at(20), version: Some(5) },
    ]);
    let snapshot = revocations.load();
    assert_eq!(snapshot.grounds(&named(), Ended::Subject, NOW).at, Some(at(150)));
    for (version, expected) in [(4, Some(Ended::Roles)), (5, None)] {
        let facts = TokenFacts { issued_at: at(151), role_version: Some(version), ..named() };
        assert_eq!(snapshot.judge(&facts, NOW), expected, "{version}");
    }
    assert_eq!(snapshot.grounds(&named(), Ended::Roles, NOW).role_version, Some(5));
}
