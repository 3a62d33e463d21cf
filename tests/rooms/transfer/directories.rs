//! SCIM directories in an import: copied, brought up to date, or left as they are.

use portcullis::state::{DirectoryEntry, DirectoryRevision};
use serde_json::{Value, json};
use testkit::redis_server::RedisServer;

use super::{Place, directory_line, file, header};

const FIRST: [(&str, &str); 2] = [("x", "1"), ("y", "2")];
const LATER: [(&str, &str); 2] = [("x", "9"), ("z", "3")];

impl Place<'_> {
    /// Imports a copy of these directories, and returns the names of those that stay as they are.
    async fn brought(&self, identity: &str, directories: &[Value]) -> Vec<String> {
        self.import(&file(header(identity, 0), directories)).await.unwrap().kept_directories
    }

    /// The documents of each directory.
    async fn directories(&self) -> Vec<(String, Vec<(String, String)>)> {
        let read = |line: Value| {
            let mut documents: Vec<(String, String)> =
                serde_json::from_value(line["entries"].clone()).unwrap();
            documents.sort();
            (line["name"].as_str().unwrap().to_owned(), documents)
        };
        self.lines(&["directory"]).await.into_iter().map(read).collect()
    }

    /// Changes a document where the directory is now.
    async fn change(&self, name: &str, key: &str, body: &str) {
        let store = self.open().await;
        let known = store.directory_news(name, &DirectoryRevision::default()).await.unwrap();
        let known = known.map(|news| news.revision).unwrap_or_default();
        let entry = DirectoryEntry { key: key.into(), body: Some(body.into()) };
        assert!(store.change_directory(name, &known, vec![entry], 0).await.unwrap().is_some());
        store.close().await;
        drop(store);
        if let Self::Shared(settings, server) = self {
            // As if the gate had ended a while ago: an export waits to see whether one that wrote just now goes on.
            let log = format!("{0}:{{{0}.log}}:stamp", settings.key_prefix);
            server.ask::<u64>(&["DEL", &log]);
        }
    }
}

fn of(name: &str, documents: &[(&str, &str)]) -> (String, Vec<(String, String)>) {
    let owned = |(key, body): &(&str, &str)| ((*key).to_owned(), (*body).to_owned());
    (name.to_owned(), documents.iter().map(owned).collect())
}

#[tokio::test]
async fn a_directory_is_brought_up_to_date_by_its_own_source_until_it_changes_where_it_is() {
    let (folder, server) = (tempfile::tempdir().unwrap(), RedisServer::start());
    for place in [Place::file(folder.path(), "state.db"), Place::shared(&server, "t")] {
        let first = directory_line("idp", 3, &FIRST);
        for (identity, line, kept, documents) in [
            ("a", first.clone(), false, &FIRST),
            ("a", first.clone(), false, &FIRST),
            ("b", directory_line("idp", 90, &LATER), true, &FIRST),
            ("b", directory_line("idp", 90, &FIRST), false, &FIRST),
            ("a", directory_line("idp", 7, &LATER), false, &LATER),
            ("a", first, true, &LATER),
            ("a", directory_line("idp", 20, &[("x", "9"), ("z", "4")]), false, &[("x", "9"), ("z", "4")]),
        ] {
            let kept_names = place.brought(identity, std::slice::from_ref(&line)).await;
            assert_eq!(kept_names, if kept { vec!["idp".to_owned()] } else { vec![] }, "{identity} {line}");
            assert_eq!(place.directories().await, [of("idp", documents)], "{identity} {line}");
        }
        place.change("idp", "z", "5").await;
        assert_eq!(place.brought("a", &[directory_line("idp", 60, &FIRST)]).await, ["idp"]);
        let changed = [("x", "9"), ("z", "5")];
        assert_eq!(place.directories().await, [of("idp", &changed)]);
        assert!(
            place.brought("a", &[directory_line("idp", 60, &changed)]).await.is_empty(),
            "the same again"
        );
    }
}

#[tokio::test]
async fn a_directory_that_was_there_before_any_import_stays_and_others_come_beside_it() {
    let (folder, server) = (tempfile::tempdir().unwrap(), RedisServer::start());
    for place in [Place::file(folder.path(), "state.db"), Place::shared(&server, "t")] {
        place.change("idp", "x", "1").await;
        let copied = [directory_line("hr", 4, &LATER), directory_line("idp", 9, &FIRST)];
        for _ in 0..2 {
            assert_eq!(place.brought("a", &copied).await, ["idp"]);
            let mut found = place.directories().await;
            found.sort();
            assert_eq!(found, [of("hr", &LATER), of("idp", &[("x", "1")])]);
        }
    }
}

#[tokio::test]
async fn a_directory_without_documents_is_a_directory_too() {
    let (folder, server) = (tempfile::tempdir().unwrap(), RedisServer::start());
    for place in [Place::file(folder.path(), "state.db"), Place::shared(&server, "t")] {
        assert!(place.brought("a", &[directory_line("idp", 1, &[])]).await.is_empty());
        assert_eq!(place.directories().await, [of("idp", &[])]);
        let revisions = place.lines(&["directory"]).await;
        assert!(revisions[0]["revision"].as_u64().is_some_and(|revision| revision > 1), "{revisions:?}");
        assert_eq!(revisions[0]["entries"], json!([]));
    }
}
