//! The signing keys: who may read them, what a restart preserves, and how they are rotated.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::authority::stage::{Stage, kid, part};
use testkit::gate::{path_text, portcullis};
use testkit::{eventually, within};

fn modes(folder: &Path, name: &str) -> Vec<(String, u32)> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let of_store = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(name));
    let mode = |entry: std::fs::DirEntry| {
        (
            entry.file_name().to_string_lossy().into_owned(),
            entry.metadata().unwrap().permissions().mode() & 0o777,
        )
    };
    of_store.map(mode).collect()
}

#[test]
fn keys_are_the_owners_only_and_survive_restarts() {
    let mut stage = Stage::planned(|plan| plan.toml("[state]\npath = \"state.db\"\n"));
    let app = stage.robot();
    let (token, kids) = (stage.token(&app), stage.kids());
    assert_eq!(kids, [kid(&token)]);
    let files = modes(stage.gate.settings.folder(), "authority.db");
    assert!(files.iter().any(|(name, _)| name == "authority.db"), "{files:?}");
    assert!(files.iter().all(|(_, mode)| *mode == 0o600), "{files:?}");
    for ended in ["TERM", "KILL"] {
        stage.gate.signal(ended);
        within(testkit::PATIENCE, "the gate ends", || (!stage.gate.is_alive()).then_some(()));
        let files = modes(stage.gate.settings.folder(), "authority.db");
        assert!(files.iter().all(|(_, mode)| *mode == 0o600), "after {ended}: {files:?}");
        stage = stage.restart();
        assert_eq!(stage.kids(), kids, "after {ended}");
        assert_eq!(stage.api("/deals/7", &token), 200, "a token of before, after {ended}");
        assert_eq!(kid(&stage.token(&app)), kids[0]);
    }
}

#[test]
fn a_store_of_a_newer_version_or_of_somebody_else_is_refused_and_left_alone() {
    let mut stage = Stage::planned(|plan| plan.toml("[state]\nstore = \"memory\"\n"));
    stage.robot();
    stage.gate.signal("TERM");
    stage.gate.wait_for_exit(testkit::PATIENCE);
    let file = stage.gate.settings.folder().join("authority.db");
    let config = stage.gate.settings.write();
    for (pragma, word) in [
        ("user_version = 1000", "written by a later release"),
        ("user_version = 2; PRAGMA application_id = 7", "not a Portcullis database"),
    ] {
        let database = rusqlite::Connection::open(&file).unwrap();
        database.execute_batch(&format!("PRAGMA {pragma}")).unwrap();
        database.close().unwrap();
        let before = std::fs::read(&file).unwrap();
        let outcome = portcullis(&["run", "--config", path_text(&config)]);
        assert_eq!(outcome.code, 1, "{pragma}: {outcome:?}");
        let said = format!("{}{}", outcome.out, outcome.err);
        assert!(said.contains("authority.db") && said.contains(word), "{pragma}: {said}");
        assert_eq!(std::fs::read(&file).unwrap(), before, "{pragma}: it is as it was");
    }
}

/// Holds docs/configuration.md, Settings: authority.signing_algorithm, .key_rotation
#[test]
fn es256_keys_take_turns() {
    take_turns("ES256");
}

/// Holds docs/configuration.md, Settings: authority.signing_algorithm, .key_rotation
#[test]
fn rs256_keys_take_turns() {
    take_turns("RS256");
}

/// Holds docs/configuration.md, Settings: authority.signing_algorithm, .key_rotation
#[test]
fn eddsa_keys_take_turns() {
    take_turns("EdDSA");
}

fn take_turns(algorithm: &str) {
    let stage = Stage::planned(|plan| {
        plan.authority(&format!("signing_algorithm = \"{algorithm}\"\nkey_rotation = \"4s\""))
    });
    let app = stage.robot();
    let first = stage.token(&app);
    assert_eq!(part(&first, 0)["alg"], algorithm);
    let kept = stage.gate.get("/.well-known/jwks.json").send();
    assert_eq!(kept.field("cache-control"), Some("public, max-age=1"), "gone before the next key signs");
    // Seen in the key set, and after that the key before still signs.
    let next = eventually("the next key is published before it signs", || {
        let published = stage.kids();
        let signing = kid(&stage.token(&app));
        let next = published.last()?;
        (*next != signing && published.contains(&signing)).then(|| next.clone())
    });
    let second = eventually("the next key signs", || {
        let token = stage.token(&app);
        (kid(&token) == next).then_some(token)
    });
    assert_ne!(kid(&first), kid(&second));
    for token in [&first, &second] {
        assert!(stage.kids().contains(&kid(token)), "the keys of living tokens are published");
        assert_eq!(stage.api("/deals/7", token), 200);
    }
    let stage = stage.restart();
    for token in [&first, &second] {
        assert_eq!(stage.api("/deals/7", token), 200, "after a restart too");
    }
}

/// Offsets of the wall clock at the start of a gate, or after a step.
const OFFSETS: [&str; 8] = ["-20s", "+20s", "-1h", "+1h", "-1d", "+1d", "-10y", "+10y"];

/// With tokens that live long enough to be judged after an hour, and keys that are due soon by a
/// clock that is days ahead.
fn patient(plan: crate::authority::stage::Plan) -> crate::authority::stage::Plan {
    plan.authority("token_lifetime = \"6h\"\nkey_rotation = \"12h\"")
        .toml("[state]\npath = \"authority.db\"\non_empty = \"trust\"\n[sessions]\nidle_timeout = \"24h\"")
}

/// The gate's verdict on a token, without leaving a trace.
fn verdict(stage: &Stage, token: &str) -> String {
    let question = serde_json::json!({"token": token, "method": "GET", "path": "/deals/7"});
    let answer = stage.admin("POST", "/v1/explain", &question).json();
    answer["reason"].as_str().unwrap_or("allowed").to_owned()
}

#[test]
fn a_start_with_a_wrong_clock_loses_no_key_and_no_token() {
    for offset in OFFSETS {
        let stage = Stage::planned(patient);
        let app = stage.robot();
        let (before, kids) = (stage.token(&app), stage.kids());
        assert_eq!(stage.api("/deals/7", &before), 200);

        let stage = stage.restart_with_clock(offset);
        let meanwhile = stage.token(&app);
        assert_eq!(stage.api("/deals/7", &meanwhile), 200, "{offset}: by the clock that issued it");
        assert_eq!(kid(&meanwhile), kids[0], "{offset}: the key that signed goes on signing");
        assert_eq!(stage.kids(), kids, "{offset}: no key is added or dropped");

        let stage = stage.restart();
        assert_eq!(stage.kids(), kids, "{offset}");
        let said = verdict(&stage, &before);
        assert_eq!((stage.api("/deals/7", &before), &*said), (200, "allowed"), "{offset}: issued before");
        let said = verdict(&stage, &meanwhile);
        match offset {
            "-20s" | "+20s" | "-1h" => assert_eq!(said, "allowed", "{offset}: issued meanwhile"),
            "-1d" | "-10y" => assert_eq!(said, "expired", "{offset}: by the right clock"),
            _ => assert_eq!(said, "issued_in_future", "{offset}: until that time has come"),
        }
        assert_eq!(stage.api("/deals/7", &stage.token(&app)), 200, "{offset}: issued after");
    }
}

#[test]
fn the_keys_of_an_earlier_release_survive_a_start_with_a_wrong_clock() {
    for offset in OFFSETS {
        let stage = Stage::planned(patient);
        let app = stage.robot();
        let (before, kids) = (stage.token(&app), stage.kids());
        stage.gate.signal("KILL");
        within(testkit::PATIENCE, "the gate lets the file go", || {
            let file = stage.gate.settings.folder().join("authority.db");
            let database = rusqlite::Connection::open(file).ok()?;
            let forget =
                "UPDATE signing_keys SET signs_uptime = NULL, retired_uptime = NULL, expires_by = NULL";
            database.execute(forget, []).ok()
        });
        let stage = stage.restart_with_clock(offset).restart();
        assert!(stage.kids().contains(&kids[0]), "{offset}");
        assert_eq!(stage.api("/deals/7", &before), 200, "{offset}");
    }
}

#[test]
fn keys_rotate_by_running_time_whatever_the_wall_clock_does() {
    let stage = Stage::planned(|plan| {
        plan.authority("key_rotation = \"2s\"\ntoken_lifetime = \"5m\"")
            .toml("[state]\npath = \"authority.db\"\non_empty = \"trust\"")
    });
    let app = stage.robot();
    let stage = stage.restart_with_clock("+0");
    let mut tokens = vec![stage.token(&app)];
    for offset in OFFSETS {
        stage.step_clock(offset);
        let last = kid(tokens.last().unwrap());
        let other = eventually("another key signs", || {
            let token = stage.token(&app);
            (kid(&token) != last).then_some(token)
        });
        assert_eq!(stage.api("/deals/7", &other), 200, "{offset}: by the clock that issued it");
        stage.step_clock("+0");
        // Signed by the right clock, by whichever key it is by now.
        tokens.push(stage.token(&app));
    }
    let stage = stage.restart();
    for token in &tokens {
        assert!(stage.kids().contains(&kid(token)));
        assert_eq!(stage.api("/deals/7", token), 200);
    }
}
