//! The idle clock to the second, what advances it and what does not, and that every spelling of a token shares one.

use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

use testkit::app::{App, Speaks};
use testkit::gate::Gate;
use testkit::settings::Settings;
use testkit::tokens::{Issuer, twin};
use testkit::{eventually, now, now_ms};

/// The idle timeout in milliseconds.
const IDLE: i64 = 3_000;

fn scene(url: &str, lines: &str) -> (Issuer, Gate) {
    let issuer = Issuer::new();
    let settings = Settings::plaintext()
        .upstream("api", url, "connect_timeout = \"500ms\"")
        .issuer(&issuer)
        .route("/{*rest}", "")
        .route("/admin", "scopes = [\"admin\"]")
        .route("/shadow", "scopes = [\"admin\"]\nmode = \"shadow\"")
        .route("/anonymous", "anonymous = true")
        .admin()
        .toml(&format!("[sessions]\nidle_timeout = \"{IDLE}ms\"\n{lines}"));
    (issuer, Gate::start(&settings))
}

fn status(gate: &Gate, path: &str, token: &str) -> u16 {
    gate.get(path).token(token).send().status()
}

/// Presents a token once; returns between which moments the gate checked it, and whether it was accepted.
fn present(gate: &Gate, token: &str) -> (i64, i64, bool) {
    let before = now_ms();
    let answer = gate.get("/anything").token(token).send();
    assert!(matches!(answer.status(), 200 | 401), "{}", answer.text());
    (before, now_ms(), answer.status() == 200)
}

/// Holds docs/configuration.md, Settings: sessions.idle_timeout
#[test]
fn a_token_passes_until_a_second_before_its_timeout_at_least_and_never_after_it() {
    let app = App::start(Speaks::Http1);
    let (issuer, gate) = scene(&app.url(), "");
    // Each is used once now, and once again at a moment of its own, the last of them when all are idle.
    let use_one = |_| {
        eventually("a token is used before it is idle", || {
            let token = issuer.good();
            let (from, to, is_accepted) = present(&gate, &token);
            is_accepted.then_some((from, to, token))
        })
    };
    let used: Vec<_> = (0..32).map(use_one).collect();
    let (mut passed, mut refused) = (0, 0);
    for (place, (from, to, token)) in used.into_iter().enumerate() {
        let age = IDLE / 2 + i64::try_from(place).unwrap() * 65;
        eventually("its moment", || (now_ms() >= from + age).then_some(()));
        let (before, after, let_through) = present(&gate, &token);
        if let_through {
            assert!(
                before - to <= IDLE,
                "used at {to} at the latest, let through at {before} at the earliest"
            );
            passed += 1;
        } else {
            assert!(after - from > IDLE - 1_000, "used at {from} or later, refused by {after} already");
            assert!(!present(&gate, &token).2 && !present(&gate, &twin(&token)).2, "for good");
            refused += 1;
        }
    }
    assert!(refused > 0, "those that came last are idle");
    assert_eq!(passed + refused, 32);
}

#[test]
fn before_its_first_use_a_token_counts_as_used_when_it_was_issued() {
    let app = App::start(Speaks::Http1);
    let (issuer, gate) = scene(&app.url(), "");
    for age in 0..6 {
        let issued = now() - age;
        let (before, after, let_through) = present(&gate, &issuer.token().claim("iat", issued).build());
        if let_through {
            assert!(before - issued * 1_000 <= IDLE, "{age} s old");
        } else {
            assert!(after - issued * 1_000 > IDLE, "{age} s old");
        }
    }
}

#[test]
fn requests_that_are_refused_shadow_denied_or_anonymous_do_not_keep_a_token_in_use() {
    let app = App::start(Speaks::Http1);
    let (issuer, gate) = scene(&app.url(), "");
    for (path, before, after) in [("/admin", 403, 401), ("/shadow", 200, 200), ("/anonymous", 200, 401)] {
        let token = gate.use_in_time("/anything", || issuer.good());
        let mut sent = 0;
        eventually(&format!("the token goes idle while {path} is asked for"), || {
            let answered = status(&gate, path, &token);
            assert!(answered == before || answered == after, "{path}: {answered}");
            sent += 1;
            (gate.would_say(&token) == "idle").then_some(())
        });
        assert!(sent > 2, "it was presented again and again");
        assert_eq!(status(&gate, path, &token), after, "{path}");
        assert_eq!(gate.reason(&token), "idle");
    }
}

#[test]
fn whatever_the_upstream_answers_the_token_was_used() {
    let (app, long) = (App::start(Speaks::Http1), IDLE * 2);
    let (issuer, gate) = scene(&app.url(), "");
    let token = issuer.good();
    let began = now_ms();
    eventually("the token is in use for long", || {
        assert_eq!(status(&gate, "/status/500", &token), 500);
        (now_ms() - began > long).then_some(())
    });
    // Nobody answers: it was forwarded, or at least the gate tried.
    let nobody = nobody();
    let url = format!("http://{}", nobody.local_addr().unwrap().as_socket().unwrap());
    let (issuer, gate) = scene(&url, "");
    let token = issuer.good();
    let began = now_ms();
    eventually("the token is in use for long", || {
        assert_eq!(status(&gate, "/anything", &token), 502);
        (now_ms() - began > long).then_some(())
    });
}

/// A port that is bound but on which nobody listens.
fn nobody() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket
}

#[test]
fn every_spelling_of_a_token_moves_the_same_clock() {
    let app = App::start(Speaks::Http1);
    let (issuer, gate) = scene(&app.url(), "");
    for named in [true, false] {
        let token = if named { issuer.good() } else { issuer.token().without("jti").build() };
        let before = gate.list("/v1/sessions").len();
        for spelling in [&token, &twin(&token), &token, &twin(&token)] {
            assert_eq!(status(&gate, "/anything", spelling), 200);
        }
        assert_eq!(gate.list("/v1/sessions").len(), before + 1, "one token, one clock");
        eventually("the token is idle", || (gate.would_say(&token) == "idle").then_some(()));
        for spelling in [&twin(&token), &token] {
            assert_eq!(gate.reason(spelling), "idle");
        }
        // The last six bits of an encoded signature are not all used; with others it is the same token, or none.
        let last = token.chars().last().unwrap();
        for other in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=".chars() {
            let spelling = format!("{}{other}", token.strip_suffix(last).unwrap());
            assert!(matches!(status(&gate, "/anything", &spelling), 400 | 401), "{other} for {last}");
        }
        assert_eq!(status(&gate, "/anything", &format!("{token}=")), 401);
    }
}

/// Holds docs/configuration.md, Settings: sessions.idle_timeout
#[test]
fn without_a_timeout_no_token_goes_idle() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let settings = Settings::plaintext().guarding(&app.url(), &issuer);
    let gate = Gate::start(&settings.toml("[sessions]\nidle_timeout = \"0s\"\n"));
    let old = issuer.token().claim("iat", now() - 80_000).build();
    assert_eq!(status(&gate, "/anything", &old), 200);
}

/// An upstream, users and machines, each with an issuer, and a state file that outlives a gate.
struct TwoIssuers {
    app: App,
    people: Issuer,
    machines: Issuer,
    folder: tempfile::TempDir,
}

impl TwoIssuers {
    fn new() -> Self {
        let [people, machines] = ["https://people.example/", "https://machines.example/"].map(Issuer::named);
        Self { app: App::start(Speaks::Http1), people, machines, folder: tempfile::tempdir().unwrap() }
    }

    /// A gate with this line in the table of the machines' issuer.
    fn gate(&self, own: &str) -> Gate {
        let settings = Settings::plaintext()
            .upstream("api", &self.app.url(), "")
            .issuer(&self.people)
            .issuer_with(&self.machines, own)
            .route("/{*rest}", "")
            .admin();
        Gate::start(&settings.toml(&format!(
            "[sessions]\nidle_timeout = \"{IDLE}ms\"\n[state]\npath = \"{}\"\non_empty = \"trust\"\n",
            self.folder.path().join("state.db").display()
        )))
    }
}

fn reload(gate: &Gate, from: &str, to: &str) {
    let path = gate.settings.write();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(&path, text.replace(from, to)).unwrap();
    assert_eq!(gate.operate("POST", "/v1/reload", None).status(), 200);
}

/// Holds docs/configuration.md, Settings: issuers[].idle_timeout
#[test]
fn a_token_goes_by_the_idle_timeout_of_its_issuer() {
    for (own, old) in [("idle_timeout = \"1h\"", 3_500), ("idle_timeout = \"0s\"", 80_000)] {
        let scene = TwoIssuers::new();
        let (TwoIssuers { people, machines, .. }, gate) = (&scene, scene.gate(own));
        let person = gate.use_in_time("/anything", || people.good());
        let (machine, rested) = (machines.good(), machines.token().claim("iat", now() - old).build());
        for token in [&machine, &rested] {
            assert_eq!(status(&gate, "/anything", token), 200, "{own}");
        }
        assert_eq!(gate.reason(&people.token().claim("iat", now() - 10).build()), "idle", "{own}");
        eventually("the person's token is idle", || (gate.would_say(&person) == "idle").then_some(()));
        assert_eq!(gate.reason(&person), "idle", "{own}");
        assert_eq!(status(&gate, "/anything", &machine), 200, "{own}");
        let listed = gate.list("/v1/sessions");
        assert!(listed.iter().all(|row| row["issuer"] == "https://machines.example/"), "{own}: {listed:?}");
        assert_eq!(listed.len(), 2, "{own}");
    }
    // Shorter than that of all.
    let scene = TwoIssuers::new();
    let (TwoIssuers { people, machines, .. }, gate) = (&scene, scene.gate("idle_timeout = \"2s\""));
    reload(&gate, &format!("\"{IDLE}ms\""), "\"10m\"");
    let (person, machine) = (people.good(), gate.use_in_time("/anything", || machines.good()));
    assert_eq!(status(&gate, "/anything", &person), 200);
    eventually("the machine's token is idle", || (gate.would_say(&machine) == "idle").then_some(()));
    assert_eq!((gate.reason(&machine).as_str(), status(&gate, "/anything", &person)), ("idle", 200));
}

#[test]
fn a_reload_of_one_issuers_timeout_leaves_the_others_alone_and_revives_nothing() {
    let scene = TwoIssuers::new();
    let (TwoIssuers { people, machines, .. }, mut gate) = (&scene, scene.gate("idle_timeout = \"2s\""));
    let idle = gate.use_in_time("/anything", || machines.good());
    let issued_at = now();
    let unused = machines.token().claim("iat", issued_at).build();
    eventually("both of the machines' tokens are idle", || {
        let all = [&idle, &unused].iter().all(|token| gate.would_say(token) == "idle");
        (all && now() > issued_at + 2).then_some(())
    });
    let person = people.good();
    assert_eq!(status(&gate, "/anything", &person), 200);
    reload(&gate, "idle_timeout = \"2s\"", "idle_timeout = \"0s\"");
    let fresh = machines.good();
    let judge = |gate: &Gate| {
        assert_eq!(gate.reason(&idle), "idle", "it was idle before");
        assert_eq!(gate.reason(&unused), "idle", "it was idle before");
        assert_eq!(status(gate, "/anything", &fresh), 200);
    };
    judge(&gate);
    eventually("the person's token goes by the timeout of all", || {
        (gate.would_say(&person) == "idle").then_some(())
    });
    assert_eq!(gate.would_say(&fresh), "allowed", "it rested as long");
    gate.stop();
    let again = scene.gate("idle_timeout = \"0s\"");
    judge(&again);
    assert_eq!(again.reason(&person), "idle");
    // Back to the timeout of all: what was idle is, and what was not has rested too long by now.
    reload(&again, "idle_timeout = \"0s\"", "idle_timeout = \"\"");
    assert_eq!(again.reason(&idle), "idle");
    eventually("the machine's token goes by the timeout of all", || {
        (again.would_say(&fresh) == "idle").then_some(())
    });
}
