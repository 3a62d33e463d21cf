//! Connections to real servers: with credentials, in a cluster, and until they are dropped.

use testkit::eventually_async;
use testkit::redis_server::RedisServer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::state::redis::testing::cluster;

fn connector(url: &str) -> Connector {
    Connector::new(RedisEndpoint::parse(url).unwrap(), None).unwrap()
}

async fn user(url: &str) -> Result<String, RedisFault> {
    let lanes = connector(url).lanes().await?;
    lanes.to(0)?.ask(cmd("ACL").arg("WHOAMI"), CONNECT_TIMEOUT).await
}

#[tokio::test]
async fn a_server_is_used_with_the_credentials_of_its_url() {
    let server = RedisServer::start();
    let at = |credentials: &str| format!("redis://{credentials}127.0.0.1:{}", server.port);
    assert_eq!(user(&at("")).await, Ok("default".to_owned()));
    server.ask::<String>(&["ACL", "SETUSER", "gate", "on", ">pw", "~*", "&*", "+@all"]);
    server.ask::<String>(&["CONFIG", "SET", "requirepass", "secret"]);
    assert_eq!(user(&at(":secret@")).await, Ok("default".to_owned()));
    assert_eq!(user(&at("gate:pw@")).await, Ok("gate".to_owned()));
    for credentials in ["", ":pw@", "gate:secret@"] {
        let refused = user(&at(credentials)).await;
        let is_told =
            matches!(&refused, Err(RedisFault::Refused(why)) if why.contains("rejected the credentials"));
        assert!(is_told, "{credentials:?}: {refused:?}");
    }
}

#[tokio::test]
async fn a_connection_that_nobody_holds_is_closed() {
    let server = RedisServer::start();
    // One of them asks.
    let clients = async |count| {
        let has = || server.ask::<String>(&["CLIENT", "LIST"]).lines().count() == count;
        eventually_async(&format!("{count} clients are connected"), || has().then_some(())).await;
    };
    clients(1).await;
    let lanes = connector(&server.url()).lanes().await.unwrap();
    let held = lanes.to(0).unwrap().clone();
    drop(lanes);
    held.ask::<String>(&cmd("PING"), CONNECT_TIMEOUT).await.unwrap();
    clients(2).await;
    drop(held);
    clients(1).await;
}

#[tokio::test]
async fn a_connection_that_nobody_holds_does_not_wait_for_a_server_that_reads_nothing() {
    const LARGE: usize = 1 << 20;
    let (gate, mut server) = tokio::io::duplex(1 << 10);
    let pong = async {
        let mut ping = [0; 14];
        server.read_exact(&mut ping).await.unwrap();
        server.write_all(b"+PONG\r\n").await.unwrap();
    };
    let connector = connector("redis://127.0.0.1");
    let (connection, ()) = tokio::join!(connector.speak(gate, &connector.endpoint.credentials), pong);
    let connection = connection.unwrap();
    let mut set = cmd("SET");
    set.arg("key").arg("0".repeat(LARGE));
    let unsent = connection.ask::<()>(&set, Duration::from_millis(1)).await;
    assert_eq!(unsent, Err(RedisFault::silent("Redis")));
    drop(connection);
    let mut sent = Vec::new();
    server.read_to_end(&mut sent).await.unwrap();
    assert!(sent.len() < LARGE, "{}", sent.len());
}

#[tokio::test]
async fn a_cluster_is_asked_which_node_serves_what() {
    let (server, url) = cluster().await;
    let connector = connector(&url);
    let node = Host { name: "127.0.0.1".to_owned(), port: server.port };
    assert_eq!(connector.slots().await, Ok(vec![(0, 16_383, node.clone())]));
    let lanes = connector.lanes().await.unwrap();
    assert_eq!(lanes.all().map(|(host, _)| host).collect::<Vec<_>>(), [&node]);
    assert_eq!((lanes.host(0), lanes.host(16_383)), (Ok(&node), Ok(&node)));
    lanes.to(7).unwrap().ask::<String>(&cmd("PING"), CONNECT_TIMEOUT).await.unwrap();

    server.ask::<String>(&["CLUSTER", "DELSLOTSRANGE", "0", "16383"]);
    let why = format!("{node} serves no slots: is it a node of a cluster?");
    assert_eq!(connector.slots().await, Err(RedisFault::Unreachable(why)));
}

#[test]
fn a_range_of_slots_belongs_to_its_first_node() {
    let asked = Host { name: "asked".to_owned(), port: 1 };
    let bulk = |text: &str| Value::BulkString(text.into());
    let node = |name, port| Value::Array(vec![name, Value::Int(port), bulk("id")]);
    let range = |node| Value::Array(vec![Value::Int(3), Value::Int(9), node, Value::Array(vec![])]);
    let host = |name: &str| Some((3, 9, Host { name: name.to_owned(), port: 7_000 }));
    for (value, expected) in [
        (range(node(bulk("10.0.0.1"), 7_000)), host("10.0.0.1")),
        // A node that does not know its own name is where it was asked.
        (range(node(bulk(""), 7_000)), host("asked")),
        (range(node(bulk("?"), 7_000)), host("asked")),
        (range(node(Value::Nil, 7_000)), host("asked")),
        (range(node(bulk("a"), 70_000)), None),
        (range(Value::Nil), None),
        (range(Value::Array(vec![bulk("a")])), None),
        (Value::Array(vec![Value::Int(-1), Value::Int(9), node(bulk("a"), 7)]), None),
        (Value::Array(vec![Value::Int(3)]), None),
        (Value::Nil, None),
    ] {
        assert_eq!(slot_range(&value, &asked), expected, "{value:?}");
    }
}
