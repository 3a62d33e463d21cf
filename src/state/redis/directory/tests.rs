//! Directories on a real server: what a copy is told, and which of two changes wins.

use testkit::redis_server::RedisServer;
use testkit::relay::Relay;

use super::*;
use crate::state::redis::testing::{Replica, TERMS};

fn entry(key: &str, body: Option<&str>) -> DirectoryEntry {
    DirectoryEntry { key: key.into(), body: body.map(Into::into) }
}

async fn change(
    gate: &Replica,
    known: &DirectoryRevision,
    entries: &[DirectoryEntry],
) -> Option<DirectoryRevision> {
    gate.store.change_directory("entra", known, entries, 0).await.unwrap()
}

async fn news(gate: &Replica, known: &DirectoryRevision) -> Option<DirectoryNews> {
    gate.store.directory_news("entra", known).await.unwrap()
}

#[tokio::test]
async fn a_copy_is_told_what_changed_since_its_revision() {
    let server = RedisServer::start();
    let (first, second) = (Replica::connected(&server).await, Replica::connected(&server).await);
    let none = DirectoryRevision::default();
    assert_eq!(news(&second, &none).await, None);
    let one = change(&first, &none, &[entry("a", Some("1")), entry("b", Some("2"))]).await.unwrap();
    assert_eq!((one.number, one.token.len()), (1, 32));
    let two = change(&first, &one, &[entry("b", None), entry("c", Some("3"))]).await.unwrap();
    assert_eq!(two.number, 2);
    assert_eq!(news(&second, &two).await, None);
    let part = DirectoryNews {
        revision: two.clone(),
        is_whole: false,
        entries: vec![entry("b", None), entry("c", Some("3"))],
    };
    assert_eq!(news(&second, &one).await, Some(part));
    let whole = DirectoryNews {
        revision: two.clone(),
        is_whole: true,
        entries: vec![entry("a", Some("1")), entry("c", Some("3"))],
    };
    let foreign = DirectoryRevision { number: 1, token: "another".into() };
    for known in [none, foreign] {
        assert_eq!(news(&second, &known).await, Some(whole.clone()), "{known:?}");
    }
    // Of two changes from the same revision, one is made.
    assert_eq!(change(&second, &one, &[entry("a", None)]).await, None);
    // A copy that was restored goes on above the revision that it had.
    let above = first.store.change_directory("entra", &two, &[entry("a", None)], 40).await.unwrap().unwrap();
    assert_eq!(above.number, 41);
}

#[tokio::test]
async fn a_large_directory_is_read_as_a_whole() {
    let server = RedisServer::start();
    let gate = Replica::connected(&server).await;
    let names: Vec<String> = (0..2 * PAGE).map(|name| format!("{name:05}")).collect();
    let entries: Vec<DirectoryEntry> = names.iter().map(|name| entry(name, Some(name))).collect();
    let none = DirectoryRevision::default();
    let revision = change(&gate, &none, &entries).await.unwrap();
    let found = news(&gate, &none).await.unwrap();
    assert_eq!((found.revision, found.is_whole), (revision, true));
    assert!(found.entries == entries, "{} of {}", found.entries.len(), entries.len());
}

/// A gate behind a relay that holds its first scan back until `meanwhile` has changed the directory.
async fn scan_while<F: Future<Output = ()>>(
    server: &RedisServer,
    meanwhile: F,
) -> Result<Option<DirectoryNews>, StoreError> {
    let relay = Relay::start(server.port, |bytes| bytes.windows(5).any(|word| word == b"HSCAN"));
    let slow = Replica::new(&relay.url(), TERMS);
    slow.store.open().await.unwrap();
    let store = std::sync::Arc::clone(&slow.store);
    let reading =
        tokio::spawn(async move { store.directory_news("entra", &DirectoryRevision::default()).await });
    let relay = tokio::task::spawn_blocking(move || {
        relay.wait_until_held();
        relay
    });
    let relay = relay.await.unwrap();
    meanwhile.await;
    relay.release();
    reading.await.unwrap()
}

/// Repeats a test on a machine that was too busy to change the directory while the scan waited for its response.
async fn in_time(
    attempt: impl AsyncFn(RedisServer) -> Result<Option<DirectoryNews>, StoreError>,
) -> Result<Option<DirectoryNews>, StoreError> {
    for _ in 0..20 {
        let found = attempt(RedisServer::start()).await;
        if !matches!(&found, Err(StoreError::Unreachable(why)) if why.contains("did not respond in time")) {
            return found;
        }
    }
    panic!("the scan never got its response in time");
}

#[tokio::test]
async fn what_changes_while_a_directory_is_read_is_in_what_was_read() {
    let found = in_time(async |server| {
        let (gate, none) = (Replica::connected(&server).await, DirectoryRevision::default());
        let one = change(&gate, &none, &[entry("a", Some("1")), entry("b", Some("2"))]).await.unwrap();
        let changing = async {
            let entries = [entry("a", None), entry("b", Some("4")), entry("c", Some("3"))];
            change(&gate, &one, &entries).await.unwrap();
        };
        scan_while(&server, changing).await
    });
    let found = found.await.unwrap().unwrap();
    assert_eq!((found.revision.number, found.is_whole), (2, true));
    assert_eq!(found.entries, [entry("b", Some("4")), entry("c", Some("3"))]);
}

#[tokio::test]
async fn a_directory_that_is_replaced_while_it_is_read_is_not_told() {
    let found = in_time(async |server| {
        let (gate, none) = (Replica::connected(&server).await, DirectoryRevision::default());
        change(&gate, &none, &[entry("a", Some("1"))]).await.unwrap();
        let replacing = async {
            server.ask::<String>(&["FLUSHALL"]);
            change(&gate, &none, &[entry("b", Some("2"))]).await.unwrap();
        };
        scan_while(&server, replacing).await
    });
    let why = "the directory was replaced while it was being read".to_owned();
    assert_eq!(found.await, Err(StoreError::Unreachable(why)));
}
