//! The file format: what is refused before anything is imported, and with which words.

use portcullis::state::transfer::{StateCopy, TransferFault};
use serde_json::{Value, json};

use super::{directory_line, file, header, session_line, subject_line, usage_line};

/// A line of each kind.
fn lines() -> Vec<Value> {
    vec![
        subject_line(4, "ada", 1_000),
        session_line("one", 5_000),
        json!({"idle": {"issuer": null, "timeout": 60_000, "floor": {"at": 1_000, "ago": 5, "timeout": 30_000}}}),
        json!({"idle": {"issuer": "https://b/", "timeout": null, "floor": null}}),
        json!({"forgotten": {"issuer": null, "retention": 60_000, "ago": 7}}),
        usage_line("app", 2, 3_000),
        directory_line("idp", 3, &[("x", "1")]),
    ]
}

fn read(text: &str) -> Result<(), TransferFault> {
    StateCopy::read(text).map(drop)
}

#[test]
fn a_file_with_a_line_of_each_kind_is_read_and_says_where_it_comes_from() {
    let text = file(header("log", 7), &lines());
    let copy = StateCopy::read(&text).unwrap();
    let said = &copy.header;
    assert_eq!((&*said.store, &*said.identity, said.not_before), ("embedded", "log", 7));
    assert_eq!((said.sequence, said.in_use), (9, false));
    assert_eq!(read(&file(header("log", 7), &[])), Ok(()), "a store without anything");
    assert!(!format!("{copy:?}").contains("ada"), "it is about people");
}

#[test]
fn what_is_no_export_or_of_another_version_is_refused_by_its_first_line() {
    let with = |name: &str, value: Value| {
        let mut header = header("log", 7);
        header[name] = value;
        file(header, &lines())
    };
    for text in [
        String::new(),
        "\n".to_owned(),
        "SQLite format 3\n".to_owned(),
        "{}\n".to_owned(),
        format!("{}\n", subject_line(1, "ada", 1)),
        file(json!({}), &lines()),
        with("format", json!("another-state")),
        with("format", json!(1)),
        with("version", json!("1")),
        with("version", json!(null)),
        with("version", json!(-1)),
        with("version", json!(1_u64 << 32 | 1)),
    ] {
        assert_eq!(read(&text), Err(TransferFault::Foreign), "{text}");
    }
    for version in [0, 2, u32::MAX] {
        assert_eq!(read(&with("version", json!(version))), Err(TransferFault::Version(version)));
    }
    for (text, why) in [
        (with("in_use", json!("no")), "expected a boolean"),
        (with("more", json!(1)), "unknown field `more`"),
        (file(header("log", 7), &[]).replacen("\"identity\":\"log\",", "", 1), "missing field `identity`"),
    ] {
        match read(&text) {
            Err(TransferFault::Line(1, said)) => assert!(said.contains(why), "{said}"),
            other => panic!("{why}: {other:?}"),
        }
    }
}

#[test]
fn a_file_that_is_not_whole_is_truncated_wherever_it_was_cut() {
    let whole = file(header("log", 7), &lines());
    for cut in 0..whole.len() {
        let fault = read(&whole[..cut]).unwrap_err();
        let is_header = cut < whole.find('\n').unwrap();
        assert_eq!(fault, if is_header { TransferFault::Foreign } else { TransferFault::Truncated }, "{cut}");
    }
    let each: Vec<&str> = whole.lines().collect();
    for place in 1..each.len() {
        let without = each.iter().enumerate().filter(|(index, _)| *index != place).map(|(_, line)| *line);
        let without = without.collect::<Vec<_>>().join("\n") + "\n";
        assert_eq!(read(&without), Err(TransferFault::Truncated), "without line {place}");
        let mut twice = each.clone();
        twice.insert(place, each[place]);
        assert_eq!(read(&(twice.join("\n") + "\n")), Err(TransferFault::Truncated), "line {place} twice");
    }
    for count in [0, each.len() - 2, each.len(), each.len() + 1] {
        let text = whole.replacen(&format!("\"lines\":{}", each.len() - 1), &format!("\"lines\":{count}"), 1);
        assert_eq!(read(&text), Err(TransferFault::Truncated), "{count} lines");
    }
}

#[test]
fn a_line_that_this_release_does_not_read_is_named_with_its_number() {
    let refused = |line: Value, place: usize| {
        let mut lines = lines();
        lines.insert(place, line);
        match read(&file(header("log", 7), &lines)) {
            // After the header, and counted from one.
            Err(TransferFault::Line(number, why)) => {
                assert_eq!(number, place + 2, "{why}");
                why
            }
            other => panic!("{other:?}"),
        }
    };
    let all = lines();
    for (index, line) in all.iter().enumerate() {
        let (kind, content) = line.as_object().unwrap().iter().next().unwrap();
        let mut more = content.clone();
        more["more"] = json!(1);
        assert!(refused(json!({ kind: more }), index).contains("unknown field `more`"), "{line}");
        for field in content.as_object().unwrap().keys() {
            let mut wrong = content.clone();
            wrong[field] = json!([{}]);
            let why = refused(json!({ kind: wrong }), all.len());
            assert!(why.contains("invalid type") || why.contains("invalid length"), "{kind} {field}: {why}");
        }
    }
    let unknown = "an event of a kind that this release does not know";
    let event = |field: &str, value: Value| {
        let mut line = subject_line(1, "ada", 1);
        line["event"]["entry"][field] = value;
        line
    };
    for (field, value) in [
        ("k", json!(99)),
        ("h", json!("no key")),
        ("q", json!(99)),
        ("o", json!(99)),
        ("u", json!([99, 1, null])),
    ] {
        assert_eq!(refused(event(field, value), 0), unknown, "{field}");
    }
    let session = |field: &str, value: &str| {
        let mut line = session_line("one", 5_000);
        line["session"][field] = json!(value);
        line
    };
    for field in ["token", "subject"] {
        for key in ["", "x", &"f".repeat(33)] {
            let why = refused(session(field, key), 1);
            assert_eq!(why, "a session whose keys are not hexadecimal", "{field} {key}");
        }
    }
    assert!(refused(json!({"another": {}}), 2).contains("unknown variant"));
    for second in [json!({ "header": header("log", 7) }), json!({"end": {"lines": 3}})] {
        assert_eq!(refused(second, 3), "a second header or end");
    }
}

#[test]
fn each_refusal_says_what_is_wrong_and_what_to_do() {
    for (fault, text) in [
        (TransferFault::Foreign, "is not an export of `portcullis state export`"),
        (
            TransferFault::Version(7),
            "is of format version 7, this release reads 1; export it with this release",
        ),
        (TransferFault::Truncated, "is truncated: nothing was imported; export it again"),
        (TransferFault::Line(3, "no".to_owned()), "line 3: no; nothing was imported"),
    ] {
        assert_eq!(fault.to_string(), text);
    }
}
