//! The key store: what a fetched, a repeated, a broken and a restored document do to the set in force.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;

use super::*;

const LOADED: Now = Now::at_millis(1_000_000_000);

fn settings(source: KeySource) -> Settings {
    Settings {
        issuer: "https://idp.example.com/".to_owned(),
        source,
        algorithms: vec![Algorithm::ES256, Algorithm::HS256],
        ..Settings::default()
    }
}

fn empty() -> Arc<KeyStore> {
    KeyStore::new(settings(KeySource::Discovery), Metrics::new().unwrap())
}

fn jwk(kid: &str) -> String {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
    format!(r#"{{"kty":"EC","crv":"P-256","kid":"{kid}","x":"{x}","y":"{y}"}}"#)
}

fn jwks(keys: &[&str]) -> Bytes {
    format!(r#"{{"keys":[{}]}}"#, keys.join(",")).into()
}

#[test]
fn the_last_good_set_is_never_replaced_by_a_broken_one() {
    let (store, a, b) = (empty(), jwk("a"), jwk("b"));
    assert_eq!(store.availability(LOADED), Availability::NeverLoaded);
    assert_eq!(store.accept(jwks(&[&a, &b]), LOADED), Ok(true));
    let first = store.current();
    for bad in ["", "{}", "[]", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#, "<html>"] {
        assert!(
            store.accept(Bytes::from_static(bad.as_bytes()), LOADED.plus(Duration::from_secs(5))).is_err()
        );
        assert!(Arc::ptr_eq(&store.current(), &first), "{bad}");
    }
    let deadline = LOADED.plus(Duration::from_secs(86_400));
    assert_eq!(store.availability(deadline), Availability::Usable, "a broken set confirms nothing");
    assert_eq!(store.availability(deadline.plus(Duration::from_millis(1))), Availability::TooOld);
}

#[test]
fn the_generation_changes_with_the_content_only() {
    let (store, a, b) = (empty(), jwk("a"), jwk("b"));
    store.accept(jwks(&[&a, &b]), LOADED).unwrap();
    let generation = store.current().generation();
    let later = LOADED.plus(Duration::from_secs(90_000));
    assert_eq!(store.availability(later), Availability::TooOld);
    let reordered = format!("{{ \"x\": 1, \"keys\": [{b}, {a}, {{\"kty\":\"new\"}}] }}");
    assert_eq!(store.accept(reordered.into(), later), Ok(false));
    assert_eq!(store.current().generation(), generation);
    assert_eq!(store.availability(later), Availability::Usable);
    assert_eq!(store.accept(jwks(&[&b]), later), Ok(true));
    assert_ne!(store.current().generation(), generation);
    assert!(!store.current().knows("a"), "a key that was removed is gone");
}

#[test]
fn a_loaded_set_ages_by_the_monotonic_clock_alone() {
    let store = empty();
    store.accept(jwks(&[&jwk("a")]), LOADED).unwrap();
    let (day, century) = (Duration::from_secs(86_400), Duration::from_secs(100 * 365 * 86_400));
    for wall in [LOADED.wall, LOADED.wall.plus(century), LOADED.wall.minus(century)] {
        for (after, expected) in
            [(day, Availability::Usable), (day + Duration::from_millis(1), Availability::TooOld)]
        {
            let now = Now { wall, monotonic: LOADED.monotonic.plus(after) };
            assert_eq!(store.availability(now), expected, "{wall}");
        }
    }
}

#[test]
fn restored_keys_keep_their_age_whatever_the_wall_clock_says_at_the_start() {
    let (a, b) = (jwk("a"), jwk("b"));
    let source = empty();
    let fetched = Now::read();
    source.accept(jwks(&[&a]), fetched).unwrap();
    let kept = source.last_good().borrow().clone().unwrap();
    assert_eq!(kept.fetched_at, fetched);
    let store = empty();
    assert!(store.restore(b"{}", fetched.wall, None).is_err());
    assert_eq!(store.availability(fetched), Availability::NeverLoaded);
    store.restore(&kept.jwks, fetched.wall, None).unwrap();
    assert!(store.current().knows("a"));
    let (day, minute) = (Duration::from_secs(86_400), Duration::from_secs(60));
    let (soon, late) = (day - minute, day + minute);
    let later = |wall: Duration, monotonic: Duration| Now {
        wall: fetched.wall.plus(wall),
        monotonic: Monotonic::now().plus(monotonic),
    };
    for (name, now, expected) in [
        ("both clocks", later(soon, soon), Availability::Usable),
        ("both clocks", later(late, late), Availability::TooOld),
        ("the time between the processes", later(late, minute), Availability::TooOld),
        ("and the clock is right again", later(minute, minute), Availability::Usable),
        ("the clock is behind", later(Duration::ZERO, late), Availability::TooOld),
    ] {
        assert_eq!(store.availability(now), expected, "{name}");
    }
    // Running time of earlier processes counts, so that restarts with a clock that is behind add up.
    let store = empty();
    store.restore(&kept.jwks, fetched.wall, Some(Monotonic::now().minus(soon))).unwrap();
    assert_eq!(store.availability(later(Duration::ZERO, Duration::ZERO)), Availability::Usable);
    assert_eq!(store.availability(later(Duration::ZERO, minute * 3)), Availability::TooOld);
    store.accept(jwks(&[&b]), later(Duration::ZERO, Duration::ZERO)).unwrap();
    assert_eq!(store.availability(later(late, minute)), Availability::Usable, "fetched by this process");
    store.restore(&kept.jwks, fetched.wall, None).unwrap();
    assert!(!store.current().knows("a"), "a loaded set is not replaced by a restored one");
    let future = empty();
    future
        .restore(&kept.jwks, Timestamp::from_millis(i64::MAX), Some(Monotonic::from_millis(i64::MAX)))
        .unwrap();
    assert_eq!(future.availability(later(late, late)), Availability::TooOld, "the future is not believed");
}

#[test]
fn the_provenance_changes_with_the_source_and_with_whom_it_is_trusted_from() {
    let base = || settings(KeySource::Url("https://idp.example.com/jwks".to_owned()));
    let same = [Settings { max_stale: Duration::ZERO, algorithms: Vec::new(), ..base() }, base()];
    let others = [
        settings(KeySource::Url("https://idp.example.com/jwks2".to_owned())),
        settings(KeySource::File("https://idp.example.com/jwks".into())),
        settings(KeySource::Discovery),
        Settings { ca: Some("ca.pem".into()), ..base() },
        Settings { insecure_http: true, ..base() },
        Settings { issuer: "https://other.example.com/".to_owned(), ..settings(KeySource::Discovery) },
    ];
    assert!(same.iter().all(|same| same.provenance() == base().provenance()));
    let mut all: Vec<String> = others.iter().map(Settings::provenance).collect();
    all.push(base().provenance());
    all.sort();
    all.dedup();
    assert_eq!(all.len(), others.len() + 1);
}

#[test]
fn a_secret_is_in_force_for_ever_unless_it_is_too_short() {
    let metrics = Metrics::new().unwrap();
    let store = KeyStore::new(settings(KeySource::Secret(vec![9; 32])), metrics.clone());
    assert_eq!(store.availability(Now::at_millis(i64::MAX)), Availability::Usable);
    assert!(store.current().knows("any"));
    let page = || metrics.render().unwrap();
    let line = |count| format!("portcullis_keys{{issuer=\"https://idp.example.com/\"}} {count}\n");
    assert!(page().contains(&line(0)), "nothing is exported before the store is in force");
    store.begin_export(LOADED);
    assert!(page().contains(&line(1)));
    let short = KeyStore::new(settings(KeySource::Secret(vec![9; 31])), metrics.clone());
    assert_eq!(short.availability(LOADED), Availability::NeverLoaded);
    assert!(!format!("{store:?}").contains("9, 9"), "no secret in a debug print");
}

#[tokio::test(start_paused = true)]
async fn without_a_refresher_nobody_waits() {
    let metrics = Metrics::new().unwrap();
    let set = KeySet::new(jwks::parse(&jwks(&[&jwk("a")]), &[Algorithm::ES256]).unwrap().keys);
    let store = KeyStore::fixed(settings(KeySource::Discovery), set, metrics);
    assert!(!store.worth_asking(&WantedKey::key("b"), Monotonic::now()));
    assert!(store.worth_asking(&WantedKey::key("a"), Monotonic::now()), "it is there: look again");
    timeout(Duration::from_secs(1), store.ask(&WantedKey::key("b"))).await.expect("returns at once");
    let next = KeySet::new(jwks::parse(&jwks(&[&jwk("b")]), &[Algorithm::ES256]).unwrap().keys);
    store.install(next);
    assert!(store.current().knows("b") && !store.current().knows("a"));
}

#[test]
fn the_age_is_exported() {
    let (store, line) = {
        let metrics = Metrics::new().unwrap();
        let store = KeyStore::new(settings(KeySource::Discovery), metrics.clone());
        (store, move || {
            let page = metrics.render().unwrap();
            let line = page.lines().find(|line| line.starts_with("portcullis_keys_age_seconds{")).unwrap();
            line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
        })
    };
    store.begin_export(Now::read().plus(Duration::from_secs(50)));
    assert!(line() >= 50.0, "never loaded: counted from the start");
    store.accept(jwks(&[&jwk("a")]), LOADED).unwrap();
    store.export(LOADED.plus(Duration::from_secs(7)));
    assert!((line() - 7.0).abs() < 0.001);
}

#[test]
fn a_restored_set_does_not_count_as_a_try_of_this_process() {
    let (source, now) = (empty(), Now::read());
    source.accept(jwks(&[&jwk("a")]), now).unwrap();
    assert!(source.was_tried(), "fetched");
    let kept = source.last_good().borrow().clone().unwrap();
    let store = empty();
    assert!(!store.was_tried(), "never loaded");
    store.restore(&kept.jwks, now.wall.minus(Duration::from_secs(2 * 86_400)), None).unwrap();
    assert_eq!(store.availability(now), Availability::TooOld);
    assert!(!store.was_tried(), "restored");
    store.instruments.failed.inc();
    assert!(store.was_tried(), "failed");
    let store = empty();
    store.restore(&kept.jwks, now.wall, None).unwrap();
    store.confirm(now);
    assert!(store.was_tried(), "confirmed");
}

#[test]
fn the_failure_is_that_of_the_last_fetch() {
    let store = empty();
    assert_eq!(store.failure(), None);
    store.set_failure(Some("no route to host".to_owned()));
    assert_eq!(store.failure().as_deref().map(String::as_str), Some("no route to host"));
    store.set_failure(None);
    assert_eq!(store.failure(), None);
}
