//! Copies of the state: `portcullis state backup` while a gate runs, and files that were copied without it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use rusqlite::Connection;
use serde_json::json;

use testkit::gate::{Gate, Outcome, path_text, portcullis};
use testkit::raw_upstream::RawUpstream;
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::{eventually, now};

/// State and authority in one file; `path` is empty, or a line that gives the authority its own file.
fn settings(upstream: &RawUpstream, issuer: &Issuer, path: &str) -> Settings {
    let path = if path.is_empty() { "path = \"state.db\"" } else { path };
    Settings::plaintext()
        .guarding(&upstream.url(), issuer)
        .admin()
        .toml("[state]\npath = \"state.db\"\non_empty = \"trust\"\n")
        .toml(
            "[[issuers]]\nissuer = \"https://gate.test\"\naudiences = [\"https://api.test\"]\nauthority = true\n",
        )
        .toml(&format!(
            "[authority]\nissuer = \"https://gate.test\"\naudience = \"https://api.test\"\n{path}\n"
        ))
}

fn backup(settings: &Settings, options: &[&str], to: &Path) -> Outcome {
    let config = settings.write();
    let command = ["state", "backup", "--config", path_text(&config)];
    portcullis(&[&command[..], options, &[path_text(to)]].concat())
}

fn add_user(gate: &Gate, name: &str) {
    let user = json!({"id": name, "name": name, "roles": ["reader"]});
    assert_eq!(gate.operate("POST", "/v1/users", Some(&user)).status(), 201);
}

fn revoke(gate: &Gate, issuer: &Issuer, subject: &str) -> u64 {
    let event = json!({"type": "subject-revoked", "issuer": issuer.name, "subject": subject});
    gate.publish(&event)["sequence"].as_u64().unwrap()
}

fn rolled_back(gate: &Gate) -> f64 {
    gate.metrics().sum("portcullis_state_rolled_back", &[])
}

/// The public keys of the authority's signing keys.
fn signing_keys(gate: &Gate) -> String {
    gate.get("/.well-known/jwks.json").send().text()
}

#[test]
fn a_copy_of_a_running_gate_is_whole_and_another_gate_goes_on_with_it() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let first = settings(&upstream, &issuer, "");
    let gate = Gate::start(&first);
    add_user(&gate, "ann");
    let (acknowledged, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let copies: Vec<_> = (0..5).map(|n| first.folder().join(format!("copy-{n}.db"))).collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..100_000 {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                acknowledged.store(revoke(&gate, &issuer, &format!("s-{number}")), Ordering::SeqCst);
            }
        });
        for copy in &copies {
            let before = acknowledged.load(Ordering::SeqCst);
            eventually("events come", || (acknowledged.load(Ordering::SeqCst) > before + 3).then_some(()));
            let known = acknowledged.load(Ordering::SeqCst);
            let made = backup(&first, &[], copy);
            assert_eq!((made.code, made.err.as_str()), (0, ""), "{made:?}");
            let file = Connection::open(copy).unwrap();
            let verdict: String = file.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(verdict, "ok");
            let counted = "SELECT count(*), max(sequence) FROM events";
            let (count, last): (i64, i64) =
                file.query_row(counted, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            assert!(
                count == last && last >= known.cast_signed(),
                "{count} events up to {last}, {known} were acknowledged"
            );
            assert!(made.out.contains(&format!("up to event {last}")), "{made:?}");
            let mode = std::fs::metadata(copy).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{mode:o}");
            let again = backup(&first, &[], copy);
            assert!(again.code == 1 && again.err.contains("exists"), "never overwritten: {again:?}");
        }
        over.store(true, Ordering::SeqCst);
    });
    let left: Vec<_> = std::fs::read_dir(first.folder())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|name| name.contains("unfinished"))
        .collect();
    assert!(left.is_empty(), "{left:?}");

    // Another machine.
    let second = settings(&upstream, &issuer, "");
    std::fs::copy(copies.last().unwrap(), second.folder().join("state.db")).unwrap();
    let mut restored = Gate::start(&second);
    restored.log().wait_for_text("has not been used here before");
    assert_eq!(rolled_back(&restored), 1.0);
    assert_eq!(restored.list("/v1/users")[0]["id"], "ann");
    assert_eq!(signing_keys(&restored), signing_keys(&gate), "tokens of the one are good at the other");
    let ended = issuer.token().claim("sub", "s-0").claim("iat", now() - 60).build();
    assert_eq!(restored.reason(&ended), "subject_revoked");
    restored.stop();
    let restored = Gate::start(&second);
    assert_eq!(rolled_back(&restored), 0.0, "said once");
}

/// Holds docs/operations.md, Failure modes: a state file is copied or moved to another place without .seen beside it
#[test]
fn a_state_file_that_was_copied_alone_is_noticed_wherever_it_is_put() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    for path in ["", "path = \"authority.db\""] {
        let first = settings(&upstream, &issuer, path);
        let files: &[&str] = if path.is_empty() { &["state.db"] } else { &["state.db", "authority.db"] };
        // What the gate has written since its first start is in its log, which is not copied.
        let mut gate = Gate::start(&first);
        add_user(&gate, "ann");
        revoke(&gate, &issuer, "alice");
        let copies: Vec<Vec<u8>> =
            files.iter().map(|name| std::fs::read(first.folder().join(name)).unwrap()).collect();
        let restore = |settings: &Settings| {
            for (name, copy) in files.iter().zip(&copies) {
                for companion in ["-wal", "-shm"] {
                    drop(std::fs::remove_file(settings.folder().join(format!("{name}{companion}"))));
                }
                std::fs::write(settings.folder().join(name), copy).unwrap();
            }
        };
        gate.stop();
        restore(&first);
        let here = Gate::start(&first);
        here.log().wait_for_text("older than when it was last used");
        assert_eq!(rolled_back(&here), 1.0);
        let second = settings(&upstream, &issuer, path);
        restore(&second);
        let mut there = Gate::start(&second);
        for name in files {
            there.log().wait_for(name, |record| {
                record["path"].as_str().is_some_and(|path| path.ends_with(name))
                    && record["message"].as_str().unwrap().contains("has not been used here before")
            });
        }
        assert_eq!(rolled_back(&there), 1.0);
        there.stop();
        assert_eq!(rolled_back(&Gate::start(&second)), 0.0, "until the next start");
    }
}

#[test]
fn a_file_of_the_authoritys_own_is_copied_as_well() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let first = settings(&upstream, &issuer, "path = \"authority.db\"");
    let gate = Gate::start(&first);
    add_user(&gate, "ann");
    revoke(&gate, &issuer, "alice");
    let copies = ["state.copy", "authority.copy"].map(|name| first.folder().join(name));
    let made = backup(&first, &[], &copies[0]);
    assert!(made.code == 0 && made.out.contains("--authority"), "{made:?}");
    let made = backup(&first, &["--authority"], &copies[1]);
    assert!(made.code == 0 && made.out.contains("authority.db"), "{made:?}");
    let second = settings(&upstream, &issuer, "path = \"authority.db\"");
    for (copy, name) in copies.iter().zip(["state.db", "authority.db"]) {
        std::fs::copy(copy, second.folder().join(name)).unwrap();
    }
    let restored = Gate::start(&second);
    assert_eq!(restored.list("/v1/users")[0]["id"], "ann");
    assert_eq!(restored.list("/v1/revocations").len(), 1);
    assert_eq!(signing_keys(&restored), signing_keys(&gate));
}

#[test]
fn a_copy_is_made_of_a_gate_that_is_stopped_and_needs_none_of_its_secrets() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let first = settings(&upstream, &issuer, "");
    let mut gate = Gate::start(&first);
    revoke(&gate, &issuer, "alice");
    gate.stop();
    let elsewhere = first.clone().toml(
        "[[admin.tokens]]\nname = \"other\"\nsecret = { env = \"NOT_SET_IN_THIS_TEST\" }\npermissions = [\"events\"]\n",
    );
    let made = backup(&elsewhere, &[], &first.folder().join("copy.db"));
    assert!(made.code == 0 && made.out.contains("up to event 1"), "{made:?}");
    // Killed, it leaves its log behind.
    let mut gate = Gate::start(&first);
    revoke(&gate, &issuer, "bob");
    gate.kill();
    let made = backup(&elsewhere, &[], &first.folder().join("killed.db"));
    assert!(made.code == 0 && made.out.contains("up to event 2"), "{made:?}");
    let gate = Gate::start(&first);
    assert_eq!(gate.list("/v1/revocations").len(), 2, "the file goes on as it was");
    assert_eq!(rolled_back(&gate), 0.0);
}

#[test]
fn what_cannot_be_copied_is_said_so() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let plain = || Settings::plaintext().guarding(&upstream.url(), &issuer);
    let rows = [
        (plain().toml("[state]\nstore = \"memory\"\n"), &[][..], 1, "there is no file to copy"),
        (plain().toml("[state]\nstore = \"redis\"\n"), &[], 1, "tools of Redis"),
        (plain().toml("[state]\npath = \"state.db\"\n"), &[], 1, "does not exist yet"),
        (plain().toml("[state]\npath = \"notes.txt\"\n"), &[], 1, "not a Portcullis database"),
        (plain().toml("[state]\npath = \"empty.db\"\n"), &[], 1, "does not exist yet"),
        (plain(), &["--authority"], 1, "no [authority]"),
        (plain().toml("[state]\npaht = \"state.db\"\n"), &[], 2, "paht"),
    ];
    for (settings, options, code, text) in rows {
        settings.file("notes.txt", "somebody's notes, which are no database of anybody's ".repeat(40));
        settings.file("empty.db", "");
        let copy = settings.folder().join("copy.db");
        let outcome = backup(&settings, options, &copy);
        assert_eq!(outcome.code, code, "{text}: {outcome:?}");
        assert!(outcome.err.contains(text) && outcome.out.is_empty(), "{text}: {outcome:?}");
        assert!(!copy.exists(), "{text}");
        assert!(!settings.folder().join("state.db").exists(), "{text}: nothing was made");
    }
    let settings = plain().toml("[state]\npath = \"state.db\"\n");
    let _gate = Gate::start(&settings);
    let outcome = backup(&settings, &[], &settings.folder().join("no/such/folder/copy.db"));
    assert!(outcome.code == 1 && outcome.err.contains("copy.db"), "{outcome:?}");
}
