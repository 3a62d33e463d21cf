//! Since when a store knows everything after imports: the moment before which tokens are refused.

use portcullis::time::Timestamp;
use serde_json::json;
use testkit::redis_server::RedisServer;

use super::{Place, file, header, millis};

/// The beginning that is known before the first import: that of the store, which the import creates.
const CREATION: i64 = -1;

#[tokio::test]
async fn the_youngest_of_several_sources_decides_whatever_the_order_and_a_source_in_use_moves_nothing_back() {
    let (folder, server) = (tempfile::tempdir().unwrap(), RedisServer::start());
    for place in [Place::file(folder.path(), "state.db"), Place::shared(&server, "t")] {
        let before = Timestamp::now();
        let mut created = None;
        for (identity, not_before, in_use, expected) in [
            ("a", 5_000, true, CREATION),
            ("b", 3_000, false, CREATION),
            ("a", 5_000, false, 5_000),
            // The first source alone would move it back to 2,000; the second does not know what was before 3,000.
            ("a", 2_000, false, 3_000),
            ("a", 2_500, true, 3_000),
            ("b", 4_000, true, 4_000),
            ("a", 1_000, false, 4_000),
            ("a", 9_000, false, 4_000),
            ("c", 1_000, false, 4_000),
            ("c", 7_000, false, 7_000),
            ("b", 4_000, false, 7_000),
            ("a", 1_000, false, 7_000),
        ] {
            let what = format!("{identity} {not_before} {in_use}");
            let mut header = header(identity, not_before);
            header["in_use"] = json!(in_use);
            let report = place.import(&file(header, &[])).await.unwrap();
            let created = *created.get_or_insert(report.not_before);
            let expected = if expected == CREATION { created } else { millis(expected) };
            assert_eq!((report.not_before, report.keeps_beginning), (expected, in_use), "{what}");
            let (said, _) = place.export_unused().await;
            assert_eq!(millis(said.not_before), expected, "{what}");
        }
        let created = created.unwrap();
        assert!(
            (before..=Timestamp::now()).contains(&created),
            "nothing is known of earlier tokens: {created}"
        );
    }
}

#[tokio::test]
async fn one_source_moves_the_beginning_back_and_never_forward() {
    let (folder, server) = (tempfile::tempdir().unwrap(), RedisServer::start());
    for place in [Place::file(folder.path(), "state.db"), Place::shared(&server, "t")] {
        for (not_before, expected) in [(5_000, 5_000), (5_000, 5_000), (6_000, 5_000), (0, 0), (1, 0)] {
            let report = place.import(&file(header("a", not_before), &[])).await.unwrap();
            assert_eq!(report.not_before, millis(expected), "{not_before}");
            assert_eq!(place.export().await.unwrap().0.not_before, expected, "{not_before}");
        }
    }
}
