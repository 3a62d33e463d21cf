//! `portcullis event` as a process, against a listening gate.

use std::process::{Command, Output};

use portcullis::revocations::Ended;
use portcullis::time::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::admin_api::{A, B, Gate, Shown as _};

/// Runs the command; `token` is the value of the environment variable.
async fn event(address: &str, token: &str, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.arg("event").args(args).env_clear().env("PORTCULLIS_ADMIN_URL", address);
    if !token.is_empty() {
        command.env("PORTCULLIS_ADMIN_TOKEN", token);
    }
    let ended = tokio::task::spawn_blocking(move || command.output().unwrap());
    let Output { status, stdout, stderr } = ended.await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[tokio::test]
async fn an_event_from_the_command_line_is_in_force_when_it_returns() {
    let gate = Gate::start(&[A]).await;
    let (address, issued_at) = (format!("http://{}/", gate.address), Timestamp::now());
    let sent = event(&address, "events", &["subject-revoked", "--subject", "alice"]).await;
    assert_eq!(sent, (0, "subject-revoked is in force (sequence 1)\n".to_owned(), String::new()));
    assert_eq!(gate.judge(A, "alice", issued_at), Some(Ended::Subject));

    let roles = ["role-changed", "--subject", "bob", "--role-version", "4", "--issuer", A, "--at"];
    let roles = [&roles[..], &["2026-01-01T00:00:00Z", "--json"]].concat();
    let (code, out, err) = event(&address, "events", &roles).await;
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), json!({"accepted": 1, "sequence": 2}));

    let file = gate.folder.path().join("token");
    std::fs::write(&file, "events\n").unwrap();
    let file = file.to_str().unwrap();
    for args in [
        &["token-revoked", "--jti", "j", "--token-file", file][..],
        &["client-revoked", "--client", "app", "--at", "1767225600.5", "--token-file", file],
        &["issuer-revoked", "--token-file", file, "--admin", &format!("http://{}", gate.address)],
    ] {
        let (code, _, err) = event(&address, "the file wins", args).await;
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}");
    }
    let items = gate.call("GET /v1/events?after=1", "").await.items();
    let told: Vec<_> = items.iter().map(|item| [&item["type"], &item["role_version"]]).collect();
    assert_eq!(
        json!(told),
        json!([
            ["role-changed", 4],
            ["token-revoked", null],
            ["client-revoked", null],
            ["issuer-revoked", null]
        ])
    );
    assert_eq!(items[0]["at"], "2026-01-01T00:00:00.000Z");
    assert_eq!(items[2]["at"], "2026-01-01T00:00:00.500Z");
}

#[tokio::test]
async fn what_goes_wrong_is_said_in_plain_words() {
    let gate = Gate::start(&[A, B]).await;
    let address = format!("http://{}", gate.address);
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let all = ["issuer-revoked", "--issuer", A];
    let with = |more: &[&'static str]| [&all[..], more].concat();
    for (to, token, args, code, words) in [
        (
            &silent,
            "events",
            all.to_vec(),
            1,
            &[silent.as_str(), "Connection refused", "PORTCULLIS_ADMIN_URL"][..],
        ),
        (&address, "", all.to_vec(), 1, &["no admin token", "PORTCULLIS_ADMIN_TOKEN", "--token-file"]),
        (&address, "wrong", all.to_vec(), 1, &["$PORTCULLIS_ADMIN_TOKEN", address.as_str()]),
        (&address, "two words", all.to_vec(), 1, &["bearer token"]),
        (&address, "two\nlines", all.to_vec(), 1, &["$PORTCULLIS_ADMIN_TOKEN"]),
        (&address, "sessions", all.to_vec(), 1, &["permission `events`"]),
        (&address, "events", vec!["issuer-revoked"], 1, &["`issuer` is required"]),
        (&address, "events", with(&["--at", "2200-01-01T00:00:00Z"]), 1, &["future"]),
        (
            &address,
            "events",
            with(&["--token-file", "/nowhere/token"]),
            1,
            &["/nowhere/token", "cannot be read"],
        ),
        (&address, "events", with(&["--token-file", "/dev/null"]), 1, &["/dev/null", "empty"]),
        (&address, "events", with(&["--ca", "/nowhere/ca.pem"]), 1, &["/nowhere/ca.pem"]),
        (
            &address,
            "events",
            with(&["--admin", "http://example.com"]),
            1,
            &["--admin http://example.com", "https"],
        ),
        (&address, "events", with(&["--admin", "localhost:9443"]), 1, &["--admin localhost:9443", "URL"]),
        (&address, "events", with(&["--admin", "http://127.0.0.1/?x"]), 1, &["--admin http://127.0.0.1/?x"]),
        (&address, "events", vec!["revoked"], 2, &["subject-revoked"]),
        (&address, "events", vec![], 2, &["TYPE"]),
        (&address, "events", vec!["subject-revoked"], 2, &["--subject"]),
        (&address, "events", vec!["token-revoked", "--subject", "s"], 2, &["--subject", "token-revoked"]),
        (&address, "events", vec!["subject-revoked", "--subject", "s", "--client", "c"], 2, &["--client"]),
        (&address, "events", with(&["--role-version", "1"]), 2, &["--role-version"]),
        (&address, "events", with(&["--role-version", "x"]), 2, &["--role-version"]),
        (&address, "events", with(&["--at", "yesterday"]), 2, &["RFC 3339"]),
        (&address, "events", with(&["--token", "events"]), 2, &["--token"]),
    ] {
        let (ended, out, err) = event(to, token, &args).await;
        assert_eq!((ended, out.as_str()), (code, ""), "{args:?}: {err}");
        for word in words {
            assert!(err.contains(word), "{word} in {args:?}: {err}");
        }
    }
    assert!(gate.ledger.log.events(0, 1).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn what_is_no_admin_listener_is_said_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let answering = tokio::spawn(async move {
        for answer in [
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
        ] {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    for status in ["200 OK", "404 Not Found"] {
        let (code, out, err) = event(&address, "events", &["issuer-revoked"]).await;
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(err.contains(status) && err.contains("is not an admin listener"), "{err}");
    }
    answering.await.unwrap();
}
