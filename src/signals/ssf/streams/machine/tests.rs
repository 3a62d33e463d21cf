//! Life cycles of a stream as tables: which step is due at which second, and its result.

use serde_json::{Value, json};

use super::super::description::WantedStream;
use super::*;
use crate::signals::Concealed;

const MINUTE: u64 = 60;

fn wanted() -> WantedStream {
    WantedStream {
        name: "t".to_owned(),
        issuer: "https://idp.example.com".to_owned(),
        audience: "https://gate.example.com".to_owned(),
        endpoint: Some("https://gate.example.com/signals/ssf/t".to_owned()),
        authorization: None,
        events: Vec::new(),
    }
}

fn terms(heartbeat: Option<u64>, fetches_tokens: bool, wanted: WantedStream) -> StreamTerms {
    let heartbeat = heartbeat.map(Duration::from_secs);
    StreamTerms { heartbeat, fetches_tokens, adds_subjects: true, insecure_http: false, wanted }
}

fn machine(heartbeat: Option<u64>) -> StreamMachine {
    StreamMachine::new(terms(heartbeat, true, wanted()), at(0))
}

const fn at(second: i64) -> Monotonic {
    Monotonic::from_millis(second * 1000)
}

fn metadata() -> StreamAnswer {
    let url = |path: &str| format!("https://idp.example.com/{path}");
    let document = json!({
        "issuer": "https://idp.example.com", "configuration_endpoint": url("c"), "status_endpoint": url("s"),
        "verification_endpoint": url("v"), "add_subject_endpoint": url("a"),
    });
    let read = StreamMetadata::read(document.to_string().as_bytes(), "https://idp.example.com", false);
    StreamAnswer::Metadata(Box::new(read.unwrap()))
}

fn described(id: &str, more: &Value) -> KnownStream {
    let mut body = wanted().body(Some(id));
    more.as_object().unwrap().iter().for_each(|(name, value)| body[name] = value.clone());
    KnownStream::read(body.to_string().as_bytes()).unwrap()
}

fn stream(id: &str, more: &Value) -> StreamAnswer {
    StreamAnswer::Stream(Box::new(described(id, more)))
}

/// Describes the step in a word or two.
fn word(step: &StreamStep) -> String {
    match step {
        StreamStep::Discover => "discover".to_owned(),
        StreamStep::Authorize => "authorize".to_owned(),
        StreamStep::Find => "find".to_owned(),
        StreamStep::Create => "create".to_owned(),
        StreamStep::Update(id, method) => format!("update {id} {method:?}"),
        StreamStep::Verify(id) => format!("verify {id}"),
        StreamStep::ReadStatus(id) => format!("status {id}"),
        StreamStep::AddSubject(id, subject) => format!("add {subject} to {id}"),
        StreamStep::Wait(until) => format!("wait until {}", until.as_millis()),
    }
}

/// Checks rows of second, expected step, result, and expected news.
fn play(machine: &mut StreamMachine, rows: Vec<(i64, &str, Option<StreamAnswer>, Option<StreamNews>)>) {
    for (second, expected, answer, news) in rows {
        let step = machine.next(at(second));
        assert_eq!(word(&step), expected, "at {second}");
        if let Some(answer) = answer {
            assert_eq!(machine.answered(&step, answer, at(second)), news, "at {second}: {expected}");
        }
    }
}

fn denied(status: u16) -> Option<StreamAnswer> {
    Some(StreamAnswer::Denied(StatusCode::from_u16(status).unwrap()))
}

const TOKEN: Option<StreamAnswer> = Some(StreamAnswer::Token(Duration::from_secs(1000)));
const DONE: Option<StreamAnswer> = Some(StreamAnswer::Done);
const ENABLED: Option<StreamAnswer> = Some(StreamAnswer::Status(StreamStatus::Enabled));

/// A machine that has maintained the stream "s" since second 0 and verified it then.
fn kept(heartbeat: Option<u64>, more: &Value) -> StreamMachine {
    let mut machine = machine(heartbeat);
    let mut rows = vec![
        (0, "discover", Some(metadata()), None),
        (0, "authorize", TOKEN, None),
        (0, "find", Some(StreamAnswer::Streams(vec![described("s", more)])), Some(StreamNews::Found)),
    ];
    if heartbeat.is_some() {
        rows.push((0, "verify s", DONE, None));
    }
    rows.push((0, "status s", ENABLED, None));
    play(&mut machine, rows);
    machine
}

#[test]
fn a_stream_is_made_verified_and_kept() {
    let mut machine = machine(Some(10 * MINUTE));
    play(
        &mut machine,
        vec![
            (0, "discover", Some(metadata()), None),
            (0, "authorize", TOKEN, None),
            (0, "find", Some(StreamAnswer::Streams(Vec::new())), None),
            (0, "create", Some(stream("s", &json!({}))), Some(StreamNews::Made)),
            (1, "verify s", DONE, None),
            (1, "status s", ENABLED, None),
            (2, "wait until 601000", None, None),
            (601, "verify s", DONE, None),
            (601, "status s", ENABLED, None),
            (602, "wait until 800000", None, None),
            (800, "authorize", TOKEN, None),
            (800, "wait until 1201000", None, None),
        ],
    );
}

#[test]
fn a_stream_that_is_there_is_compared_and_changed() {
    let other = json!({"delivery": {"method": "urn:ietf:rfc:8935", "endpoint_url": "https://old.example/"}});
    let mut old = described("s", &other);
    for (status, method) in [(None, "Patch"), (Some(405), "Put"), (Some(501), "Put")] {
        let mut machine = machine(None);
        play(
            &mut machine,
            vec![
                (0, "discover", Some(metadata()), None),
                (0, "authorize", TOKEN, None),
                (0, "find", Some(StreamAnswer::Streams(vec![old.clone()])), None),
            ],
        );
        if let Some(status) = status {
            play(&mut machine, vec![(0, "update s Patch", denied(status), None)]);
        }
        play(
            &mut machine,
            vec![
                (0, &*format!("update s {method}"), Some(stream("s", &json!({}))), Some(StreamNews::Changed)),
                (0, "status s", ENABLED, None),
                (0, "wait until 600000", None, None),
            ],
        );
    }
    old.id = "gone".to_owned();
    let mut machine = machine(None);
    play(
        &mut machine,
        vec![
            (0, "discover", Some(metadata()), None),
            (0, "authorize", TOKEN, None),
            (0, "find", Some(StreamAnswer::Streams(vec![old])), None),
            (0, "update gone Patch", denied(404), None),
            (0, "wait until 500", None, None),
            (1, "find", denied(404), None),
            (1, "create", Some(stream("s", &json!({}))), Some(StreamNews::Made)),
        ],
    );
}

#[test]
fn the_one_stream_of_a_transmitter_that_allows_no_other_is_adopted() {
    let mut theirs = described("s", &json!({"description": "of another", "events_requested": ["urn:x"]}));
    theirs.endpoint = Some("https://old.example/".to_owned());
    let found = || Some(StreamAnswer::Streams(vec![theirs.clone()]));
    let mut machine = machine(None);
    play(
        &mut machine,
        vec![
            (0, "discover", Some(metadata()), None),
            (0, "authorize", TOKEN, None),
            (0, "find", found(), None),
            (0, "create", denied(409), None),
            (0, "find", found(), None),
            (0, "update s Patch", Some(stream("s", &json!({}))), Some(StreamNews::Changed)),
        ],
    );
    let mut machine = super::tests::machine(None);
    play(
        &mut machine,
        vec![
            (0, "discover", Some(metadata()), None),
            (0, "authorize", TOKEN, None),
            (0, "find", denied(404), None),
            (0, "create", denied(409), None),
            (0, "find", Some(StreamAnswer::Streams(Vec::new())), None),
            (0, "wait until 500", None, None),
            (1, "find", denied(404), None),
            (1, "create", denied(409), None),
            (1, "find", denied(404), None),
            (1, "wait until 2000", None, None),
        ],
    );
    assert_eq!(machine.failure(), Some("the configuration endpoint responded with 404 Not Found"));
}

#[test]
fn a_forgotten_stream_is_looked_for_and_made_again_at_once() {
    for asked in ["verify s", "status s", "poll"] {
        let mut machine = kept(Some(10 * MINUTE), &json!({}));
        machine.subjects.seen("alice");
        play(&mut machine, vec![(0, "add alice to s", DONE, None)]);
        match asked {
            "verify s" => {
                play(&mut machine, vec![(600, "verify s", denied(404), Some(StreamNews::Forgotten))]);
            }
            "status s" => play(
                &mut machine,
                vec![
                    (600, "verify s", DONE, None),
                    (600, "status s", denied(404), Some(StreamNews::Forgotten)),
                ],
            ),
            _ => {
                assert_eq!(machine.gone(at(600)), Some(StreamNews::Forgotten));
                assert_eq!(machine.gone(at(600)), None, "known by now");
            }
        }
        play(
            &mut machine,
            vec![
                (600, "find", denied(404), None),
                (600, "create", Some(stream("s2", &json!({}))), Some(StreamNews::Made)),
                (600, "verify s2", DONE, None),
                (600, "status s2", ENABLED, None),
                (600, "add alice to s2", DONE, None),
            ],
        );
    }
}

#[test]
fn verifications_are_never_asked_for_below_the_minimum() {
    let slow = json!({"min_verification_interval": 3600});
    let mut machine = kept(Some(10 * MINUTE), &slow);
    assert_eq!(machine.heartbeat(), Some(Duration::from_secs(3600)));
    play(
        &mut machine,
        vec![
            (1, "wait until 600000", None, None),
            (600, "status s", ENABLED, None),
            (800, "authorize", TOKEN, None),
        ],
    );
    assert_eq!(
        machine.updated(StreamStatus::Paused, at(810)),
        Some(StreamNews::Stopped(StreamStatus::Paused))
    );
    assert_eq!(machine.updated(StreamStatus::Paused, at(811)), None);
    play(
        &mut machine,
        vec![
            (811, "wait until 840000", None, None),
            (840, "status s", ENABLED, Some(StreamNews::Resumed(StreamStatus::Paused))),
        ],
    );
    play(&mut machine, vec![(841, "wait until 1440000", None, None)]);
    let mut machine = kept(Some(10 * MINUTE), &json!({"min_verification_interval": 60}));
    machine.updated(StreamStatus::Disabled, at(10));
    machine.updated(StreamStatus::Enabled, at(20));
    play(&mut machine, vec![(59, "status s", ENABLED, None), (60, "verify s", DONE, None)]);
}

#[test]
fn a_transmitter_that_wants_to_be_left_alone_is() {
    for (wait, then) in [(Some(7), 607_000), (None, 630_000), (Some(1_000_000), 4_200_000)] {
        let mut machine = kept(Some(10 * MINUTE), &json!({}));
        let later = StreamAnswer::Later(wait.map(Duration::from_secs));
        play(&mut machine, vec![(600, "verify s", Some(later), None), (600, "status s", ENABLED, None)]);
        play(&mut machine, vec![(601, &*format!("wait until {}", then.min(800_000)), None, None)]);
        let later = || Some(StreamAnswer::Later(wait.map(Duration::from_secs)));
        let mut machine = super::tests::machine(None);
        play(
            &mut machine,
            vec![
                (600, "discover", later(), None),
                (600, &*format!("wait until {then}"), None, None),
                (then / 1000, "discover", Some(metadata()), None),
            ],
        );
        assert_eq!(machine.failure(), None);
    }
}

#[test]
fn a_rejected_token_is_replaced_once_and_then_with_pauses() {
    let mut machine = kept(Some(10 * MINUTE), &json!({}));
    play(
        &mut machine,
        vec![
            (600, "verify s", denied(401), None),
            (600, "authorize", TOKEN, None),
            (600, "verify s", DONE, None),
            (600, "status s", denied(401), None),
            (600, "authorize", TOKEN, None),
            (600, "status s", ENABLED, None),
        ],
    );
    machine.unauthorized(at(610));
    play(&mut machine, vec![(610, "authorize", denied(401), None), (610, "wait until 610500", None, None)]);
    assert_eq!(machine.failure(), Some("the token endpoint responded with 401 Unauthorized"));
    let mut machine = super::tests::machine(None);
    play(
        &mut machine,
        vec![
            (0, "discover", Some(metadata()), None),
            (0, "authorize", denied(401), None),
            (0, "wait until 500", None, None),
        ],
    );
    assert_eq!(machine.failure(), Some("the token endpoint responded with 401 Unauthorized"));
    let mut machine = StreamMachine::new(terms(None, false, wanted()), at(0));
    play(
        &mut machine,
        vec![
            (0, "discover", Some(metadata()), None),
            (0, "find", denied(401), None),
            (0, "wait until 500", None, None),
            (1, "find", denied(401), None),
            (1, "wait until 2000", None, None),
        ],
    );
    assert_eq!(machine.failure(), Some("the configuration endpoint responded with 401 Unauthorized"));
}

#[test]
fn a_transmitter_without_the_endpoint_for_streams_is_looked_up_again() {
    let mut machine = machine(None);
    assert!(machine.metadata().is_none());
    play(&mut machine, vec![(0, "discover", Some(metadata()), None)]);
    assert!(machine.metadata().is_some());
    play(
        &mut machine,
        vec![
            (0, "authorize", TOKEN, None),
            (0, "find", Some(StreamAnswer::Streams(Vec::new())), None),
            (0, "create", denied(404), None),
            (0, "wait until 500", None, None),
            (1, "discover", Some(metadata()), None),
            (1, "create", denied(403), None),
            (1, "wait until 1500", None, None),
            (2, "create", Some(stream("s", &json!({}))), Some(StreamNews::Made)),
        ],
    );
}

#[test]
fn failures_are_repeated_with_pauses_that_grow_and_end_with_the_first_success() {
    let mut machine = machine(None);
    let mut now = at(0);
    for pause in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
        let step = machine.next(now);
        assert_eq!(machine.answered(&step, StreamAnswer::Failed("no answer".to_owned()), now), None);
        assert_eq!(machine.next(now), StreamStep::Wait(now.plus(Duration::from_millis(pause))));
        now = now.plus(Duration::from_millis(pause));
    }
    assert_eq!(machine.failure(), Some("no answer"));
    let step = machine.next(now);
    machine.answered(&step, metadata(), now);
    assert_eq!((machine.failure(), machine.next(now)), (None, StreamStep::Authorize));
    machine.answered(&StreamStep::Authorize, StreamAnswer::Failed("x".to_owned()), now);
    assert_eq!(machine.next(now), StreamStep::Wait(now.plus(FIRST_PAUSE)));
    // An unexpected kind of result is a failure, not a panic.
    for answer in [StreamAnswer::Done, StreamAnswer::Streams(Vec::new()), stream("s", &json!({})), metadata()]
    {
        let mut machine = kept(None, &json!({}));
        assert_eq!(machine.answered(&StreamStep::ReadStatus("s".to_owned()), answer, at(5)), None);
        assert!(machine.failure().is_some());
    }
}

#[test]
fn subjects_are_added_one_after_another_and_refusals_tolerated() {
    let mut machine = kept(None, &json!({}));
    ["a", "b", "c", "d"].iter().for_each(|subject| machine.subjects.seen(subject));
    play(
        &mut machine,
        vec![
            (1, "add a to s", DONE, None),
            (1, "add b to s", denied(404), None),
            (1, "add c to s", denied(403), None),
            (1, "add d to s", Some(StreamAnswer::Later(Some(Duration::from_secs(3)))), None),
            (1, "wait until 4000", None, None),
            (4, "add d to s", denied(401), None),
            (4, "authorize", TOKEN, None),
            (4, "add d to s", Some(StreamAnswer::Failed("no answer".to_owned())), None),
            (4, "wait until 4500", None, None),
            (5, "add d to s", DONE, None),
            (5, "wait until 600000", None, None),
        ],
    );
}

#[test]
fn the_status_is_read_more_often_than_inactivity_would_end_the_stream() {
    for (heartbeat, inactivity, then) in
        [(None, None, 600), (None, Some(100), 50), (Some(60), Some(100), 50), (Some(30), Some(100), 30)]
    {
        let more = inactivity.map_or(json!({}), |seconds| json!({"inactivity_timeout": seconds}));
        let machine = kept(heartbeat, &more);
        assert_eq!(machine.status_at, at(then), "{heartbeat:?} {inactivity:?}");
    }
}

#[test]
fn a_transmitter_without_the_delivery_method_is_not_asked_for_it() {
    let document = json!({
        "issuer": "i", "configuration_endpoint": "https://idp.example.com/c",
        "delivery_methods_supported": ["urn:ietf:rfc:8936"],
    });
    let metadata = StreamMetadata::read(document.to_string().as_bytes(), "i", false).unwrap();
    let mut machine = machine(None);
    machine.answered(&StreamStep::Discover, StreamAnswer::Metadata(Box::new(metadata)), at(0));
    assert_eq!(
        machine.failure(),
        Some("the transmitter does not support the delivery method urn:ietf:rfc:8935")
    );
    let authorization = Some(Concealed::new("Bearer hush".to_owned()));
    let secret = terms(None, false, WantedStream { authorization, ..wanted() });
    assert!(!format!("{secret:?}").contains("hush"));
}

#[test]
fn a_busy_endpoint_holds_up_nothing_else() {
    let later = || Some(StreamAnswer::Later(Some(Duration::from_secs(3600))));
    let mut machine = kept(Some(10 * MINUTE), &json!({}));
    machine.subjects.seen("a");
    play(
        &mut machine,
        vec![
            (1, "add a to s", later(), None),
            (600, "verify s", DONE, None),
            (600, "status s", later(), None),
            (800, "authorize", Some(StreamAnswer::Token(Duration::from_secs(10_000))), None),
            (1200, "verify s", later(), None),
            (1200, "wait until 3601000", None, None),
            (3601, "add a to s", DONE, None),
            (3601, "wait until 4200000", None, None),
            (4200, "status s", ENABLED, None),
            (4200, "wait until 4800000", None, None),
            (4800, "verify s", DONE, None),
        ],
    );
}

#[test]
fn a_transmitter_that_lists_no_streams_is_asked_for_one() {
    for status in [400, 404, 405] {
        let mut machine = machine(None);
        play(
            &mut machine,
            vec![
                (0, "discover", Some(metadata()), None),
                (0, "authorize", TOKEN, None),
                (0, "find", denied(status), None),
                (0, "create", Some(stream("s", &json!({}))), Some(StreamNews::Made)),
            ],
        );
    }
    let mut machine = machine(None);
    play(
        &mut machine,
        vec![
            (0, "discover", Some(metadata()), None),
            (0, "authorize", TOKEN, None),
            (0, "find", denied(403), None),
            (0, "wait until 500", None, None),
        ],
    );
}
