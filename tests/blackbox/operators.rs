//! Operators at the admin listener: guessing its secrets, and identifying a token by the first digits of its name.

use std::net::SocketAddr;

use rusqlite::Connection;
use serde_json::json;

use testkit::app::{App, Speaks};
use testkit::gate::Gate;
use testkit::operator::admin_call;
use testkit::settings::{ADMIN_TOKEN, Settings};
use testkit::tokens::Issuer;
use testkit::wire::{Answer, Wire};

fn call(admin: SocketAddr, token: &str) -> Answer {
    let request = admin_call("GET", "/v1/config", "").replace(ADMIN_TOKEN, token);
    Wire::plain(admin).exchange(request).unwrap()
}

#[test]
fn wrong_admin_secrets_are_slowed_and_a_right_one_always_passes() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let gate = Gate::start(&Settings::plaintext().guarding(&app.url(), &issuer).admin());
    let guesses = [
        ADMIN_TOKEN[1..].to_owned(),
        format!("{ADMIN_TOKEN}0"),
        ADMIN_TOKEN.to_uppercase(),
        "x".to_owned(),
        "y".repeat(4_000),
    ];
    let mut slowed = 0;
    for attempt in 0..300 {
        let answer = call(gate.admin, &guesses[attempt % guesses.len()]);
        match answer.status() {
            401 => assert!(answer.field("www-authenticate").unwrap().contains("invalid_token")),
            429 => {
                let wait: u64 = answer.field("retry-after").unwrap().parse().unwrap();
                assert!((1..=60).contains(&wait), "{wait}");
                assert_eq!(answer.field("www-authenticate"), None, "nothing is said of the secret");
                assert_eq!(answer.field("content-type"), Some("application/problem+json"));
                slowed += 1;
            }
            other => panic!("{other}: {}", answer.text()),
        }
        if attempt % 50 == 49 {
            assert_eq!(call(gate.admin, ADMIN_TOKEN).status(), 200, "the right secret, at {attempt}");
        }
    }
    assert!(slowed > 0, "nobody was slowed");
    // What shows no token is no guess.
    let bare =
        admin_call("GET", "/v1/config", "").replace(&format!("Authorization: Bearer {ADMIN_TOKEN}\r\n"), "");
    assert_eq!(Wire::plain(gate.admin).exchange(bare).unwrap().status(), 401);
}

/// Nobody can create two tokens whose names begin with the same twelve digits, so the file of a stopped gate is
/// edited to give one of them such a name.
#[test]
fn a_beginning_that_two_tokens_share_names_neither() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let state = "[state]\npath = \"state.db\"\non_empty = \"trust\"\n";
    let settings = Settings::plaintext().guarding(&app.url(), &issuer).admin().toml(state);
    let mut gate = Gate::start(&settings);
    for jti in ["one", "two", "three"] {
        let token = issuer.token().claim("jti", jti).build();
        assert_eq!(gate.get("/").token(&token).send().status(), 200);
    }
    gate.stop();
    let file = Connection::open(settings.folder().join("state.db")).unwrap();
    let mut names: Vec<Vec<u8>> = file
        .prepare("SELECT token FROM sessions ORDER BY token")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(names.len(), 3);
    let twin = [&names[0][..6], &names[1][6..]].concat();
    file.execute("UPDATE sessions SET token = ?1 WHERE token = ?2", [&twin, &names[1]]).unwrap();
    drop(file);
    names[1] = twin;
    let hex = |name: &[u8]| name.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let names: Vec<String> = names.iter().map(|name| hex(name)).collect();

    let gate = Gate::start(&settings);
    let listed = || {
        let items = gate.operate("GET", "/v1/sessions", None).json()["items"].clone();
        let mut listed: Vec<String> =
            items.as_array().unwrap().iter().map(|item| item["token"].as_str().unwrap().to_owned()).collect();
        listed.sort_unstable();
        listed
    };
    let mut all = names.clone();
    all.sort_unstable();
    assert_eq!(listed(), all);
    let end = |name: &str| gate.operate("DELETE", &format!("/v1/sessions/{name}"), None);
    // The shortest beginning that is unambiguous.
    let shared = names[0].bytes().zip(names[1].bytes()).take_while(|(one, other)| one == other).count();
    for (name, status) in [
        (&names[0][..11], 404),
        (&names[0][..12], 409),
        (&names[0][..shared], 409),
        (&names[0][..12].to_uppercase(), 409),
        (&format!("{}f", names[0]), 404),
        ("000000000000", 404),
        ("nothexdigits", 404),
    ] {
        let answer = end(name);
        assert_eq!(answer.status(), status, "{name}: {}", answer.text());
        assert_eq!(answer.json()["status"], json!(status));
    }
    assert_eq!(listed(), all, "an ambiguous name ends nothing");
    assert_eq!(end(&names[0][..=shared]).status(), 204);
    assert_eq!(end(&names[0][..12]).status(), 204, "which leaves one that begins so");
    assert_eq!(end(&names[2][..12]).status(), 204);
    assert!(listed().is_empty());
}
