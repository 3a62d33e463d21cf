//! Process signals at inconvenient moments: during startup and during a reload.

use std::fs::File;
use std::process::{Child, Command, Stdio};

use testkit::gate::{Gate, Log, binary};
use testkit::issuer::{Answer, KeyServer, Source};
use testkit::raw_upstream::RawUpstream;
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::{PATIENCE, eventually, within};

/// A gate whose startup waits for its state file, which the test has locked.
struct Starting {
    child: Child,
    log: Log,
    _lock: File,
    settings: Settings,
}

impl Starting {
    fn new() -> Self {
        let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
        let settings =
            Settings::plaintext().guarding(&upstream.url(), &issuer).toml("[state]\npath = \"state.db\"\n");
        let lock = File::create(settings.folder().join("state.db.lock")).unwrap();
        lock.lock().unwrap();
        let mut child = Command::new(binary())
            .arg("run")
            .arg("--config")
            .arg(settings.write())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Log::follow(&mut child);
        Self { child, log, _lock: lock, settings }
    }

    /// Waits until the process handles this signal, then sends it.
    fn signal(&mut self, name: &str, number: u32) {
        let status = format!("/proc/{}/status", self.child.id());
        eventually("the signal is handled", || {
            let status = std::fs::read_to_string(&status).unwrap();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
            let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
            (caught >> (number - 1) & 1 == 1).then_some(())
        });
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Holds docs/operations.md, Failure modes: SIGTERM, SIGINT
#[test]
fn a_gate_that_is_told_to_end_while_it_starts_ends_in_order() {
    for (name, number) in [("TERM", 15), ("INT", 2)] {
        let mut starting = Starting::new();
        starting.signal(name, number);
        let status = within(PATIENCE, "the gate ends", || starting.child.try_wait().unwrap());
        starting.log.wait_for_end();
        assert_eq!(status.code(), Some(0), "{name}: {}", starting.log.text());
        assert!(!starting.log.text().contains("is locked by another process"), "{name}: it waited");
        assert!(!starting.settings.folder().join("state.db").exists(), "{name}: nothing was begun");
    }
}

#[test]
fn a_reload_that_is_asked_for_while_the_gate_starts_is_done_when_it_has_started() {
    let mut starting = Starting::new();
    starting.signal("HUP", 1);
    starting._lock.unlock().unwrap();
    let record = starting.log.wait_for("the reload", |record| record["message"] == "configuration reloaded");
    assert_eq!(record["cause"], "SIGHUP");
    assert!(starting.child.try_wait().unwrap().is_none(), "it runs");
}

/// Holds docs/operations.md, Failure modes: SIGTERM, SIGINT
#[test]
fn a_gate_that_is_told_to_end_during_a_reload_does_not_wait_for_it() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = Settings::plaintext().guarding(&upstream.url(), &issuer).admin();
    let mut gate = Gate::start(&settings);
    let (other, server) = (Issuer::named("https://slow.example/"), KeyServer::start(issuer.jwks()));
    server.set(Answer::Silence);
    settings.issuer_from(&other, &Source::Url(server.jwks_url()), "").write();
    gate.signal("HUP");
    eventually("the reload waits for keys", || (server.fetches() > 0).then_some(()));
    gate.signal("TERM");
    assert_eq!(gate.wait_for_exit(PATIENCE).code(), Some(0));
    gate.log().wait_for_end();
    let said = gate.log().text();
    assert!(said.contains("reload abandoned"), "{said}");
    assert!(!said.contains("could not be loaded within"), "{said}");
}
