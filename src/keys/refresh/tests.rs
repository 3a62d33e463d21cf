//! Which results confirm a set, which fetches count towards the cooldown, and how long the wait after a
//! failure is.

use jsonwebtoken::Algorithm;

use super::*;
use crate::keys::Settings;
use crate::keys::store::Availability;
use crate::metrics::Metrics;

/// The key of RFC 8037, appendix A.2.
const SET: &str =
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

fn client() -> Client {
    let tls = rustls::ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty());
    Client::new(Arc::new(tls.with_no_client_auth()))
}

fn store(path: &Path, refresh_interval: Duration) -> Arc<KeyStore> {
    let settings = Settings {
        issuer: "https://idp.example/".to_owned(),
        source: KeySource::File(path.to_owned()),
        algorithms: vec![Algorithm::EdDSA],
        refresh_interval,
        max_stale: Duration::from_secs(3_600),
        ..Settings::default()
    };
    KeyStore::new(settings, Metrics::new().unwrap())
}

#[test]
fn failures_wait_longer_each_time_and_no_longer_than_the_cooldown_once_a_set_is_loaded() {
    let client = client();
    for (interval, loaded) in [(300, 30), (30, 30), (10, 10)] {
        let store = store(Path::new("keys.json"), Duration::from_secs(interval));
        let mut refresher = Refresher::new(&store, &client);
        let waits: Vec<_> = (0..7).map(|_| refresher.wait_after_failure().as_millis()).collect();
        assert_eq!(waits, [250, 500, 1_000, 2_000, 4_000, 5_000, 5_000]);
        store.accept(SET.into(), Now::read()).unwrap();
        assert_eq!(refresher.wait_after_failure(), Duration::from_secs(loaded), "{interval}");
    }
}

#[tokio::test]
async fn an_unchanged_file_confirms_the_set_unless_it_could_not_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    std::fs::write(&path, SET).unwrap();
    let client = client();
    for (is_loaded, is_failing, expected) in [
        (true, false, Availability::Usable),
        (true, true, Availability::TooOld),
        (false, false, Availability::NeverLoaded),
        (false, true, Availability::NeverLoaded),
    ] {
        let store = store(&path, Duration::from_secs(300));
        if is_loaded {
            let yesterday = Now::read().wall.minus(Duration::from_secs(86_400));
            store.restore(SET.as_bytes(), yesterday, None).unwrap();
            assert_eq!(store.availability(Now::read()), Availability::TooOld);
        }
        let mut refresher = Refresher::new(&store, &client);
        (refresher.seen, refresher.failing) = (stamp(&path).await, is_failing);
        refresher.tick().await;
        assert_eq!(store.availability(Now::read()), expected, "{is_loaded} {is_failing}");
        assert_eq!(store.instruments().refreshed.get(), 0, "nothing to read");
        refresher.seen = None;
        refresher.tick().await;
        assert_eq!(store.availability(Now::read()), Availability::Usable, "read again");
        assert_eq!(store.instruments().refreshed.get(), 1);
    }
}

#[tokio::test]
async fn the_interval_does_not_start_the_cooldown_and_a_retry_does() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    std::fs::write(&path, SET).unwrap();
    let (client, store) = (client(), store(&path, Duration::from_millis(1)));
    let mut finished = store.asking().finished();
    let mut fetched = async || {
        finished.changed().await.unwrap();
        *finished.borrow_and_update()
    };
    let watch = async {
        for _ in 0..3 {
            assert!(fetched().await);
            assert!(store.asking().is_open(Monotonic::now()), "at the interval");
        }
        assert_eq!(store.failure(), None);
        std::fs::write(&path, "<html>").unwrap();
        // The first failure is a fetch at the interval; those after it are retries.
        while fetched().await {}
        assert!(store.failure().is_some_and(|why| why.starts_with("not a JWK Set: ")));
        assert!(!fetched().await);
        assert!(!store.asking().is_open(Monotonic::now()), "a retry");
    };
    select! {
        () = Refresher::new(&store, &client).run() => panic!("it ended"),
        () = watch => {}
    }
}

#[tokio::test]
async fn a_request_that_came_while_another_fetch_ended_is_answered_by_that_fetch() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    std::fs::write(&path, SET).unwrap();
    let client = client();
    for (is_loaded, is_open, fetches) in [(true, true, 1), (true, false, 0), (false, true, 0)] {
        let store = store(&path, Duration::from_secs(300));
        let _attached = store.asking().attach();
        if is_loaded {
            store.accept(SET.into(), Now::read()).unwrap();
        }
        drop(store.asking().begin(!is_open, Monotonic::now()));
        Refresher::new(&store, &client).act(Wake::Asked).await;
        assert_eq!(store.instruments().refreshed.get(), fetches, "{is_loaded} {is_open}");
    }
}

#[test]
fn a_set_may_ask_to_be_fetched_sooner_but_not_within_the_cooldown() {
    let store = store(Path::new("keys.json"), Duration::from_secs(300));
    for (hint, expected) in
        [("", 300), (r#","spiffe_refresh_hint":100"#, 100), (r#","spiffe_refresh_hint":1"#, 30), ("", 300)]
    {
        let document = SET.replace("]}", &format!("]{hint}}}"));
        store.accept(document.into(), Now::read()).unwrap();
        assert_eq!(store.refresh_interval(), Duration::from_secs(expected), "{hint}");
    }
    for (hint, expected) in [(0, 300), (299, 299), (301, 300), (u64::MAX, 300)] {
        let document = SET.replace("]}", &format!(r#"],"spiffe_refresh_hint":{hint}}}"#));
        store.accept(document.into(), Now::read()).unwrap();
        assert_eq!(store.refresh_interval(), Duration::from_secs(expected), "{hint}");
    }
}
