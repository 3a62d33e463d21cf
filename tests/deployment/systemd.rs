//! `config/systemd`: the unit by systemd's own judgement, and the gate under the restrictions that the unit puts on it.

use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;
use std::process::Command;

use serde_json::json;

use testkit::documents::{block, commands};
use testkit::gate::{Gate, binary, path_text, portcullis, run_to_end};
use testkit::pki::Authority;
use testkit::raw_upstream::RawUpstream;
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::tools::run;

use crate::tooling::{file, longest_end, replaced, text, write};

const UNIT: &str = "config/systemd/portcullis.service";
/// The exposure level, of 0 to 100, above which `systemd-analyze security` fails.
const THRESHOLD: &str = "15";

/// The value of a setting of the unit that is there once.
#[track_caller]
fn value(key: &str) -> String {
    let unit = text(UNIT);
    let mut lines = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let value = lines.next().unwrap_or_else(|| panic!("no {key}="));
    assert_eq!(lines.next(), None, "{key}=");
    value.to_owned()
}

#[test]
fn the_unit_is_good_and_leaves_little_exposed() {
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("portcullis.service");
    write(&unit, text(UNIT).replace("/usr/local/bin/portcullis", path_text(binary())));
    let unit = path_text(&unit);
    let verified = Command::new("systemd-analyze").args(["verify", "--man=no", unit]).output().unwrap();
    let complaints = String::from_utf8(verified.stderr).unwrap();
    assert!(verified.status.success() && complaints.is_empty(), "{complaints}");
    run("systemd-analyze", &["security", "--offline=true", &format!("--threshold={THRESHOLD}"), unit]);
}

#[test]
fn the_configuration_beside_the_unit_is_good_and_the_gate_has_time_to_end() {
    let toml = text("config/systemd/portcullis.toml");
    let seconds: u64 = value("TimeoutStopSec").strip_suffix('s').unwrap().parse().unwrap();
    assert!(seconds > longest_end(&toml), "{seconds}");
    assert_eq!(value("StateDirectory"), "portcullis");
    assert_eq!(value("LoadCredential").split(':').next(), Some("admin-token"));
    let folder = tempfile::tempdir().unwrap();
    let server = Authority::new().server(&["localhost"]);
    write(&folder.path().join("tls/server.pem"), server.chain);
    write(&folder.path().join("tls/server.key"), server.key);
    write(&folder.path().join("admin-token"), "0123456789abcdef0123456789abcdef\n");
    let state = folder.path().join("portcullis.db");
    let toml = replaced(
        &toml,
        &[
            ("/run/credentials/portcullis.service/admin-token", "admin-token"),
            ("/var/lib/portcullis/portcullis.db", path_text(&state)),
        ],
    );
    let path = folder.path().join("portcullis.toml");
    write(&path, toml);
    let checked = portcullis(&["check", "--config", path_text(&path)]);
    assert_eq!(checked.code, 0, "{}", checked.err);
}

#[test]
fn a_gate_does_all_of_its_work_under_the_restrictions_of_the_unit() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = Settings::tls()
        .guarding(&upstream.url(), &issuer)
        .admin()
        .toml("[state]\npath = \"state.db\"\non_empty = \"trust\"\n");
    let (script, unit) = (file("tests/deployment/filtered.py"), file(UNIT));
    if std::fs::metadata(settings.folder()).unwrap().uid() == 0 {
        chown(settings.folder(), Some(65532), Some(65532)).unwrap();
    }
    let mut gate = Gate::launch_under(&["python3", path_text(&script), path_text(&unit)], &settings);
    gate.wait_until_ready();
    started(&gate);
    let token = issuer.good();
    assert_eq!(gate.get("/deals/7").token(&token).send().status(), 200);
    // Keys, certificates and configuration are read again, the state is written, and names are looked up.
    assert_eq!(gate.operate("POST", "/v1/reload", None).status(), 200);
    gate.publish(&json!({"type": "subject-revoked", "issuer": issuer.name, "subject": "alice"}));
    assert!(gate.metrics().sum("process_open_fds", &[]) > 0.0);
    assert_eq!(gate.get("/deals/7").token(&issuer.token().claim("sub", "bob").build()).send().status(), 200);
    gate.stop();
}

/// Fails unless the command that the unit waits for ends once the gate listens.
fn started(gate: &Gate) {
    let waiting = value("ExecStartPost").replace("/usr/local/bin/portcullis", path_text(binary()));
    let script = waiting.strip_prefix("/bin/sh -c '").unwrap().strip_suffix('\'').unwrap();
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", script]).env("PORTCULLIS_TELEMETRY_URL", format!("http://{}", gate.telemetry));
    let waited = run_to_end(&mut shell);
    assert_eq!((waited.code, waited.out.as_str(), waited.err.as_str()), (0, "", ""));
}

/// Runs docs/deployment.md: systemd-sysusers
#[test]
fn the_commands_of_the_docs_install_the_unit_its_user_and_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("source"), folder.path().join("target"));
    let server = Authority::new().server(&["localhost"]);
    write(&source.join("target/dist/portcullis"), std::fs::read(binary()).unwrap());
    write(&source.join("server.pem"), server.chain);
    write(&source.join("server.key"), server.key);
    for name in ["portcullis.service", "portcullis.sysusers", "portcullis.toml"] {
        write(&source.join("config/systemd").join(name), text(&format!("config/systemd/{name}")));
    }
    write(&target.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n");
    write(&target.join("etc/group"), "root:x:0:\n");
    for command in commands(&block("docs/deployment.md", "systemd-sysusers")) {
        let here = |path: &str| format!(" {}{path}", target.display());
        let command = command.replace(" /usr/", &here("/usr/")).replace(" /etc/", &here("/etc/"));
        let command =
            command.replace("systemd-sysusers", &format!("systemd-sysusers --root={}", target.display()));
        // The group is in the folder's own list of groups only.
        let command = command.replace("-g portcullis ", "");
        let command =
            command.replace("portcullis man", &format!("{}/usr/local/bin/portcullis man", target.display()));
        let output = Command::new("bash").args(["-euc", &command]).current_dir(&source).output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let users = std::fs::read_to_string(target.join("etc/passwd")).unwrap();
    assert!(
        users.contains(&format!("{}:x:", value("User"))) && users.contains("/usr/sbin/nologin"),
        "{users}"
    );
    for path in [
        "usr/local/bin/portcullis",
        "usr/local/share/man/man1/portcullis.1",
        "etc/portcullis/portcullis.toml",
        "etc/portcullis/secrets/admin-token",
        "etc/portcullis/tls/server.key",
    ] {
        assert!(target.join(path).is_file(), "{path}");
    }
    let exec = value("ExecStart");
    let named: Vec<&str> = exec.split(' ').filter(|word| word.starts_with('/')).collect();
    assert!(
        named.iter().all(|path| target.join(Path::new(path).strip_prefix("/").unwrap()).is_file()),
        "{named:?}"
    );
}
