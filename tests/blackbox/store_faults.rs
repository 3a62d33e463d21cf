//! A store that cannot be used: wrong or damaged files, folders that cannot be written, and a disk that fills
//! up while the gate runs.

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde_json::{Value, json};

use testkit::app::{App, Speaks};
use testkit::gate::{Gate, path_text, portcullis};
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::tools::run;
use testkit::{eventually, now};

/// The page size of the database.
const PAGE: usize = 4096;

fn settings(app: &App, issuer: &Issuer, path: &str) -> Settings {
    let state = format!("[state]\npath = {path:?}\non_empty = \"trust\"\nflush_interval = \"100ms\"\n");
    Settings::plaintext().guarding(&app.url(), issuer).admin().toml(&state)
}

/// The output of a gate that must not start: it exits with 1 and names the key and the file.
fn refused(settings: &Settings, file: &str) -> String {
    let Err((said, code)) = Gate::attempt(settings) else { panic!("it started") };
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("state.path") && said.contains(file), "{said}");
    said
}

/// The store that a gate leaves behind after a clean shutdown.
fn store(settings: &Settings, subjects: usize) -> PathBuf {
    let mut gate = Gate::start(settings);
    if subjects > 0 {
        let event = |i: usize| json!({"type": "subject-revoked", "subject": format!("subject-{i}")});
        gate.publish(&(0..subjects).map(event).collect());
    }
    gate.stop();
    settings.folder().join("state.db")
}

/// A name, a function that creates the file, and the expected message.
type Case = (&'static str, fn(&Path), &'static str);

/// Holds docs/operations.md, Failure modes: the database is damaged, foreign, newer or in use
#[test]
fn a_file_that_is_no_store_of_ours_is_refused_by_name_and_left_as_it_is() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let cases: [Case; 4] = [
        (
            "no database",
            |path| {
                std::fs::write(path, "notes of somebody else, and not a few of them\n".repeat(99)).unwrap()
            },
            "not a Portcullis database",
        ),
        ("a short file", |path| std::fs::write(path, "notes").unwrap(), "not a Portcullis database"),
        (
            "a database of another program",
            |path| {
                let other = Connection::open(path).unwrap();
                other
                    .execute_batch("CREATE TABLE notes (text TEXT); INSERT INTO notes VALUES ('mine')")
                    .unwrap();
            },
            "not a Portcullis database",
        ),
        (
            "of a later release",
            |path| Connection::open(path).unwrap().execute_batch("PRAGMA user_version = 1000").unwrap(),
            "written by a later release",
        ),
    ];
    for (name, make, said) in cases {
        let settings = settings(&app, &issuer, "state.db");
        let path = settings.folder().join("state.db");
        if name == "of a later release" {
            assert_eq!(store(&settings, 1), path);
        }
        make(&path);
        let before = std::fs::read(&path).unwrap();
        let error = refused(&settings, "state.db");
        assert!(error.contains(said), "{name}: {error}");
        assert_eq!(std::fs::read(&path).unwrap(), before, "{name}: changed");
    }
}

/// Holds docs/operations.md, Failure modes: the database is damaged, foreign, newer or in use
#[test]
fn a_damaged_store_is_never_an_open_gate() {
    const SUBJECTS: usize = 2_000;
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let settings = settings(&app, &issuer, "state.db");
    let path = store(&settings, SUBJECTS);
    let token =
        |i: usize| issuer.token().claim("sub", format!("subject-{i}")).claim("iat", now() - 60).build();
    let in_order = snapshot(&path);
    let mut gate = Gate::start(&settings);
    gate.publish(&json!({"type": "subject-revoked", "subject": "one-more"}));
    gate.kill();
    let killed = snapshot(&path);
    assert!(in_order[1].is_empty() && !killed[1].is_empty(), "a log is left behind");
    for whole in [in_order, killed] {
        let (pages, mut refusals) = (whole[0].len() / PAGE, 0);
        for page in (0..pages).step_by(pages.div_ceil(12)) {
            let mut damaged = whole.clone();
            // Behind the file's own header, without which it would be no database at all.
            damaged[0][page * PAGE + 100..][..PAGE - 100].fill(0xa5);
            put_back(&path, &damaged);
            match Gate::attempt(&settings) {
                Err((said, code)) => {
                    assert_eq!(code, Some(1), "page {page}: {said}");
                    for part in ["state.path", "state.db", "damaged", "restore it"] {
                        assert!(said.contains(part), "page {page}: {part} in {said}");
                    }
                    assert!(snapshot(&path) == damaged, "page {page}: changed");
                    refusals += 1;
                }
                // What is in force was read from other pages than this.
                Ok(gate) => {
                    gate.wait_until_ready();
                    for subject in (0..SUBJECTS).step_by(97) {
                        assert_eq!(gate.would_say(&token(subject)), "subject_revoked", "page {page}");
                    }
                }
            }
        }
        assert!(refusals > 0, "{pages} pages");
        put_back(&path, &whole);
        let gate = Gate::start(&settings);
        assert_eq!(gate.reason(&token(SUBJECTS - 1)), "subject_revoked", "restored");
    }
}

/// The content of the database and its write-ahead log.
fn snapshot(path: &Path) -> [Vec<u8>; 2] {
    [std::fs::read(path).unwrap(), std::fs::read(path.with_extension("db-wal")).unwrap_or_default()]
}

fn put_back(path: &Path, [database, log]: &[Vec<u8>; 2]) {
    drop(std::fs::remove_file(path.with_extension("db-shm")));
    std::fs::write(path, database).unwrap();
    if log.is_empty() {
        drop(std::fs::remove_file(path.with_extension("db-wal")));
    } else {
        std::fs::write(path.with_extension("db-wal"), log).unwrap();
    }
}

#[test]
fn a_folder_that_takes_no_store_is_a_start_up_error() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    // Not a folder, not there, and one in which not even root can make a file.
    for path in ["portcullis.toml/state.db", "no/such/folder/state.db", "/proc/self/state.db", "."] {
        let settings = settings(&app, &issuer, path);
        refused(&settings, path);
    }
}

/// Holds docs/operations.md, Failure modes: the database is damaged, foreign, newer or in use
#[test]
fn a_second_gate_on_the_same_file_is_refused_and_the_first_is_not_disturbed() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let settings = settings(&app, &issuer, "state.db");
    let gate = Gate::start(&settings);
    let error = refused(&settings, "state.db");
    assert!(error.contains("another process"), "{error}");
    gate.publish(&json!({"type": "subject-revoked", "subject": "alice"}));
    assert_eq!(gate.reason(&issuer.token().claim("iat", 1).claim("sub", "alice").build()), "too_long_lived");
}

/// Limits the size of every file that the gate writes; with `0`, the disk is full.
fn limit_files(gate: &Gate, size: &str) {
    run("prlimit", &["--pid", &gate.id().to_string(), &format!("--fsize={size}:")]);
}

/// Holds docs/operations.md, Failure modes: the disk is full
#[test]
fn a_disk_that_fills_up_refuses_events_and_nothing_else_until_there_is_room_again() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let settings = settings(&app, &issuer, "state.db");
    // As a full disk does, the limit must fail the write and not end the process.
    let mut gate = Gate::launch_under(&["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"], &settings);
    gate.wait_until_ready();
    let token = |subject: &str| issuer.token().claim("sub", subject).build();
    let (before, during, other) = (token("before"), token("during"), token("other"));
    let revoke = |subject: &str| json!({"type": "subject-revoked", "subject": subject});
    let status = |gate: &Gate, token: &str| gate.get("/anything").token(token).send().status();
    for token in [&before, &during, &other] {
        assert_eq!(status(&gate, token), 200);
    }
    gate.publish(&revoke("before"));

    limit_files(&gate, "0");
    for event in [revoke("during"), json!([revoke("during"), {"type": "client-revoked", "client": "app"}])] {
        let answer = gate.operate("POST", "/v1/events", Some(&event));
        assert_eq!(answer.status(), 503, "{}", answer.text());
        assert_eq!(answer.field("content-type"), Some("application/problem+json"));
        assert!(answer.field("retry-after").is_some() && answer.json()["status"] == 503, "{}", answer.text());
    }
    gate.wait_for_metric("the failure is counted", |metrics| {
        (metrics.sum("portcullis_state_errors_total", &[]) >= 2.0).then_some(())
    });
    assert_eq!(status(&gate, &during), 200, "an event that was not accepted is not in force");
    assert_eq!(status(&gate, &other), 200);
    assert_eq!(gate.reason(&before), "subject_revoked", "what was accepted stays in force");
    assert_eq!(gate.telemetry("/live").status(), 200);
    gate.log().wait_for("the log says that last uses cannot be saved", |record| {
        record["level"] == "error"
            && record["message"].as_str().is_some_and(|text| text.contains("cannot save"))
    });
    let listed = |gate: &Gate| -> Vec<Value> { gate.list("/v1/events") };
    assert_eq!(listed(&gate).len(), 1, "nothing of what was refused");

    limit_files(&gate, "unlimited");
    gate.publish(&revoke("during"));
    assert_eq!(gate.reason(&during), "subject_revoked");
    assert_eq!(status(&gate, &other), 200);
    eventually("last uses are saved again", || {
        let explained = portcullis(&["explain", "--config", path_text(&settings.write()), "--json", &other]);
        explained.out.contains("last used").then_some(())
    });
    gate.kill();
    let gate = Gate::start(&settings);
    for ended in [&before, &during] {
        assert_eq!(gate.reason(ended), "subject_revoked");
    }
    assert_eq!(status(&gate, &other), 200);
    assert_eq!(listed(&gate).len(), 2);
}
