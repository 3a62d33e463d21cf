//! Idle time across several replicas.

use std::time::Duration;

use serde_json::json;

use crate::scene::{ORIGIN, Scene, decision, publish, state, status};
use testkit::app::{App, Speaks};
use testkit::gate::Gate;
use testkit::redis_server::RedisServer;
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::{eventually, now, now_ms};

/// Debian's libfaketime, installed by tests/run; the loader finds it on every architecture.
const FAKETIME: &str = "/usr/$LIB/faketime/libfaketime.so.1";

fn with_idle(server: &RedisServer, gates: usize, idle: &str) -> Scene {
    Scene::with(gates, &format!("{}[sessions]\nidle_timeout = \"{idle}\"\n", state(&server.url())))
}

/// A token that is idle according to its `iat`, but was used on the first replica just before.
fn used_before_it_was_idle(scene: &Scene) -> String {
    let aged = || scene.issuer.token().claim("iat", now() - 599).build();
    let token = scene.gates[0].use_in_time("/anything", aged);
    let used_at = now();
    eventually("its issue is idle", || (now() > used_at + 1).then_some(()));
    token
}

#[test]
fn idle_here_and_used_there_is_not_idle() {
    let server = RedisServer::start();
    let scene = with_idle(&server, 3, "10m");
    let token = used_before_it_was_idle(&scene);
    for gate in &scene.gates {
        assert_eq!(status(gate, &token), 200, "it was used on the first replica");
    }
}

#[test]
fn idle_everywhere_is_refused_everywhere_for_good() {
    let server = RedisServer::start();
    let scene = with_idle(&server, 2, "1s");
    let token = scene.gates[0].use_in_time("/anything", || scene.issuer.good());
    eventually("one replica finds it idle", || {
        // Looking is no use, and leaves no trace.
        let keys: Vec<Vec<u8>> = server.ask(&["KEYS", "portcullis:{??}:*"]);
        let mut connection = connection(&server);
        let mut last_use = |key| redis::cmd("GET").arg(key).query::<i64>(&mut connection).ok();
        // A token that was presented too late has a negative mark.
        let at = keys.iter().filter_map(&mut last_use).find(|at| *at > 0)?;
        let clock: (i64, i64) = server.ask(&["TIME"]);
        (clock.0 * 1000 + clock.1 / 1000 - at > 1_000).then_some(())
    });
    assert_eq!(decision(&scene.gates[1], &token), "deny/idle");
    assert_eq!(decision(&scene.gates[0], &token), "deny/idle");
    assert_eq!(decision(&scene.gates[1], &token), "deny/idle");
}

fn connection(server: &RedisServer) -> redis::Connection {
    redis::Client::open(server.url()).unwrap().get_connection().unwrap()
}

#[test]
fn a_token_in_use_is_never_looked_up() {
    let server = RedisServer::start();
    let scene = with_idle(&server, 2, "10m");
    let token = scene.issuer.good();
    for _ in 0..200 {
        assert_eq!(status(&scene.gates[0], &token), 200);
    }
    let saved = |scene: &Scene| scene.gates[0].metrics().sum("portcullis_state_saved_total", &[]);
    eventually("its use is written behind", || (saved(&scene) >= 1.0).then_some(()));
    assert_eq!(scene.gates[0].metrics().sum("portcullis_state_reads_total", &[]), 0.0);
    // Old, and new to the replica: that is looked up, once.
    let old = scene.issuer.token().claim("iat", now() - 590).claim("jti", "old").build();
    assert_eq!(status(&scene.gates[0], &old), 200);
    let aged = scene.issuer.token().claim("iat", now() - 700).claim("jti", "aged").build();
    for _ in 0..10 {
        assert_eq!(status(&scene.gates[1], &aged), 401);
    }
    assert_eq!(scene.gates[1].metrics().sum("portcullis_state_reads_total", &[]), 1.0);
}

#[test]
fn last_uses_move_forward_only_and_leave_by_themselves() {
    let server = RedisServer::start();
    let scene = with_idle(&server, 1, "10m");
    assert_eq!(status(&scene.gates[0], &scene.issuer.good()), 200);
    let key: Vec<u8> = eventually("the use is written", || {
        let keys: Vec<Vec<u8>> = server.ask(&["KEYS", "portcullis:{??}:*"]);
        keys.into_iter().next()
    });
    let left: i64 = redis::cmd("PTTL").arg(&key).query(&mut connection(&server)).unwrap();
    let limit = Duration::from_secs(600 + 60).as_millis() as i64;
    assert!(left > limit - 60_000 && left <= limit, "{left}");
    let ahead = (now() + 3_600) * 1000;
    redis::cmd("SET").arg(&key).arg(ahead).query::<()>(&mut connection(&server)).unwrap();
    let saved = || scene.gates[0].metrics().sum("portcullis_state_saved_total", &[]);
    let before = saved();
    assert_eq!(status(&scene.gates[0], &scene.issuer.good()), 200);
    eventually("a later write", || (saved() > before).then_some(()));
    let kept: i64 = redis::cmd("GET").arg(&key).query(&mut connection(&server)).unwrap();
    assert_eq!(kept, ahead);
}

#[test]
fn a_replica_that_starts_knows_what_the_others_saw() {
    let server = RedisServer::start();
    let mut scene = with_idle(&server, 1, "10m");
    let token = used_before_it_was_idle(&scene);
    eventually("the use is written", || {
        (scene.gates[0].metrics().sum("portcullis_state_saved_total", &[]) >= 1.0).then_some(())
    });
    scene.replace(0);
    assert_eq!(status(&scene.gates[0], &token), 200);
}

#[test]
fn an_emptied_server_gets_last_uses_again() {
    let server = RedisServer::start();
    let scene = with_idle(&server, 2, "10m");
    let token = used_before_it_was_idle(&scene);
    assert_eq!(status(&scene.gates[0], &token), 200);
    server.ask::<String>(&["FLUSHALL"]);
    eventually("the other replica knows of the use", || match status(&scene.gates[1], &token) {
        200 => Some(()),
        // It says that it cannot tell, and never that the token is idle: that would be for good.
        status => {
            assert_eq!(status, 503);
            None
        }
    });
    assert_eq!(status(&scene.gates[0], &token), 200);
}

#[test]
fn clocks_that_are_a_minute_apart_change_nothing() {
    let server = RedisServer::start();
    let lines = format!("{}[sessions]\nidle_timeout = \"10m\"\n", state(&server.url()));
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let gates = ["-60s", "+0s", "+60s"].map(|offset| {
        // A token that was issued just now comes from the future for the first of them.
        let settings =
            Settings::plaintext().upstream("api", &app.url(), "").issuer_with(&issuer, "leeway = \"2m\"");
        let settings = settings.route("/{*rest}", "").admin().toml(&lines);
        let gate = Gate::launch_with(&settings, |command| {
            command
                .env("LD_PRELOAD", FAKETIME)
                .env("FAKETIME", offset)
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        });
        gate.wait_until_ready();
        gate
    });
    let aged = |age: i64, jti: &str| issuer.token().claim("iat", now() - age).claim("jti", jti).build();
    // By its own clock the last of them would call the first of these idle, and the first would let the second pass.
    for (index, gate) in gates.iter().enumerate() {
        assert_eq!(status(gate, &aged(570, &format!("fresh-{index}"))), 200, "gate {index}");
        assert_eq!(decision(gate, &aged(630, &format!("idle-{index}"))), "deny/idle", "gate {index}");
    }
    let used = gates[0].use_in_time("/anything", || issuer.token().claim("iat", now() - 595).build());
    let used_at = now();
    eventually("its issue is idle", || (now() > used_at + 5).then_some(()));
    for gate in &gates {
        assert_eq!(status(gate, &used), 200, "used on the gate whose clock is slow");
    }
    let written: Vec<i64> = server
        .ask::<Vec<Vec<u8>>>(&["KEYS", "portcullis:{??}:*"])
        .iter()
        .map(|key| redis::cmd("GET").arg(key).query::<i64>(&mut connection(&server)).unwrap())
        .collect();
    assert!(written.iter().all(|at| at / 1000 <= now()), "nothing is written from the future: {written:?}");
}

#[test]
fn tokens_that_go_idle_are_looked_up_only_when_they_come_again() {
    let server = RedisServer::start();
    let scene = with_idle(&server, 1, "3s");
    let gate = &scene.gates[0];
    let mut tokens = (0..300).map(|i| {
        let mut attempts = 0..;
        gate.use_in_time("/anything", || scene.token(&format!("once{i}-{:?}", attempts.next())))
    });
    let first = tokens.next().unwrap();
    assert_eq!(tokens.count(), 299);
    let reads = || gate.metrics().sum("portcullis_state_reads_total", &[]);
    let by_requests = reads();
    gate.wait_for_metric("all of them went idle, and left", |metrics| {
        let left = metrics.sum("portcullis_sessions_evicted_total", &[("cause", "idle")]);
        (left == 300.0 && metrics.sum("portcullis_sessions_tracked", &[]) == 0.0).then_some(())
    });
    assert_eq!(reads(), by_requests, "nobody asked");
    // One that comes again is worth a question.
    assert_eq!(decision(gate, &first), "deny/idle");
    assert_eq!(reads(), by_requests + 1.0);
}

#[test]
fn what_was_idle_when_the_timeout_grew_stays_idle_on_every_gate_also_on_one_that_starts_later() {
    for restarts in [false, true] {
        let server = RedisServer::start();
        let mut scene = with_idle(&server, 2, "2s");
        let [one, other] =
            [0, 1].map(|gate| scene.gates[gate].use_in_time("/anything", || scene.issuer.good()));
        let is_saved = |gate: &Gate| gate.metrics().sum("portcullis_state_saved_total", &[]) >= 1.0;
        eventually("both uses are written", || scene.gates.iter().all(is_saved).then_some(()));
        // Nobody asks for them meanwhile, so nothing marks them.
        let since = now_ms();
        eventually("both are idle", || (now_ms() > since + 2_000).then_some(()));
        for gate in scene.gates.iter_mut() {
            if restarts {
                gate.stop();
                continue;
            }
            let path = gate.settings.write();
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, text.replace("idle_timeout = \"2s\"", "idle_timeout = \"10m\"")).unwrap();
            gate.signal("HUP");
            gate.wait_for_reloads("ok", 1.0);
        }
        if restarts {
            scene.gates.clear();
        }
        eventually("the first gate has written what it goes by", || {
            let kept: Option<String> = server.ask(&["HGET", ORIGIN, "idle"]);
            (restarts || kept.is_some_and(|kept| kept.starts_with("600000 "))).then_some(())
        });
        let lines = format!("{}[sessions]\nidle_timeout = \"10m\"\n", state(&server.url()));
        scene.gates.push(scene.launch(&lines));
        for gate in &scene.gates {
            assert_eq!(decision(gate, &one), "deny/idle", "restarts: {restarts}");
            assert_eq!(decision(gate, &other), "deny/idle", "restarts: {restarts}");
            assert_eq!(status(gate, &scene.issuer.good()), 200, "restarts: {restarts}");
        }
    }
}

/// Two gates with an issuer that has its own idle timeout in addition to the common one of 4 s.
fn with_own(server: &RedisServer, own: &str) -> (App, Issuer, Issuer, Vec<Gate>) {
    let (app, people, machines) = (
        App::start(Speaks::Http1),
        Issuer::named("https://people.example/"),
        Issuer::named("https://machines.example/"),
    );
    let gates = (0..2)
        .map(|_| Gate::launch(&own_settings(server, &app, (&people, &machines), own)))
        .collect::<Vec<_>>();
    gates.iter().for_each(Gate::wait_until_ready);
    (app, people, machines, gates)
}

fn own_settings(
    server: &RedisServer,
    app: &App,
    (people, machines): (&Issuer, &Issuer),
    own: &str,
) -> Settings {
    let settings =
        Settings::plaintext().upstream("api", &app.url(), "").issuer(people).issuer_with(machines, own);
    let lines = format!("{}[sessions]\nidle_timeout = \"4s\"\n", state(&server.url()));
    settings.route("/{*rest}", "").admin().toml(&lines)
}

#[test]
fn replicas_share_last_uses_by_the_timeout_of_each_issuer() {
    let server = RedisServer::start();
    let (_app, people, machines, gates) = with_own(&server, "idle_timeout = \"10m\"");
    let person = gates[0].use_in_time("/anything", || people.good());
    let machine = gates[0].use_in_time("/anything", || machines.token().claim("iat", now() - 599).build());
    let began = now();
    eventually("both have rested", || (now() > began + 5).then_some(()));
    assert_eq!(decision(&gates[1], &person), "deny/idle");
    assert_eq!(decision(&gates[0], &person), "deny/idle");
    assert_eq!(status(&gates[1], &machine), 200, "it was used on the other gate");
    assert_eq!(decision(&gates[1], &machines.token().claim("iat", now() - 700).build()), "deny/idle");
    // All last uses are kept for the longest timeout, and a minute.
    let mut connection = connection(&server);
    for key in server.ask::<Vec<Vec<u8>>>(&["KEYS", "portcullis:{??}:*"]) {
        let at: i64 = redis::cmd("GET").arg(&key).query(&mut connection).unwrap();
        let left: i64 = redis::cmd("PTTL").arg(&key).query(&mut connection).unwrap();
        let limit = Duration::from_secs(600 + 60).as_millis() as i64;
        assert!(at < 0 || (left > limit - 60_000 && left <= limit), "{at}: {left}");
    }
}

#[test]
fn what_was_idle_by_an_issuers_own_timeout_stays_so_on_gates_with_another_during_a_roll_out() {
    let server = RedisServer::start();
    let (app, people, machines, mut gates) = with_own(&server, "idle_timeout = \"2s\"");
    let kept = || server.ask::<Vec<Option<String>>>(&["HMGET", ORIGIN, "idle", "idles"]);
    let line = |terms: &str| Some(format!("{terms} https://machines.example/"));
    eventually("the timeouts are kept", || {
        (kept() == [Some("4000".to_owned()), line("2000 - -")]).then_some(())
    });
    let idle = gates[0].use_in_time("/anything", || machines.good());
    let since = now_ms();
    eventually("it is idle, and nobody asks for it", || (now_ms() > since + 2_000).then_some(()));
    // One gate after the other gets a configuration in which the machines' tokens never go idle.
    gates[0].stop();
    gates[0] = Gate::start(&own_settings(&server, &app, (&people, &machines), "idle_timeout = \"0s\""));
    assert_eq!(decision(&gates[0], &idle), "deny/idle");
    let floor = eventually("its floor is kept", || {
        let kept = kept().pop()??;
        let floor = kept.strip_prefix("-1 ")?.strip_suffix(" 2000 https://machines.example/")?;
        floor.parse::<i64>().ok()
    });
    assert!((since..=now_ms()).contains(&(floor + 2_000)), "{floor}");
    let rested = machines.token().claim("iat", floor / 1_000 - 1).build();
    assert_eq!(decision(&gates[1], &rested), "deny/idle", "by the timeout that is in force there");
    assert_eq!(decision(&gates[0], &rested), "deny/idle", "as it was when the timeout grew");
    assert_eq!(status(&gates[0], &machines.good()), 200);
    gates[1].stop();
    gates[1] = Gate::start(&own_settings(&server, &app, (&people, &machines), ""));
    assert_eq!(decision(&gates[1], &idle), "deny/idle", "also without a timeout of its own");
    eventually("the issuer goes by the timeout of all, and its floor stays", || {
        (kept() == [Some("4000".to_owned()), line(&format!("4000 {floor} 2000"))]).then_some(())
    });
    let person = people.good();
    assert_eq!(
        (status(&gates[0], &person), status(&gates[1], &person)),
        (200, 200),
        "no other issuer is concerned"
    );
}

#[test]
fn tokens_that_begin_to_go_idle_by_a_reload_are_not_over_where_they_were_not_used() {
    let server = RedisServer::start();
    let mut scene = with_idle(&server, 2, "0s");
    let token = scene.issuer.token().claim("iat", now() - 700).build();
    assert_eq!(status(&scene.gates[0], &token), 200);
    for gate in scene.gates.iter_mut() {
        let path = gate.settings.write();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("idle_timeout = \"0s\"", "idle_timeout = \"10m\"")).unwrap();
        gate.signal("HUP");
        gate.wait_for_reloads("ok", 1.0);
    }
    eventually("the other gate knows of the use", || match status(&scene.gates[1], &token) {
        200 => Some(()),
        // It cannot tell yet, and never says that the token is idle: that would be for good.
        status => {
            assert_eq!(status, 503);
            None
        }
    });
    assert_eq!(status(&scene.gates[0], &token), 200);
}

#[test]
fn an_event_after_the_first_use_ends_a_token_of_an_issuer_ahead_also_where_it_was_never_used() {
    let server = RedisServer::start();
    let mut scene = Scene::on(&server, 2);
    let issuer = scene.issuer.name.clone();
    let events = [
        ("role", json!({"type": "role-changed", "subject": "role"})),
        ("subject", json!({"type": "subject-revoked", "subject": "subject"})),
        ("client", json!({"type": "client-revoked", "client": "client"})),
        ("any", json!({"type": "issuer-revoked"})),
    ];
    for (kind, mut event) in events {
        let token = |jti: &str, iat: i64| {
            let token = scene.issuer.token().claim("jti", format!("{kind}-{jti}")).claim("iat", iat);
            token.claim("sub", kind).claim("client_id", kind).build()
        };
        let (ahead, ordinary) = (token("ahead", now() + 20), token("ordinary", now() - 5));
        let after = token("after", now() + 25);
        let keys = || server.ask::<Vec<Vec<u8>>>(&["KEYS", "portcullis:first:*"]).len();
        let before = keys();
        assert_eq!(status(&scene.gates[0], &ahead), 200, "{kind}");
        eventually("its first use is written", || (keys() > before).then_some(()));
        event["issuer"] = json!(issuer);
        let sent = publish(&mut scene.gates[0], &event);
        assert_eq!(sent.status(), 202, "{kind}");
        for gate in &scene.gates {
            eventually(&format!("{kind}: the event is in force"), || {
                (status(gate, &ordinary) == 401).then_some(())
            });
            assert_eq!(status(gate, &ahead), 401, "{kind}");
        }
        let reads = || scene.gates[1].metrics().sum("portcullis_state_reads_total", &[]);
        let before = reads();
        for _ in 0..5 {
            assert_eq!(status(&scene.gates[1], &after), 200, "{kind}: it came after the event");
        }
        assert_eq!(reads(), before + 1.0, "{kind}: asked for once");
    }
}

#[test]
fn a_token_that_no_event_comes_near_costs_no_look_up() {
    let server = RedisServer::start();
    let mut scene = Scene::on(&server, 2);
    let issuer = scene.issuer.name.clone();
    let of = |subject: &str, iat: i64| scene.issuer.token().claim("sub", subject).claim("iat", iat).build();
    let (other, old, ahead) = (of("other", now()), of("bob", now() - 600), of("other", now() + 20));
    let event = json!({"type": "role-changed", "issuer": issuer, "subject": "bob", "at": now() - 650});
    assert_eq!(publish(&mut scene.gates[0], &event).status(), 202);
    for gate in &scene.gates {
        for token in [&other, &old, &ahead] {
            assert_eq!(status(gate, token), 200);
        }
        assert_eq!(gate.metrics().sum("portcullis_state_reads_total", &[]), 0.0);
    }
}
