//! A real Redis server as the store that state comes from or goes to.

use std::time::Duration;

use portcullis::identity::TokenKey;
use portcullis::state::OpenError;
use portcullis::state::record::{EventSource, IdleTerms};
use portcullis::time::{Now, Timestamp};
use serde_json::{Value, json};
use testkit::redis_server::RedisServer;

use super::{
    HOUR, ISSUER, OTHER, Place, append, counts_here, counts_there, counts_together, file, header, millis,
    of_kind, reported, revoked, session_line, subject_line,
};

const ORIGIN: &str = "t:{t.log}:origin";
const STAMP: &str = "t:{t.log}:stamp";

/// The numbers under the keys that match a pattern, by their last bytes: the key of a token.
fn numbers(server: &RedisServer, pattern: &str) -> Vec<([u8; 16], i64)> {
    let script = "local found = {} for _, key in ipairs(redis.call('KEYS', ARGV[1])) do \
                  found[#found + 1] = {key, tonumber(redis.call('GET', key))} end return found";
    let found: Vec<(Vec<u8>, i64)> = server.ask(&["EVAL", script, "0", pattern]);
    let mut found: Vec<_> =
        found.into_iter().map(|(key, at)| (*key.last_chunk::<16>().unwrap(), at)).collect();
    found.sort_unstable();
    found
}

fn by_token(uses: &[(&str, i64)]) -> Vec<([u8; 16], i64)> {
    let mut uses: Vec<_> =
        uses.iter().map(|(jti, at)| (TokenKey::new(ISSUER, jti).0.to_bytes(), *at)).collect();
    uses.sort_unstable();
    uses
}

#[tokio::test]
async fn last_uses_come_to_redis_and_first_uses_where_they_precede_their_token() {
    let server = RedisServer::start();
    let shared = Place::shared(&server, "t");
    let base = Timestamp::now().minus(HOUR).as_millis();
    let line = |jti: &str, first: i64| {
        let mut line = session_line(jti, base);
        line["session"]["first_used_at"] = json!(line["session"]["issued_at"].as_i64().unwrap() + first);
        line
    };
    let lines = [line("before", -1), line("at once", 0), line("after", 1)];
    assert_eq!(shared.import(&file(header("a", 5), &lines)).await, Ok(reported(0, 0, 3, 5)));
    let expected = by_token(&[("before", base), ("at once", base), ("after", base)]);
    assert_eq!(numbers(&server, "t:{??}:*"), expected);
    assert_eq!(numbers(&server, "t:first:*"), by_token(&[("before", base - 2_001)]));
    assert_eq!(shared.import(&file(header("a", 5), &[])).await, Ok(reported(0, 0, 0, 5)));

    // The later of two uses stays.
    let lines = [session_line("before", base - 100), session_line("after", base + 100)];
    assert_eq!(shared.import(&file(header("a", 5), &lines)).await, Ok(reported(0, 0, 2, 5)));
    let expected = by_token(&[("before", base), ("at once", base), ("after", base + 100)]);
    assert_eq!(numbers(&server, "t:{??}:*"), expected);
}

/// An event at this place that undoes the revocation of a subject.
fn undoing_line(sequence: u64, subject: &str, at: i64) -> Value {
    let mut line = subject_line(sequence, subject, at);
    line["event"]["entry"]["k"] = json!(5);
    line["event"]["entry"]["u"] = json!([1, at, null]);
    line["event"]["entry"]["m"] = json!("");
    line
}

#[tokio::test]
async fn a_shared_store_that_has_a_state_of_its_own_keeps_it_and_gets_what_it_lacks() {
    let server = RedisServer::start();
    let shared = Place::shared(&server, "t");
    let gate = shared.open().await;
    let base = Timestamp::now().minus(HOUR).as_millis();
    let now = Now { wall: millis(base), ..Now::read() };
    let undone = append(&gate, &[revoked("undone here", base)], now).await;
    append(&gate, &["own", "both"].map(|subject| revoked(subject, base)), now).await;
    gate.undo(undone, EventSource::Admin, now).await.unwrap().unwrap();
    gate.add_usage(counts_here(base)).await.unwrap();
    gate.save_idle_terms(IdleTerms { timeout: Some(HOUR), floor: None }.into()).await.unwrap();
    gate.close().await;
    drop(gate);

    let forgotten =
        |issuer: &str, retention| json!({"forgotten": {"issuer": issuer, "retention": retention, "ago": 9}});
    let lines = [
        subject_line(3, "both", base),
        subject_line(4, "undone here", base),
        subject_line(5, "undone there", base),
        undoing_line(6, "undone there", base),
        subject_line(7, "new", base),
        json!({"idle": {"issuer": null, "timeout": 1, "floor": null}}),
        forgotten(ISSUER, 60_000),
        forgotten(OTHER, 60_000),
        forgotten(ISSUER, 120_000),
    ];
    let text = file(header("a", 4_000), &[&lines[..], &counts_there(base)].concat());
    // As if the gate had ended a while ago: an export waits to see whether one that wrote just now goes on.
    server.ask::<String>(&["SET", STAMP, "1000"]);
    assert_eq!(shared.import(&text).await, Ok(reported(3, 2, 0, 4_000)));
    assert_eq!(shared.import(&text).await, Ok(reported(0, 5, 0, 4_000)), "again");

    let content = shared.content().await;
    let event = |line: Value| {
        let entry = &line["entry"];
        (entry["k"].as_i64().unwrap(), entry["s"].as_str().unwrap().to_owned())
    };
    let events: Vec<(i64, String)> = of_kind("event", &content).into_iter().map(event).collect();
    let expected = [
        (1, "undone here"),
        (1, "own"),
        (1, "both"),
        (5, "undone here"),
        (1, "undone there"),
        (1, "new"),
        (5, "undone there"),
    ];
    assert_eq!(events, expected.map(|(kind, subject)| (kind, subject.to_owned())));
    let terms = json!({"issuer": null, "timeout": 3_600_000, "floor": null});
    assert_eq!(of_kind("idle", &content), [terms], "those in force");
    let forgotten = [60_000, 120_000].map(|retention| json!({"issuer": null, "retention": retention}));
    assert_eq!(of_kind("forgotten", &content), forgotten);
    assert_eq!(shared.counts(base).await, counts_together());
}

#[tokio::test]
async fn an_import_that_was_interrupted_is_completed_and_until_then_nobody_uses_the_store() {
    let server = RedisServer::start();
    let shared = Place::shared(&server, "t");
    let refusal = |outcome: Result<_, OpenError>| match outcome {
        Err(OpenError::Refused(why)) => why,
        other => panic!("{other:?}"),
    };
    let why = refusal(shared.export().await.map(drop));
    assert_eq!(why, "there is no store yet under state.key_prefix");
    assert_eq!(server.ask::<u64>(&["EXISTS", ORIGIN]), 0, "an export creates nothing");

    let started = ["version", "importing", "id", "x", "created_at", "9000000000000", "last", "0"];
    server.ask::<u64>(&[&["HSET", ORIGIN], &started[..]].concat());
    let why = refusal(shared.export().await.map(drop));
    assert_eq!(why, "an import into it was interrupted; run `portcullis state import` again");
    let text = file(header("a", 5), &[subject_line(4, "ada", 1_000)]);
    assert_eq!(shared.import(&text).await, Ok(reported(1, 0, 0, 5)));
    let [version, id, created]: [String; 3] = server.ask(&["HMGET", ORIGIN, "version", "id", "created_at"]);
    assert_eq!((&*version, &*id, &*created), ("1", "x", "5"));
    assert_eq!(shared.export().await.unwrap().0.identity, "x");

    // A store of another release is neither read nor changed.
    server.ask::<u64>(&["HSET", ORIGIN, "version", "2"]);
    let before: Vec<String> = server.ask(&["HGETALL", ORIGIN]);
    for why in [refusal(shared.export().await.map(drop)), refusal(shared.import(&text).await.map(drop))] {
        assert!(why.contains("version \"2\""), "{why}");
    }
    assert_eq!(server.ask::<Vec<String>>(&["HGETALL", ORIGIN]), before);
}

#[tokio::test]
async fn a_copy_says_whether_a_gate_goes_on_using_the_store() {
    let server = RedisServer::start();
    let (used, ended) = (Place::shared(&server, "used"), Place::shared(&server, "t"));
    let gate = used.open().await;
    ended.import(&file(header("a", 5), &[])).await.unwrap();
    // The last write of a gate that ended just now: nobody writes again.
    let now = Timestamp::now();
    server.ask::<String>(&["SET", STAMP, &now.as_millis().to_string()]);
    let is_in_use = async |place: &Place<'_>| place.export().await.unwrap().0.in_use;
    assert_eq!(tokio::join!(is_in_use(&used), is_in_use(&ended)), (true, false));
    server.ask::<String>(&["SET", STAMP, &now.minus(Duration::from_secs(60)).as_millis().to_string()]);
    assert!(!is_in_use(&ended).await, "it ended a minute ago");
    gate.close().await;
}
