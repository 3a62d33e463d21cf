//! `portcullis check` as a process: exit codes, and what it prints where.

use std::process::{Command, Output};

use super::{BASE, Folder, base_with};

fn portcullis(folder: &Folder) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.env_remove("PORTCULLIS_CONFIG").current_dir(folder.path(""));
    command
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn check(folder: &Folder, config: &str) -> Output {
    portcullis(folder).args(["check", "--config", config]).output().unwrap()
}

#[test]
fn a_good_file_is_summed_up_on_standard_output() {
    let folder = Folder::new();
    let text_of_file = base_with(&[(
        "route",
        "methods = [\"GET\", \"HEAD\"]\nscopes = [\"read:deals\"]\nany_role = [\"agent\", \"admin\"]\n\
         [[routes]]\npath = \"/health\"\nhosts = [\"api.example.com\"]\nupstream = \"api\"\nanonymous = true\n\
         [[routes]]\npath = \"/new\"\nupstream = \"api\"\nmode = \"shadow\"",
    )]);
    folder.write("config/portcullis.toml", &text_of_file);
    let output = check(&folder, "config/portcullis.toml");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
    assert_eq!(
        text(&output.stdout),
        "\
config/portcullis.toml is good.

Listeners
public     127.0.0.1:0  clear text
telemetry  127.0.0.1:0  clear text: /metrics /live /ready
admin      127.0.0.1:0  clear text

Issuers
https://idp.example.com/  RS256 ES256 EdDSA  keys from https://idp.example.com/jwks

Upstreams
api  http://127.0.0.1:3000

Routes
METHOD    HOST             PATH            UPSTREAM  REQUIRES                                    MODE
GET,HEAD  any              /deals/{*rest}  api       scopes read:deals; any role of agent|admin  enforce
any       api.example.com  /health         api       nothing (anonymous)                         enforce
any       any              /new            api       a valid token                               shadow
"
    );
}

#[test]
fn a_summary_says_how_long_tokens_may_rest_where_issuers_differ() {
    let folder = Folder::new();
    for (own, more, expected) in [
        ("", "", ["jwks\n", "jwks\n"]),
        ("idle_timeout = \"30m\"", "", ["jwks\n", "jwks\n"]),
        ("idle_timeout = \"90m\"", "", ["jwks   idle after 1h30m\n", "jwks  idle after 30m\n"]),
        (
            "idle_timeout = \"90m\"",
            "idle_timeout = \"0s\"",
            ["jwks   idle after 1h30m\n", "jwks  never idle\n"],
        ),
    ] {
        let other = format!(
            "{own}\n[[issuers]]\nissuer = \"https://ci.example.com/\"\naudiences = [\"api\"]\njwks_url = \"https://ci.example.com/jwks\"\n{more}"
        );
        folder.write("config/portcullis.toml", &base_with(&[("issuer", &other)]));
        let output = check(&folder, "config/portcullis.toml");
        let told = text(&output.stdout);
        let (_, issuers) = told.split_once("\nIssuers\n").unwrap();
        let mut lines = issuers.split_inclusive('\n');
        for (line, name) in expected.iter().zip(["idp", "ci"]) {
            let found = lines.next().unwrap();
            let squeezed = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(found.starts_with(&format!("https://{name}.example.com/ ")), "{told}");
            assert!(squeezed(found).ends_with(&squeezed(line)), "{told}");
        }
    }
}

#[test]
fn what_routes_say_about_pages_is_summed_up_where_they_say_something() {
    let folder = Folder::new();
    let route =
        |path: &str, lines: &str| format!("\n[[routes]]\npath = {path:?}\nupstream = \"api\"\n{lines}");
    let lines = [
        route("/plain", ""),
        route("/a", "methods = [\"GET\", \"PUT\"]\norigins = [\"HTTPS://A.example:443\", \"null\"]"),
        route(
            "/b",
            "hosts = [\"api.example.com\"]\ncors = { origins = [\"https://a.example\", \"https://b.example\"], credentials = true }",
        ),
        route("/c", "origins = [\"https://a.example\"]\ncors = { origins = [\"*\"] }"),
        route("/d", "[routes.cors]"),
    ];
    folder.write("config/portcullis.toml", &base_with(&[("route", &lines.concat())]));
    let output = check(&folder, "config/portcullis.toml");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let browsers = text(&output.stdout).split("\nBrowsers\n").nth(1).expect("a section");
    assert_eq!(
        browsers,
        "\
GET,PUT  any              /a  only from https://a.example null  CORS is the upstream's
any      api.example.com  /b  from any origin                   CORS for https://a.example https://b.example, with credentials
any      any              /c  only from https://a.example       CORS for every origin
any      any              /d  from any origin                   CORS for no origin
"
    );
}

#[test]
fn every_problem_is_a_line_on_standard_error_and_the_exit_code_is_2() {
    let folder = Folder::new();
    folder.write(
        "config/portcullis.toml",
        &base_with(&[("server", "wrokers = 1\ndrain_timeout = 5"), ("state", "store = \"radish\"")]),
    );
    let output = check(&folder, "config/portcullis.toml");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stdout), "");
    let lines: Vec<_> = text(&output.stderr).lines().collect();
    assert_eq!(lines.len(), 3, "{lines:#?}");
    assert_eq!(lines[0], "config/portcullis.toml:5: server.wrokers: unknown key; did you mean \"workers\"?");
    assert!(
        lines[1].starts_with("config/portcullis.toml:6: server.drain_timeout: 5 has no unit"),
        "{}",
        lines[1]
    );
    assert!(lines[2].contains(": state.store: \"radish\" is unknown"), "{}", lines[2]);
}

#[test]
fn the_file_is_the_argument_else_the_variable_else_the_usual_place() {
    let folder = Folder::new();
    folder.write("config/portcullis.toml", BASE);
    folder.write("other.toml", BASE);
    let usual = portcullis(&folder).arg("check").output().unwrap();
    assert!(text(&usual.stdout).starts_with("config/portcullis.toml is good."));
    let variable = portcullis(&folder).arg("check").env("PORTCULLIS_CONFIG", "other.toml").output().unwrap();
    assert!(text(&variable.stdout).starts_with("other.toml is good."));
    let argument = portcullis(&folder)
        .args(["check", "--config", "config/portcullis.toml"])
        .env("PORTCULLIS_CONFIG", "none.toml")
        .output()
        .unwrap();
    assert_eq!(argument.status.code(), Some(0), "{}", text(&argument.stderr));
}

#[test]
fn a_file_that_is_not_there_is_bad_configuration() {
    let output = check(&Folder::new(), "none.toml");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stderr), "none.toml: cannot be read: No such file or directory (os error 2)\n");
}

#[test]
fn the_reference_passes_as_it_is_shipped() {
    let folder = Folder::new();
    let shipped =
        std::fs::read_to_string(format!("{}/config/reference.toml", env!("CARGO_MANIFEST_DIR"))).unwrap();
    folder.write("config/reference.toml", &shipped);
    let mut command = portcullis(&folder);
    command.args(["check", "--config", "config/reference.toml"]).env_remove("PORTCULLIS_ADMIN_TOKEN");
    let without = command.output().unwrap();
    assert_eq!(without.status.code(), Some(2));
    assert!(
        text(&without.stderr).ends_with(
            "admin.tokens[0].secret: the environment variable PORTCULLIS_ADMIN_TOKEN is not set\n"
        )
    );
    let with = command.env("PORTCULLIS_ADMIN_TOKEN", "a-secret-of-this-test").output().unwrap();
    assert_eq!(with.status.code(), Some(0), "{}", text(&with.stderr));
}

#[test]
fn usage_errors_exit_with_2_and_help_with_0() {
    let folder = Folder::new();
    for arguments in [&["chekc"][..], &[], &["check", "--conf", "x"], &["check", "extra"]] {
        let output = portcullis(&folder).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
    for (arguments, mentions) in [
        (&["--help"][..], "check"),
        (&["check", "--help"], "PORTCULLIS_CONFIG"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
    ] {
        let output = portcullis(&folder).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(text(&output.stdout).contains(mentions), "{arguments:?}: {}", text(&output.stdout));
    }
}

#[test]
fn tokens_that_anybody_can_get_and_conditions_that_fit_too_much_are_warned_of() {
    const GITHUB: &str = "https://token.actions.githubusercontent.com";
    const ANY: &str = "any workflow on GitHub";
    const PULLS: &str = "jobs of pull requests";
    let folder = Folder::new();
    let evil = |prefix: &str| format!("so it also matches \"{prefix}-evil\"");
    let (org, word) = (evil("repo:octo-org"), evil("octo"));
    let table: [(&str, &str, &str, &[&str]); 24] = [
        (GITHUB, "", "", &[ANY]),
        ("https://github.example.com/_services/token", "", "", &[ANY]),
        (GITHUB, "conditions = { repository_id = \"74\" }", "", &[]),
        (GITHUB, "conditions = { repository_id = { exists = true } }", "", &[ANY]),
        (GITHUB, "", "claims = { repository_id = \"74\" }", &[]),
        (GITHUB, "", "claims = { repository_id = { exists = true } }", &[ANY]),
        (
            GITHUB,
            "",
            "allow = [{ claims = { repository_id = \"74\" } }, { claims = { actor_id = \"12\" } }]",
            &[],
        ),
        (GITHUB, "", "allow = [{ claims = { repository_id = \"74\" } }, { roles = [\"r\"] }]", &[ANY]),
        (GITHUB, "", "anonymous = true", &[]),
        (GITHUB, "conditions = { sub = { prefix = \"repo:octo-org\" } }", "", &[&org, PULLS]),
        (GITHUB, "conditions = { sub = { prefix = \"repo:octo-org/\" } }", "", &[PULLS]),
        (GITHUB, "conditions = { sub = { prefix = \"repo:octo-org@\" } }", "", &[PULLS]),
        (GITHUB, "conditions = { sub = { prefix = \"repo:octo-org/octo-repo:\" } }", "", &[PULLS]),
        (GITHUB, "conditions = { sub = { prefix = \"repo:octo-org/octo-repo:ref:refs/heads/\" } }", "", &[]),
        (GITHUB, "conditions = { sub = \"repo:octo-org/octo-repo:pull_request\" }", "", &[PULLS]),
        (GITHUB, "conditions = { sub = \"repo:octo-org/octo-repo:environment:prod\" }", "", &[]),
        (GITHUB, "conditions = { sub = { glob = \"repo:octo-org/*:ref:refs/heads/main\" } }", "", &[]),
        (GITHUB, "conditions = { sub = { glob = \"repo:octo-org/octo-repo:*\" } }", "", &[PULLS]),
        ("https://gitlab.com", "", "", &["any job of that GitLab"]),
        ("https://gitlab.example.com", "conditions = { project_id = \"20\" }", "", &[]),
        ("https://oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLE", "", "", &["any pod of the cluster"]),
        (
            "https://spire.example.com",
            "spiffe_trust_domain = \"example.org\"",
            "",
            &["any workload of the trust domain"],
        ),
        ("https://idp.example.com/", "", "claims = { tenant = { prefix = \"octo\" } }", &[&word]),
        ("https://idp.example.com/", "", "claims = { sub = { prefix = \"repo:o/r:\" } }", &[]),
    ];
    for (issuer, of_issuer, of_route, expected) in table {
        let name = format!("issuer = \"{issuer}\"");
        let of_file = base_with(&[("issuer.name", &name), ("issuer", of_issuer), ("route", of_route)]);
        folder.write("config/portcullis.toml", &of_file);
        let output = check(&folder, "config/portcullis.toml");
        let told: Vec<&str> = text(&output.stderr).lines().collect();
        assert_eq!(output.status.code(), Some(0), "{told:?}");
        assert_eq!(told.len(), expected.len(), "{issuer} {of_issuer} {of_route}: {told:#?}");
        for (line, part) in told.iter().zip(expected) {
            assert!(line.starts_with("warning: ") && line.contains(part), "{line} {part}");
        }
    }
}
