//! Conditions on claims: `conditions` of `[[issuers]]`, `claims` of `[[routes]]` and of its `allow`.

use serde_json::{Number, Value, json};
use toml::de::DeValue;

use crate::config::section::{Section, SectionEntry, kind};
use crate::config::units;
use crate::enforce::conditions::{ClaimCondition, ClaimTest, ClaimValue, Glob, compare};

/// The possible tests in a table.
const TESTS: [&str; 6] = ["in", "prefix", "glob", "exists", "at_least", "at_most"];

/// A table of claims, each with its condition.
pub(super) fn conditions<'a>(s: &mut Section<'a>, key: &'a str) -> Vec<ClaimCondition> {
    s.describe(key, || json!({ "$ref": "#/$defs/conditions", "default": {} }));
    s.table(key, |s| {
        let claims: Vec<&str> = s.written().collect();
        claims.into_iter().filter_map(|claim| condition(s, claim)).collect()
    })
}

fn condition<'a>(s: &mut Section<'a>, name: &'a str) -> Option<ClaimCondition> {
    let claim = units::claim(name).map_err(|message| s.problem(name, message)).ok();
    let entry = s.find(name)?;
    let tests = match entry.value {
        DeValue::Table(_) => s.table(name, tests),
        _ => {
            s.take(name);
            value(s, name, entry).map(ClaimTest::Equals).into_iter().collect()
        }
    };
    Some(ClaimCondition { claim: claim?, tests })
}

/// One value to compare with; shown unchanged.
fn value<'a>(s: &mut Section<'a>, key: &'a str, entry: SectionEntry<'a>) -> Option<ClaimValue> {
    match plain(entry.value) {
        Ok(value) => {
            s.show(key, shown(&value));
            Some(value)
        }
        Err(message) => {
            s.problem(key, message);
            None
        }
    }
}

fn plain(value: &DeValue<'_>) -> Result<ClaimValue, String> {
    let number = |number: Option<Number>| {
        number.map(ClaimValue::Number).ok_or_else(|| "is a number that JSON cannot represent".to_owned())
    };
    match value {
        DeValue::String(text) if text.chars().any(char::is_control) => {
            Err("contains a control character".to_owned())
        }
        DeValue::String(text) => Ok(ClaimValue::Text(text.to_string())),
        DeValue::Boolean(flag) => Ok(ClaimValue::Flag(*flag)),
        DeValue::Integer(text) => {
            number(i64::from_str_radix(text.as_str(), text.radix()).ok().map(Number::from))
        }
        DeValue::Float(text) => {
            number(text.as_str().replace('_', "").parse().ok().and_then(Number::from_f64))
        }
        other => {
            Err(format!("must be a string, a number, true, false or a table of tests, not {}", kind(other)))
        }
    }
}

fn shown(value: &ClaimValue) -> Value {
    match value {
        ClaimValue::Text(text) => text.as_str().into(),
        ClaimValue::Number(number) => Value::Number(number.clone()),
        ClaimValue::Flag(flag) => (*flag).into(),
    }
}

/// A table of tests, all of which must pass.
fn tests(s: &mut Section<'_>) -> Vec<ClaimTest> {
    let mut tests = Vec::new();
    for key in TESTS {
        let Some(entry) = s.take(key) else { continue };
        tests.extend(match key {
            "in" => list(s, key, entry).map(ClaimTest::In),
            "prefix" => prefix(s, key).map(ClaimTest::Prefix),
            "glob" => s.parsed(key, "", |text| Glob::new(text).map_err(str::to_owned)).map(ClaimTest::Glob),
            "exists" => Some(ClaimTest::Exists(s.flag(key, true))),
            "at_least" => bound(s, key, entry).map(ClaimTest::AtLeast),
            _ => bound(s, key, entry).map(ClaimTest::AtMost),
        });
    }
    // If the table has only an unknown key, that problem is enough.
    let is_read = s.written().all(|key| TESTS.contains(&key));
    if is_read
        && s.is_all_sound()
        && let Some(message) = mistake(&tests)
    {
        s.own_problem(message);
    }
    tests
}

fn prefix<'a>(s: &mut Section<'a>, key: &'a str) -> Option<String> {
    s.parsed(key, "", |text| match text {
        "" => Err("must not be empty: it would match every string; write exists = true".to_owned()),
        text => Ok(text.to_owned()),
    })
}

fn list<'a>(s: &mut Section<'a>, key: &'a str, entry: SectionEntry<'a>) -> Option<Vec<ClaimValue>> {
    let DeValue::Array(array) = entry.value else {
        s.problem(key, format!("must be an array, not {}", kind(entry.value)));
        return None;
    };
    let mut values = Vec::new();
    for (index, element) in array.iter().enumerate() {
        match plain(element.get_ref()) {
            Ok(value) if values.contains(&value) => s.element_problem(key, index, "is listed twice"),
            Ok(value) => values.push(value),
            Err(message) => s.element_problem(key, index, message),
        }
    }
    if array.is_empty() {
        s.problem(key, "must not be empty: no value could match it");
    }
    s.show(key, values.iter().map(shown).collect::<Vec<_>>());
    Some(values)
}

fn bound<'a>(s: &mut Section<'a>, key: &'a str, entry: SectionEntry<'a>) -> Option<Number> {
    match value(s, key, entry)? {
        ClaimValue::Number(number) => Some(number),
        ClaimValue::Text(_) | ClaimValue::Flag(_) => {
            s.problem(key, "must be a number");
            None
        }
    }
}

/// Describes what is wrong with tests that can never pass together, or with a lack of tests.
fn mistake(tests: &[ClaimTest]) -> Option<String> {
    let cannot = |why: &str| Some(format!("can never match: {why}"));
    let of_text = |test: &ClaimTest| matches!(test, ClaimTest::Prefix(_) | ClaimTest::Glob(_));
    let of_number = |test: &ClaimTest| matches!(test, ClaimTest::AtLeast(_) | ClaimTest::AtMost(_));
    let bounds = tests.iter().fold((None, None), |(least, most), test| match test {
        ClaimTest::AtLeast(bound) => (Some(bound), most),
        ClaimTest::AtMost(bound) => (least, Some(bound)),
        _ => (least, most),
    });
    if tests.is_empty() {
        return Some(format!("has no test; write a value, or one of {}", units::listed(&TESTS)));
    }
    if tests.contains(&ClaimTest::Exists(false)) && tests.len() > 1 {
        return cannot("exists = false cannot be combined with other tests");
    }
    if tests.iter().any(of_text) && tests.iter().any(of_number) {
        return cannot("prefix and glob require a string, at_least and at_most a number");
    }
    if let (Some(least), Some(most)) = bounds
        && compare(least, most).is_none_or(std::cmp::Ordering::is_gt)
    {
        return cannot("at_least is greater than at_most");
    }
    let passes = |value: &ClaimValue| tests.iter().all(|test| test.is_passed_by(&shown(value)));
    tests.iter().find_map(|test| match test {
        ClaimTest::In(values) if !values.iter().any(passes) => {
            cannot("none of the values of in passes the other tests")
        }
        _ => None,
    })
}
