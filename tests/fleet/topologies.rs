//! Sentinel, Cluster and TLS.

use crate::redis_server::Server;
use crate::scene::{Scene, decision, state};

#[test]
fn a_fail_over_that_loses_events_loses_none() {
    let mut primary = Server::start();
    let replica = Server::replica_of(&primary, &[]);
    let sentinel = Server::sentinel(&primary);
    let url = format!("redis-sentinel://127.0.0.1:{}/main", sentinel.port);
    let mut scene = Scene::with(3, &state(&url));
    for i in 0..10 {
        assert_eq!(scene.revoke(i % 3, &format!("early{i}")).status(), 202);
    }
    // The replica hears nothing any more; what is acknowledged now is on the primary alone.
    replica.signal("STOP");
    for i in 0..100 {
        assert_eq!(scene.revoke(i % 3, &format!("late{i}")).status(), 202);
    }
    primary.kill();
    replica.signal("CONT");
    crate::support::eventually("the replica is promoted", || {
        let role: Vec<redis::Value> = replica.try_ask(&["ROLE"]).ok()?;
        matches!(role.first(), Some(redis::Value::BulkString(word)) if word == b"master").then_some(())
    });
    crate::support::eventually("the lost events are published again", || {
        let length: u64 = replica.ask(&["XLEN", "portcullis:{portcullis.log}:events"]);
        (length >= 110).then_some(())
    });
    scene.gates.iter().for_each(crate::support::gate::Gate::wait_until_ready);
    for gate in 0..3 {
        scene.replace(gate);
    }
    for gate in &scene.gates {
        for jti in (0..10).map(|i| format!("early{i}")).chain((0..100).map(|i| format!("late{i}"))) {
            assert_eq!(decision(gate, &scene.token(&jti)), "deny/token_revoked", "{jti}");
        }
    }
}
