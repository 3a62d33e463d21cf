//! Sentinel, Cluster and TLS.

use crate::scene::{Scene, decision, state, status};
use testkit::gate::Gate;
use testkit::pki::Authority;
use testkit::redis_server::RedisServer;
use testkit::settings::Settings;
use testkit::{eventually, now};

/// Holds docs/configuration.md, Settings: state.url, .username, .password, .ca
#[test]
fn a_fail_over_that_loses_events_loses_none() {
    let mut primary = RedisServer::start();
    let replica = RedisServer::replica_of(&primary, &[]);
    let sentinel = RedisServer::sentinel(&primary);
    let url = format!("redis-sentinel://127.0.0.1:{}/main", sentinel.port);
    let mut scene = Scene::with(3, &state(&url));
    for i in 0..10 {
        assert_eq!(scene.revoke(i % 3, &format!("early{i}")).status(), 202);
    }
    // The replica receives nothing from here on; what is acknowledged now is only on the primary.
    replica.signal("STOP");
    for i in 0..100 {
        assert_eq!(scene.revoke(i % 3, &format!("late{i}")).status(), 202);
    }
    primary.kill();
    replica.signal("CONT");
    eventually("the replica is promoted", || {
        let role: Vec<redis::Value> = replica.try_ask(&["ROLE"]).ok()?;
        matches!(role.first(), Some(redis::Value::BulkString(word)) if word == b"master").then_some(())
    });
    eventually("the lost events are published again", || {
        let length: u64 = replica.ask(&["XLEN", "portcullis:{portcullis.log}:events"]);
        (length >= 110).then_some(())
    });
    scene.gates.iter().for_each(Gate::wait_until_ready);
    for gate in 0..3 {
        scene.replace(gate);
    }
    for gate in &scene.gates {
        for jti in (0..10).map(|i| format!("early{i}")).chain((0..100).map(|i| format!("late{i}"))) {
            assert_eq!(decision(gate, &scene.token(&jti)), "deny/token_revoked", "{jti}");
        }
    }
}

/// Holds docs/configuration.md, Settings: state.url, .username, .password, .ca
#[test]
fn a_cluster_shares_out_last_uses_and_survives_the_loss_of_a_node() {
    let cluster = Cluster::start();
    let lines = format!("{}[sessions]\nidle_timeout = \"10m\"\n", state(&cluster.url()));
    let mut scene = Scene::with(3, &lines);
    let issued_at = now() - 595;
    let tokens: Vec<String> = (0..60)
        .map(|i| scene.issuer.token().claim("iat", issued_at).claim("jti", format!("t{i}")).build())
        .collect();
    for token in &tokens {
        assert_eq!(status(&scene.gates[0], token), 200);
    }
    assert_eq!(scene.revoke(1, "t0").status(), 202);
    scene.refused_everywhere(&tokens[0]);
    eventually("the issue of all of them is idle", || (now() > issued_at + 600).then_some(()));
    for token in &tokens[1..] {
        assert_eq!(status(&scene.gates[2], token), 200, "used on the first replica");
    }
    let held = cluster.nodes.iter().map(|node| node.ask::<usize>(&["DBSIZE"]));
    assert!(held.clone().all(|held| held > 5), "every node has a share: {:?}", held.collect::<Vec<_>>());
    // A node without the log hangs: its tokens cannot be looked up, the others can.
    let log = cluster.owner("portcullis.log");
    let other = (log + 1) % 3;
    cluster.nodes[other].signal("STOP");
    let failures =
        |gate: &Gate| gate.metrics().sum("portcullis_state_errors_total", &[("kind", "unreachable")]);
    for gate in [&scene.gates[0], &scene.gates[2]] {
        eventually("last uses of the node's share cannot be saved", || {
            tokens[3..]
                .iter()
                .for_each(|token| assert_eq!(status(gate, token), 200, "in use here: nobody is asked"));
            (failures(gate) >= 5.0).then_some(())
        });
        assert_eq!(gate.readiness().0, 200, "{}", gate.readiness().1);
    }
    assert_eq!(scene.revoke(0, "t1").status(), 202);
    scene.refused_everywhere(&tokens[1]);
    cluster.nodes[other].signal("CONT");
    cluster.nodes[log].signal("STOP");
    assert_eq!(scene.revoke(0, "t2").status(), 503);
    cluster.nodes[log].signal("CONT");
    eventually("the log is back", || (scene.revoke(0, "t2").status() == 202).then_some(()));
    scene.refused_everywhere(&tokens[2]);
}

/// Holds docs/configuration.md, Settings: state.url, .username, .password, .ca
#[test]
fn certificates_are_verified() {
    let authority = Authority::new();
    let identity = authority.server(&["localhost"]);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let ca = file("ca.pem", &authority.certificate_pem());
    let other = file("other.pem", &Authority::new().certificate_pem());
    let (chain, key) = (file("server.pem", &identity.chain), file("server.key", &identity.key));
    let server = RedisServer::tls(&[
        "--tls-cert-file",
        &chain,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        "no",
    ]);
    let url = format!("rediss://localhost:{}", server.port);
    let mut scene = Scene::with(2, &(state(&url) + &format!("ca = {ca:?}\n")));
    assert_eq!(scene.revoke(0, "t").status(), 202);
    scene.refused_everywhere(&scene.token("t"));
    let strict = Settings::plaintext().guarding(&scene.app.url(), &scene.issuer).admin();
    let gate = Gate::launch(&strict.toml(&(state(&url) + &format!("ca = {other:?}\n"))));
    gate.log().wait_for_text("certificate");
    assert_eq!(gate.readiness().0, 503);
    drop(server);
}

#[test]
fn events_can_be_read_from_a_replica_of_the_server() {
    let primary = RedisServer::start();
    let mut replica = RedisServer::replica_of(&primary, &[]);
    let lines = state(&primary.url()) + &format!("events_url = \"{}\"\n", replica.url());
    let mut scene = Scene::with(2, &lines);
    let blocked = |server: &RedisServer| {
        let clients: String = server.ask(&["CLIENT", "LIST"]);
        clients.lines().filter(|client| client.contains("cmd=xread")).count()
    };
    eventually("events are read from the replica", || (blocked(&replica) == 2).then_some(()));
    assert_eq!(blocked(&primary), 0);
    assert_eq!(scene.revoke(0, "t").status(), 202);
    scene.refused_everywhere(&scene.token("t"));
    replica.kill();
    eventually("reading events from the primary", || (blocked(&primary) == 2).then_some(()));
    assert_eq!(scene.revoke(1, "u").status(), 202);
    scene.refused_everywhere(&scene.token("u"));
}

/// Three nodes, each with a third of the slots.
struct Cluster {
    nodes: Vec<RedisServer>,
}

impl Cluster {
    fn start() -> Self {
        let nodes: Vec<RedisServer> = (0..3)
            .map(|_| {
                RedisServer::with(&["--cluster-enabled", "yes", "--cluster-require-full-coverage", "no"])
            })
            .collect();
        for (index, node) in nodes.iter().enumerate() {
            let (first, last) = (index * 5462, (index * 5462 + 5461).min(16_383));
            node.ask::<String>(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            node.ask::<String>(&["CLUSTER", "MEET", "127.0.0.1", &nodes[0].port.to_string()]);
        }
        for node in &nodes {
            eventually("the cluster is whole", || {
                let info: String = node.ask(&["CLUSTER", "INFO"]);
                let is = |fact: &str| info.lines().any(|line| line == fact);
                (is("cluster_state:ok") && is("cluster_slots_ok:16384") && is("cluster_size:3")).then_some(())
            });
        }
        Self { nodes }
    }

    fn url(&self) -> String {
        let hosts: Vec<String> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        format!("redis-cluster://{}", hosts.join(","))
    }

    /// The node that serves the slot of this tag.
    fn owner(&self, tag: &str) -> usize {
        let slot: usize = self.nodes[0].ask(&["CLUSTER", "KEYSLOT", &format!("{{{tag}}}")]);
        slot / 5462
    }
}
