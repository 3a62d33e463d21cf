//! docs/commands.md against the binary: each command has a section with all its options, and blocks that run as printed.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use testkit::documents::{block, document};
use testkit::gate::{Gate, Outcome, binary, portcullis, run_to_end};
use testkit::raw_upstream::RawUpstream;
use testkit::settings::{ADMIN_TOKEN, Settings};
use testkit::tokens::Issuer;

use crate::accounts::AUTHORITY;
use crate::tooling::subcommands;

const PAGE: &str = "docs/commands.md";

/// Runs a block of the page in a folder, next to a gate.
fn run(key: &str, folder: &Path, token: &str, gate: Option<&Gate>) -> Outcome {
    let path = format!("{}:{}", binary().parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("bash");
    shell
        .args(["-c", &format!("set -euo pipefail\n{}", block(PAGE, key))])
        .current_dir(folder)
        .stdin(Stdio::null());
    shell.env("PATH", path).env("PORTCULLIS_ADMIN_TOKEN", ADMIN_TOKEN).env("TOKEN", token);
    if let Some(gate) = gate {
        shell.env("PORTCULLIS_ADMIN_URL", format!("http://{}", gate.admin));
        shell.env("PORTCULLIS_TELEMETRY_URL", format!("http://{}", gate.telemetry));
    }
    let outcome = run_to_end(&mut shell);
    assert_eq!((outcome.code, outcome.err.as_str()), (0, ""), "{key}: {outcome:?}");
    outcome
}

/// `gate.toml` in the folder of these settings.
fn write(settings: &Settings) {
    std::fs::copy(settings.write(), settings.folder().join("gate.toml")).unwrap();
}

#[test]
fn every_command_has_a_section_that_names_what_is_below_it() {
    let page = document(PAGE);
    let commands: BTreeSet<String> = subcommands(&[]).into_iter().collect();
    let general = ["Exit codes", "Options that several commands have"];
    let sections: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .filter(|title| !general.contains(title))
        .map(str::to_owned)
        .collect();
    assert_eq!(sections, commands);
    for command in &commands {
        let section = page.split(&format!("\n## {command}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
        for below in subcommands(&[command]) {
            assert!(section.contains(&below), "{command} {below} is not in its section");
        }
        let help = portcullis(&[command, "--help"]).out;
        let options = section.split("`--").skip(1).map(|rest| {
            rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').next().unwrap_or_default()
        });
        let known = |option: &str| {
            let below = subcommands(&[command]);
            let inner = below.iter().map(|below| portcullis(&[command, below, "--help"]).out);
            std::iter::once(help.clone()).chain(inner).any(|help| help.contains(&format!("--{option}")))
        };
        for option in options {
            assert!(known(option), "{command} has no option --{option}");
        }
    }
}

/// Runs docs/commands.md: portcullis check --config gate.toml
/// Runs docs/commands.md: --path /deals/7 -
/// Runs docs/commands.md: portcullis event role-changed
/// Runs docs/commands.md: portcullis revocation undo 1
/// Runs docs/commands.md: portcullis session end
/// Runs docs/commands.md: portcullis usage
/// Runs docs/commands.md: portcullis reload
/// Runs docs/commands.md: portcullis probe live
#[test]
fn the_examples_of_operators_run_as_printed() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = Settings::plaintext().guarding(&upstream.url(), &issuer).admin();
    let gate = Gate::start(&settings);
    write(&settings);
    let token = issuer.token().claim("sub", "alice").claim("client_id", "app").build();
    let run = |key: &str| run(key, settings.folder(), &token, Some(&gate)).out;
    assert!(run("portcullis check --config gate.toml").contains("is good"));
    assert!(run("--path /deals/7 -").contains("allowed"));
    assert_eq!(gate.get("/").token(&token).send().status(), 200);
    assert!(run("portcullis usage").contains("\"client\":\"app\""));
    assert!(run("portcullis session end").contains("alice"));
    assert_eq!(gate.get("/").token(&token).send().status(), 401);
    assert!(run("portcullis event role-changed").contains("role-changed"));
    assert!(run("portcullis revocation undo 1").contains("is undone"));
    assert!(run("portcullis reload").contains("in force"));
    assert!(run("portcullis probe live").contains("\"ready\":true"));
}

/// Runs docs/commands.md: portcullis user create
/// Runs docs/commands.md: portcullis credential create
#[test]
fn the_examples_of_accounts_run_as_printed() {
    let upstream = RawUpstream::start();
    let settings = Settings::plaintext()
        .upstream("api", &upstream.url(), "")
        .route("/{*rest}", "")
        .toml(AUTHORITY)
        .admin();
    let gate = Gate::start(&settings);
    let run = |key: &str| run(key, settings.folder(), "", Some(&gate)).out;
    assert!(run("portcullis user create").contains("ann"));
    assert!(run("portcullis credential create").contains("Invoice robot"));
}

/// Runs docs/commands.md: portcullis state init
/// Runs docs/commands.md: portcullis schema
/// Runs docs/commands.md: source <(portcullis completions bash)
/// Runs docs/commands.md: portcullis man
#[test]
fn the_examples_that_need_no_gate_run_as_printed() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings =
        Settings::plaintext().guarding(&upstream.url(), &issuer).toml("[state]\npath = \"state.db\"\n");
    write(&settings);
    let run = |key: &str| run(key, settings.folder(), "", None).out;
    assert!(run("portcullis state init").contains("are accepted"));
    assert!(settings.folder().join("copy.db").exists());
    assert_eq!(run("portcullis schema"), "");
    assert!(
        std::fs::read_to_string(settings.folder().join("portcullis.schema.json"))
            .unwrap()
            .contains("2020-12")
    );
    assert_eq!(run("source <(portcullis completions bash)"), "");
    assert!(run("portcullis man").contains("portcullis-run.1"));
}
