//! `portcullis schema`: the file in the repository is its output, it accepts what the gate accepts, with the
//! same defaults, and rejects files with structural mistakes. A third-party validator decides
//! (`tests/python/schema.py`).

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ChildStdin, ChildStdout, Command};
use std::sync::{LazyLock, Mutex};

use portcullis::config;
use serde_json::{Map, Value, json};
use testkit::documents::{blocks, document};
use testkit::tools::{Running, python, root};
use toml::de::{DeTable, DeValue};

use super::bad::{Row, rows};
use super::base_with;
use super::reference::shipped;

const FILE: &str = "config/portcullis.schema.json";

/// The validator; it ends when this process does.
struct SchemaJudge {
    _process: Running,
    documents: ChildStdin,
    verdicts: BufReader<ChildStdout>,
}

static JUDGE: LazyLock<Mutex<SchemaJudge>> = LazyLock::new(|| {
    let mut process = Running::start(Command::new(python()).arg(root().join("tests/python/schema.py")));
    let mut documents = process.0.stdin.take().unwrap();
    documents.write_all((config::schema().to_string() + "\n").as_bytes()).unwrap();
    let verdicts = BufReader::new(process.0.stdout.take().unwrap());
    Mutex::new(SchemaJudge { _process: process, documents, verdicts })
});

/// Why the schema rejects a TOML text; `None` if it accepts it.
pub(super) fn refusal(text: &str) -> Option<String> {
    let table = DeTable::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let document = json!(members(table.get_ref())).to_string() + "\n";
    // A panic of one test is no reason for the others to fail.
    let mut judge = JUDGE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    judge.documents.write_all(document.as_bytes()).unwrap();
    let mut verdict = String::new();
    judge.verdicts.read_line(&mut verdict).unwrap();
    assert!(!verdict.is_empty(), "the validator ended; tests/run installs what it needs");
    (verdict.trim() != "valid").then(|| verdict.trim().to_owned())
}

/// The data of a TOML table as JSON.
fn members(table: &DeTable<'_>) -> Map<String, Value> {
    table.iter().map(|(key, value)| (key.get_ref().to_string(), data(value.get_ref()))).collect()
}

fn data(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => json!(text),
        DeValue::Boolean(flag) => json!(flag),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| json!(number.as_str().parse::<f64>().unwrap()), Value::from),
        DeValue::Float(number) => json!(number.as_str().replace('_', "").parse::<f64>().unwrap()),
        // JSON has no dates; no key holds one.
        DeValue::Datetime(date) => json!({ "date": date.to_string() }),
        DeValue::Array(elements) => elements.iter().map(|element| data(element.get_ref())).collect(),
        DeValue::Table(table) => json!(members(table)),
    }
}

#[test]
fn the_file_in_the_repository_is_what_the_command_prints() {
    let printed = format!("{:#}\n", config::schema());
    let is_same = std::fs::read_to_string(root().join(FILE)).is_ok_and(|file| file == printed);
    assert!(is_same, "{FILE} is out of date; regenerate it: cargo run -- schema > {FILE}");
}

/// The schemas of a table's keys, by the table's full name without list indexes.
fn properties<'a>(schema: &'a Value, table: &str) -> &'a Map<String, Value> {
    let names = table.split('.').filter(|name| !name.is_empty());
    let found = names.fold(schema, |schema, name| {
        let key = &schema["properties"][name];
        if key["type"] == "array" { &key["items"] } else { key }
    });
    found["properties"].as_object().unwrap_or_else(|| panic!("no table {table:?} in the schema"))
}

#[test]
fn defaults_are_those_of_the_reference() {
    let (schema, reference) = (config::schema(), shipped("reference.toml"));
    let (mut table, mut compared) = ("", 0);
    for line in reference.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        if line.starts_with('[') {
            table = line.split(']').next().unwrap().trim_start_matches('[');
            continue;
        }
        // Its keys are the operator's.
        if table == "scim.roles" {
            continue;
        }
        let (key, _) = line.split_once(" = ").unwrap();
        let described = &properties(&schema, table).get(key);
        let described = described.unwrap_or_else(|| panic!("{table}.{key} is not in the schema"));
        if !line.contains("# example") {
            let value = members(DeTable::parse(line).unwrap().get_ref()).remove(key);
            assert_eq!(described.get("default"), value.as_ref(), "{table}.{key}");
            compared += 1;
        }
    }
    assert!(compared > 150, "only {compared} defaults were compared");
}

#[test]
fn every_object_of_the_schema_is_closed() {
    fn open(place: &str, schema: &Value, found: &mut Vec<String>) {
        let is_object = schema["properties"].is_object() && schema["type"] == "object";
        if is_object && !matches!(schema["additionalProperties"], Value::Bool(false) | Value::Object(_)) {
            found.push(place.to_owned());
        }
        for (key, part) in schema.as_object().into_iter().flatten() {
            open(&format!("{place}/{key}"), part, found);
        }
    }
    let mut found = Vec::new();
    open("", &config::schema(), &mut found);
    assert_eq!(found, [""; 0]);
}

#[test]
fn what_is_shipped_and_documented_is_accepted() {
    let mut texts: Vec<(String, String)> =
        ["reference.toml", "portcullis.toml"].map(|name| (name.to_owned(), shipped(name))).into();
    let mut pages = vec!["README.md".to_owned()];
    for entry in std::fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        pages.extend(name.ends_with(".md").then(|| format!("docs/{name}")));
    }
    for page in pages {
        let written = blocks(&document(&page)).into_iter().filter(|block| block.language == "toml");
        texts.extend(written.map(|block| (format!("{page}:{}", block.line), completed(&block.text))));
    }
    let examples = std::fs::read_dir(root().join("config/examples")).into_iter().flatten();
    for path in examples
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "toml"))
    {
        texts.push((path.display().to_string(), std::fs::read_to_string(path).unwrap()));
    }
    assert!(texts.len() > 30, "only {} files and blocks were found", texts.len());
    let refused: Vec<_> =
        texts.iter().filter_map(|(name, text)| Some(format!("{name}: {}", refusal(text)?))).collect();
    assert_eq!(refused, [""; 0]);
}

/// Completes a block like its reader: with an address, and with the TLS that its part of `[server]` omits.
fn completed(block: &str) -> String {
    let block = block.replace("\"HOST:", "\"192.0.2.1:");
    if block.contains("allow_plaintext") || block.contains("[server.tls]") {
        return block;
    }
    block.replace("[server]\n", "[server]\nallow_plaintext = true\n")
}

/// Messages about mistakes that are visible without any other key or file.
const STRUCTURAL: &[&str] = &[
    "unknown key",
    "did you mean \"",
    "known: ",
    "must be a string",
    "must be an integer",
    "must be an array",
    "must be a table",
    "must be tables",
    "must be a duration",
    "must be a size",
    "must be true or false",
    "has no unit",
    "is not a duration",
    "is not a size",
    "is missing",
    "names neither",
];

/// Suggestions from elsewhere in the file, or from a list that a schema would only repeat.
const FROM_ELSEWHERE: &[&str] = &["https://", "GET", "does not exist"];

#[test]
fn mistakes_in_the_form_of_a_file_are_refused() {
    let rows = rows();
    let text = |row: &Row| {
        let lines: Vec<_> = row.replacements.iter().map(|(slot, text)| (*slot, text.as_str())).collect();
        base_with(&lines)
    };
    let (refused, accepted): (Vec<_>, Vec<_>) = rows.iter().partition(|row| refusal(&text(row)).is_some());
    let said = |row: &Row, words: &[&str]| words.iter().any(|words| row.message.contains(words));
    let missed = accepted.iter().filter(|row| said(row, STRUCTURAL) && !said(row, FROM_ELSEWHERE));
    let missed: Vec<_> = missed.map(|row| format!("{}: {}", row.key, row.message)).collect();
    assert_eq!(missed, [""; 0]);
    assert!(refused.len() >= 180, "only {} of {} mistakes were refused", refused.len(), rows.len());
}
