//! `config/compose`: two gates, Redis and a sample API, as Docker Compose reads them.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use testkit::documents::{block, commands};
use testkit::eventually;
use testkit::gate::{path_text, portcullis};
use testkit::ports::ClaimedPort;
use testkit::tools::{Running, run};

use crate::tooling::{file, longest_end, says, text, write};

/// The Compose file in the form that Compose works with.
fn project() -> Value {
    let path = file("config/compose/compose.yaml");
    let printed = says(
        "docker-compose",
        &["-f", path.to_str().unwrap(), "config", "--format", "json", "--no-env-resolution"],
    );
    serde_json::from_str(&printed).unwrap()
}

/// The secrets that the printed commands make.
fn secrets(folder: &Path) {
    let all = commands(&block("docs/deployment.md", "chmod 0444 secrets/*"));
    let (enter, all) = all.split_first().unwrap();
    assert_eq!(enter, "cd config/compose");
    for command in all {
        run("bash", &["-euc", &format!("cd '{}' && {command}", folder.display())]);
    }
}

#[test]
fn the_project_is_good_and_only_the_gates_are_reached_from_outside() {
    let project = project();
    for (name, service) in project["services"].as_object().unwrap() {
        assert_eq!(service["ports"].is_array(), name.starts_with("gate-"), "{name}");
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["cap_drop"][0], "ALL", "{name}");
        assert_eq!(service["security_opt"][0], "no-new-privileges:true", "{name}");
        assert_eq!(service["networks"].get("front").is_some(), name.starts_with("gate-"), "{name}");
    }
    assert_eq!(project["networks"]["back"]["internal"], true);
    let toml = text("config/compose/gate/portcullis.toml");
    let grace =
        project["services"]["gate-1"]["stop_grace_period"].as_str().unwrap().trim_end_matches('s').to_owned();
    assert!(grace.parse::<u64>().unwrap() > longest_end(&toml), "{grace}");
}

/// Runs docs/deployment.md: chmod 0444 secrets/*
#[test]
fn the_secrets_of_the_docs_are_those_that_the_gates_read() {
    let folder = tempfile::tempdir().unwrap();
    secrets(folder.path());
    let project = project();
    let mut toml = text("config/compose/gate/portcullis.toml");
    for (name, secret) in project["secrets"].as_object().unwrap() {
        let path = Path::new(secret["file"].as_str().unwrap()).to_owned();
        let made = folder.path().join("secrets").join(path.file_name().unwrap());
        assert!(made.is_file() && path.parent().unwrap().ends_with("config/compose/secrets"), "{name}");
        let inside = format!("/run/secrets/{name}");
        assert!(toml.contains(&inside), "{name}");
        toml = toml.replace(&inside, path_text(&made));
    }
    let path = folder.path().join("portcullis.toml");
    write(&path, toml);
    let checked = portcullis(&["check", "--config", path_text(&path)]);
    assert_eq!(checked.code, 0, "{}", checked.err);
}

#[test]
fn the_redis_of_the_project_keeps_everything_for_clients_with_the_password() {
    let folder = tempfile::tempdir().unwrap();
    secrets(folder.path());
    let project = project();
    let redis = &project["services"]["redis"];
    let port = ClaimedPort::new();
    let number = port.number().to_string();
    // Compose reads $$ as $; `config` prints what was written.
    let own = |text: &Value| {
        let text = text.as_str().unwrap().replace("$$", "$");
        let text = text.replace("/run/secrets", path_text(&folder.path().join("secrets")));
        let text = text.replace("--dir /data", &format!("--port {number} --dir {}", folder.path().display()));
        text.replace("redis-cli", &format!("redis-cli -p {number}"))
    };
    let words: Vec<&Value> =
        redis["entrypoint"].as_array().unwrap().iter().chain(redis["command"].as_array().unwrap()).collect();
    let mut command = Command::new(words[0].as_str().unwrap());
    command.args(words[1..].iter().map(|word| own(word)));
    let _running = Running::start(&mut command);
    let probe = own(&redis["healthcheck"]["test"][1]);
    eventually("Redis is healthy", || {
        Command::new("sh").args(["-c", &probe]).output().unwrap().status.success().then_some(())
    });
    let password = std::fs::read_to_string(folder.path().join("secrets/redis-password")).unwrap();
    let ask = |words: &[&str]| {
        run("redis-cli", &[&["-p", &number, "--no-auth-warning", "-a", password.trim()], words].concat())
    };
    assert_eq!(ask(&["config", "get", "maxmemory-policy"]), "maxmemory-policy\nnoeviction\n");
    assert_eq!(ask(&["config", "get", "appendfsync"]), "appendfsync\nalways\n");
    assert!(run("redis-cli", &["-p", &number, "ping"]).contains("NOAUTH"));
}
