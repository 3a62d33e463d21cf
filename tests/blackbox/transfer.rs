//! State that moves from one store to another with `state export` and `state import`, and the verdicts of
//! gates on either side.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use testkit::documents::block;
use testkit::gate::{Gate, Outcome, binary, path_text, portcullis, portcullis_reading, run_to_end};
use testkit::now;
use testkit::raw_upstream::RawUpstream;
use testkit::redis_server::RedisServer;
use testkit::settings::Settings;
use testkit::tokens::Issuer;

const ORIGIN: &str = "portcullis:{portcullis.log}:origin";

/// An upstream, an issuer, and the reference time for tokens.
struct World {
    upstream: RawUpstream,
    issuer: Issuer,
    /// When tokens are issued: after the first store was created, and before its events.
    began: Cell<i64>,
}

impl World {
    fn new() -> Self {
        Self { upstream: RawUpstream::start(), issuer: Issuer::new(), began: Cell::new(now()) }
    }

    fn settings(&self, state: &str, idle: &str) -> Settings {
        let settings = Settings::plaintext().guarding(&self.upstream.url(), &self.issuer).admin();
        settings.toml(&format!("[sessions]\nidle_timeout = \"{idle}\"\n[state]\n{state}\n"))
    }

    fn embedded(&self, idle: &str) -> Settings {
        self.settings("path = \"state.db\"", idle)
    }

    fn redis(&self, server: &RedisServer, idle: &str) -> Settings {
        self.settings(&format!("store = \"redis\"\nurl = \"{}\"", server.url()), idle)
    }

    /// A token issued when the world began, or this many seconds before.
    fn token(&self, jti: &str, claims: &[(&str, Value)], age: i64) -> String {
        let token = self.issuer.token().claim("jti", jti).claim("iat", self.began.get() - age);
        claims.iter().fold(token, |token, (name, value)| token.claim(name, value.clone())).build()
    }

    /// The tokens of this test, and the verdict on each by a gate that knows everything.
    fn verdicts(&self) -> Vec<(String, &'static str)> {
        vec![
            (self.token("good", &[], 0), "allowed"),
            (self.token("revoked", &[], 0), "token_revoked"),
            (self.token("a", &[("sub", json!("carol"))], 0), "subject_revoked"),
            (self.token("b6", &[("sub", json!("bob")), ("role_version", json!(6))], 0), "role_changed"),
            (self.token("b7", &[("sub", json!("bob")), ("role_version", json!(7))], 0), "allowed"),
            (self.token("c", &[("client_id", json!("app"))], 0), "allowed"),
            (self.token("old", &[], 120), "before_state"),
        ]
    }

    #[track_caller]
    fn judged(&self, gate: &Gate) {
        for (token, expected) in self.verdicts() {
            assert_eq!(gate.would_say(&token), expected, "{token}");
        }
    }
}

fn state(command: &str, settings: &Settings, options: &[&str]) -> Outcome {
    let config = settings.write();
    portcullis(&[&["state", command, "--config", path_text(&config)], options].concat())
}

#[track_caller]
fn done(command: &str, settings: &Settings, file: &Path) -> Value {
    let outcome = state(command, settings, &[path_text(file), "--json"]);
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""), "{command}: {outcome:?}");
    serde_json::from_str(&outcome.out).unwrap()
}

/// A gate with a store that has received events: one revocation of each kind, and one that was undone.
fn started(world: &World, settings: &Settings) -> Gate {
    let gate = Gate::start(settings);
    world.began.set(now());
    for event in [
        json!({"type": "token-revoked", "jti": "revoked"}),
        json!({"type": "subject-revoked", "subject": "carol"}),
        json!({"type": "role-changed", "subject": "bob", "role_version": 7}),
        json!({"type": "client-revoked", "client": "app"}),
    ] {
        gate.publish(&event);
    }
    let client = gate.list("/v1/revocations?client=app")[0]["id"].clone();
    assert_eq!(gate.operate("DELETE", &format!("/v1/revocations/{client}"), None).status(), 204);
    assert_eq!(gate.get("/").token(&world.token("good", &[], 0)).send().status(), 200);
    world.judged(&gate);
    gate
}

/// Runs docs/commands.md: portcullis state export
#[test]
fn a_state_moves_from_a_file_to_redis_and_back_and_what_was_revoked_stays_revoked() {
    let (world, server) = (World::new(), RedisServer::start());
    let (first, second) = (world.embedded("30m"), world.redis(&server, "30m"));
    let mut gate = started(&world, &first);
    let file = |name: &str| first.folder().join(name);

    // While a gate runs, which may receive more events afterwards.
    let exported = done("export", &first, &file("early.jsonl"));
    assert_eq!((&exported["sequence"], &exported["complete"]), (&json!(5), &json!(false)));
    let imported = done("import", &second, &file("early.jsonl"));
    assert_eq!((&imported["events"], &imported["complete"]), (&json!(5), &json!(false)), "{imported}");
    gate.publish(&json!({"type": "token-revoked", "jti": "late"}));
    gate.stop();

    // The block of the documentation, as it is printed.
    std::fs::copy(first.write(), file("embedded.toml")).unwrap();
    std::fs::copy(second.write(), file("redis.toml")).unwrap();
    let path = format!("{}:{}", binary().parent().unwrap().display(), std::env::var("PATH").unwrap());
    let script = format!("set -e\n{}", block("docs/commands.md", "portcullis state export"));
    let mut shell = Command::new("bash");
    let outcome = run_to_end(shell.args(["-c", &script]).current_dir(first.folder()).env("PATH", path));
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""), "{outcome:?}");
    assert!(outcome.out.contains("imported 1 events (5 were known)"), "{outcome:?}");

    let mut shared = Gate::start(&second);
    world.judged(&shared);
    assert_eq!(shared.would_say(&world.token("late", &[], 0)), "token_revoked");
    let usage = shared.list("/v1/usage");
    assert_eq!((usage.len(), &usage[0]["count"]), (1, &json!(1)), "counted once: {usage:?}");
    let again = done("import", &second, &file("state.jsonl"));
    assert_eq!((&again["events"], &again["known"]), (&json!(0), &json!(6)), "{again}");
    assert_eq!(shared.list("/v1/usage"), usage);
    world.judged(&shared);
    shared.stop();

    let third = world.embedded("30m");
    done("export", &second, &file("back.jsonl"));
    let imported = done("import", &third, &file("back.jsonl"));
    assert_eq!(imported["events"], 6, "{imported}");
    let back = Gate::start(&third);
    world.judged(&back);
    assert_eq!(back.would_say(&world.token("late", &[], 0)), "token_revoked");
    assert_eq!(back.list("/v1/usage"), usage);
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(file("back.jsonl")).unwrap());
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
    let outcome = state("import", &third, &[path_text(&file("back.jsonl"))]);
    assert!(outcome.code == 1 && outcome.err.contains("another process"), "{outcome:?}");
}

#[test]
fn a_token_in_use_is_not_idle_in_the_other_store_and_an_idle_one_stays_so() {
    let (world, server) = (World::new(), RedisServer::start());
    let first = world.embedded("20m");
    let init = state("init", &first, &["--accept-existing-tokens", "--json"]);
    assert_eq!(init.code, 0, "{init:?}");
    assert_eq!(serde_json::from_str::<Value>(&init.out).unwrap()["accepts_existing_tokens"], true);
    let mut gate = Gate::start(&first);
    let (used, unused) = (world.token("used", &[], 600), world.token("unused", &[], 600));
    assert_eq!(gate.get("/").token(&used).send().status(), 200);
    gate.stop();
    let file = first.folder().join("state.jsonl");
    done("export", &first, &file);
    // Ten minutes after their issue both are idle here, unless one was used since.
    let fourth = world.embedded("5m");
    for settings in [world.redis(&server, "5m"), fourth] {
        let imported = done("import", &settings, &file);
        assert_eq!(imported["sessions"], 1, "{imported}");
        let gate = Gate::start(&settings);
        assert_eq!((gate.reason(&used), gate.reason(&unused)), ("allow/none".to_owned(), "idle".to_owned()));
    }
}

#[test]
fn a_file_that_is_not_whole_or_of_another_version_changes_nothing() {
    let (world, server) = (World::new(), RedisServer::start());
    let first = world.embedded("30m");
    let mut gate = started(&world, &first);
    gate.stop();
    let streamed = state("export", &first, &["-"]);
    assert!(streamed.code == 0 && streamed.err.contains("up to event 5"), "{streamed:?}");
    let whole = streamed.out;
    let lines: Vec<&str> = whole.lines().collect();
    let without = |place: usize| {
        let left = lines.iter().enumerate().filter(|(index, _)| *index != place).map(|(_, line)| *line);
        left.collect::<Vec<_>>().join("\n") + "\n"
    };
    let kind = |text: &str| whole.replacen("\"k\":2", text, 1);
    for (text, words) in [
        (String::new(), "is not an export"),
        ("SQLite format 3".to_owned(), "is not an export"),
        (without(0), "is not an export"),
        (without(lines.len() - 1), "truncated"),
        (without(1), "truncated"),
        (whole[..whole.len() / 2].to_owned(), "truncated"),
        (whole.trim_end().to_owned(), "truncated"),
        (whole.replacen("\"version\":1", "\"version\":2", 1), "format version 2"),
        (kind("\"k\":99"), "line 2"),
        (kind("\"k\":true"), "line 2"),
    ] {
        for target in [world.embedded("30m"), world.redis(&server, "30m")] {
            let config = target.write();
            let arguments = ["state", "import", "--config", path_text(&config), "-"];
            let outcome = portcullis_reading(&arguments, text.as_bytes());
            assert_eq!((outcome.code, outcome.out.as_str()), (1, ""), "{words}: {outcome:?}");
            assert!(outcome.err.contains(words), "{words}: {outcome:?}");
            assert!(!target.folder().join("state.db").exists(), "{words}");
            assert_eq!(server.ask::<u64>(&["EXISTS", ORIGIN]), 0, "{words}");
        }
    }
    let memory = world.settings("store = \"memory\"", "30m");
    let missing = world.embedded("30m");
    let nowhere: PathBuf = first.folder().join("missing.jsonl");
    for (command, settings, file, words) in [
        ("export", &memory, first.folder().join("x"), "memory"),
        ("import", &memory, nowhere.clone(), "memory"),
        ("export", &missing, first.folder().join("x"), "does not exist yet"),
        ("import", &missing, nowhere, "missing.jsonl"),
        ("export", &first, first.folder().join("state.db"), "exists"),
        ("export", &world.redis(&server, "30m"), first.folder().join("x"), "there is no store yet"),
    ] {
        let outcome = state(command, settings, &[path_text(&file)]);
        assert_eq!((outcome.code, outcome.out.as_str()), (1, ""), "{words}: {outcome:?}");
        assert!(outcome.err.contains(words), "{words}: {outcome:?}");
        assert!(!first.folder().join("x").exists(), "{words}");
    }
}

#[test]
fn an_interrupted_import_lets_no_gate_start_and_is_completed_by_another() {
    let (world, server) = (World::new(), RedisServer::start());
    let first = world.embedded("30m");
    let mut gate = started(&world, &first);
    gate.stop();
    let file = first.folder().join("state.jsonl");
    done("export", &first, &file);
    let second = world.redis(&server, "30m");
    // As it is left when the first call was the last.
    server.ask::<u64>(&[
        "HSET",
        ORIGIN,
        "version",
        "importing",
        "id",
        "x",
        "created_at",
        "9000000000000",
        "last",
        "0",
    ]);
    let outcome = state("export", &second, &["-"]);
    assert!(outcome.code == 1 && outcome.err.contains("import"), "{outcome:?}");
    let refused = portcullis(&["run", "--config", path_text(&second.write())]);
    assert!(refused.code == 1 && refused.err.contains("portcullis state import"), "{refused:?}");
    done("import", &second, &file);
    world.judged(&Gate::start(&second));

    let third = world.embedded("30m");
    std::fs::write(third.folder().join("state.db.importing"), "half of a file").unwrap();
    done("import", &third, &file);
    let left: Vec<String> = std::fs::read_dir(third.folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("importing"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let gate = Gate::start(&third);
    world.judged(&gate);
    assert_eq!(gate.metrics().sum("portcullis_state_rolled_back", &[]), 0.0);
}
