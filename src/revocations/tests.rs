//! The verdict of a snapshot: which reason is told, what is taken back, what deleted events still end.

use super::*;

const NOW: Now = Now::at_millis(200_000);

fn facts(issuer: &str, issued_at: i64) -> TokenFacts {
    TokenFacts {
        token: TokenKey::new(issuer, "jti"),
        issuer: IssuerKey::new(issuer),
        subject: Some(SubjectKey::new(issuer, "alice")),
        client: Some(ClientKey::new(issuer, "app")),
        issued_at: Timestamp::from_secs(issued_at),
        role_version: None,
    }
}

fn all(issuer: &str, at: i64) -> Vec<Ends> {
    let at = Timestamp::from_secs(at);
    let subject = SubjectKey::new(issuer, "alice");
    vec![
        Ends::Token(TokenKey::new(issuer, "jti")),
        Ends::Subject(subject, at),
        Ends::Client(ClientKey::new(issuer, "app"), at),
        Ends::Issuer(IssuerKey::new(issuer), at),
        Ends::Roles { subject, at, version: None },
    ]
}

#[test]
fn the_first_reason_of_the_list_is_told() {
    let reasons =
        [Ended::Token, Ended::Subject, Ended::Client, Ended::Issuer, Ended::Roles, Ended::BeforeState];
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
    // The event came at 100 of the right clock and 1,000 of running time, and was kept for 50 s.
    for (now, issued_at, ended) in [
        (at(200, 1_100), 99, true),
        (at(200, 1_100), 100, true),
        (at(200, 1_100), 101, false),
        (at(100_000, 100_900), 100, true),
        (at(100_000, 100_900), 101, false),
        // What is younger than the retention was not deleted.
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
