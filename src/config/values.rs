//! The typed values of a table: each method reads one key, falls back to its default and records the effective value.
//!
//! Knows value formats, but not the purpose of a key.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Value, json};
use toml::de::DeValue;

use super::section::{Section, kind, not_one_of};
use super::{describe, units};
use crate::time;

/// A simple value, from the file or a default.
#[derive(Clone, Copy)]
pub(super) enum Scalar<'a> {
    Text(&'a str),
    Integer(i64),
    Flag(bool),
    Fraction(f64),
    /// Another type, by its name in plain words.
    Other(&'static str),
}

impl<'a> From<&'a str> for Scalar<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Scalar<'_> {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl<'a> From<&'a DeValue<'a>> for Scalar<'a> {
    fn from(value: &'a DeValue<'a>) -> Self {
        match value {
            DeValue::String(text) => Self::Text(text),
            DeValue::Boolean(flag) => Self::Flag(*flag),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or(Self::Other("an integer longer than 64 bits"), Self::Integer),
            DeValue::Float(number) => {
                number.as_str().parse().map_or(Self::Other(kind(value)), Self::Fraction)
            }
            other => Self::Other(kind(other)),
        }
    }
}

impl Scalar<'_> {
    fn json(self) -> Value {
        match self {
            Self::Text(text) => text.into(),
            Self::Integer(number) => number.into(),
            Self::Flag(flag) => flag.into(),
            Self::Fraction(number) => number.into(),
            Self::Other(_) => Value::Null,
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Flag(_) => "true or false",
            Self::Fraction(_) => "a number with a fraction",
            Self::Other(kind) => kind,
        }
    }

    pub(super) fn not(self, wanted: &str) -> String {
        format!("must be {wanted}, not {}", self.kind())
    }
}

/// Whether a duration may be zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Zero {
    Allowed,
    Refused,
}

impl<'a> Section<'a> {
    /// Reads one value: from the file, or the default; `None` if it is wrong.
    fn value<T>(
        &mut self,
        key: &'a str,
        default: Scalar<'_>,
        decode: impl FnOnce(Scalar<'_>) -> Result<T, String>,
    ) -> Option<T> {
        let entry = self.take(key);
        let written = entry.map_or(default, |entry| Scalar::from(entry.value));
        self.show(key, written.json());
        decode(written).map_err(|message| self.problem(key, message)).ok()
    }

    /// A duration: `"30s"`.
    pub(super) fn duration(&mut self, key: &'a str, default: &str, zero: Zero) -> Duration {
        self.describe(key, || describe::duration(default, zero));
        let decode = |value: Scalar<'_>| match value {
            Scalar::Text(text) => match time::parse_duration(text)? {
                Duration::ZERO if zero == Zero::Refused => Err("must be longer than zero".to_owned()),
                duration => Ok(duration),
            },
            Scalar::Integer(number) => Err(time::duration_without_unit(number)),
            other => Err(other.not("a duration such as \"30s\"")),
        };
        self.value(key, default.into(), decode).unwrap_or_default()
    }

    /// A duration, or `""` for none.
    pub(super) fn optional_duration(&mut self, key: &'a str) -> Option<Duration> {
        self.duration_or_none(key, Zero::Refused)
    }

    /// A duration, or `""` for none, where zero may have a meaning.
    pub(super) fn duration_or_none(&mut self, key: &'a str, zero: Zero) -> Option<Duration> {
        self.describe(key, || describe::optional_duration(zero));
        if matches!(self.find(key).map(|entry| Scalar::from(entry.value)), None | Some(Scalar::Text(""))) {
            self.text(key, "");
            return None;
        }
        Some(self.duration(key, "", zero))
    }

    /// An integer.
    pub(super) fn count(&mut self, key: &'a str, default: i64, range: RangeInclusive<i64>) -> usize {
        self.describe(key, || {
            let mut keywords = describe::integer(*range.start(), *range.end());
            keywords["default"] = default.into();
            keywords
        });
        let decode = |value: Scalar<'_>| match value {
            Scalar::Integer(number) => within(number, &range),
            other => Err(other.not("an integer")),
        };
        let number = self.value(key, default.into(), decode).unwrap_or_default();
        usize::try_from(number).unwrap_or_default()
    }

    /// A size: `"64KiB"`, or an integer in bytes.
    pub(super) fn size<'d>(
        &mut self,
        key: &'a str,
        default: impl Into<Scalar<'d>>,
        range: RangeInclusive<i64>,
    ) -> u64 {
        let default = default.into();
        self.describe(key, || describe::size(&default.json(), *range.start(), *range.end()));
        let decode = |value: Scalar<'_>| {
            let bytes = match value {
                Scalar::Text(text) => i64::try_from(units::size(text)?).unwrap_or(i64::MAX),
                Scalar::Integer(number) => number,
                other => return Err(other.not("a size such as \"64KiB\", or an integer in bytes")),
            };
            within(bytes, &range)
        };
        let bytes = self.value(key, default, decode).unwrap_or_default();
        u64::try_from(bytes).unwrap_or_default()
    }

    /// A number between 0 and 1.
    pub(super) fn ratio(&mut self, key: &'a str, default: f64) -> f64 {
        self.describe(key, || json!({ "type": "number", "minimum": 0, "maximum": 1, "default": default }));
        let decode = |value: Scalar<'_>| match value {
            Scalar::Fraction(number) if (0.0..=1.0).contains(&number) => Ok(number),
            Scalar::Integer(0) => Ok(0.0),
            Scalar::Integer(1) => Ok(1.0),
            Scalar::Fraction(_) | Scalar::Integer(_) => {
                Err("must be between 0 and 1, such as 0.01".to_owned())
            }
            other => Err(other.not("a number such as 0.01")),
        };
        self.value(key, Scalar::Fraction(default), decode).unwrap_or(default)
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &'a str, default: bool) -> bool {
        self.describe(key, || json!({ "type": "boolean", "default": default }));
        let decode = |value: Scalar<'_>| match value {
            Scalar::Flag(flag) => Ok(flag),
            other => Err(other.not("true or false")),
        };
        self.value(key, Scalar::Flag(default), decode).unwrap_or(default)
    }

    /// Any string.
    pub(super) fn text(&mut self, key: &'a str, default: &str) -> String {
        self.parsed(key, default, |text| Ok(text.to_owned())).unwrap_or_default()
    }

    /// A string with a format of its own; `None` if it is wrong.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'a str,
        default: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.describe(key, || json!({ "type": "string", "default": default }));
        let decode = |value: Scalar<'_>| match value {
            Scalar::Text(text) => parse(text),
            other => Err(other.not("a string")),
        };
        self.value(key, default.into(), decode)
    }

    /// A required string; `None` if it is missing or wrong.
    pub(super) fn required<T>(
        &mut self,
        key: &'a str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.describe_required(key, || json!({ "type": "string", "minLength": 1 }));
        if self.take(key).is_none() {
            self.missing(key);
            return None;
        }
        self.parsed(key, "", |text| match text {
            "" => Err("must not be empty".to_owned()),
            text => parse(text),
        })
    }

    /// A string that is one of a few words.
    pub(super) fn word<T: Copy>(&mut self, key: &'a str, default: (&str, T), others: &[(&str, T)]) -> T {
        let choices: Vec<_> = std::iter::once(&default).chain(others).collect();
        let words = || choices.iter().map(|(word, _)| *word).collect::<Vec<_>>();
        self.describe(key, || json!({ "type": "string", "enum": words(), "default": default.0 }));
        let parse = |text: &str| match choices.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Ok(*value),
            None => Err(not_one_of(text, &words())),
        };
        self.parsed(key, default.0, parse).unwrap_or(default.1)
    }

    /// An array of strings; empty and repeated ones are problems.
    pub(super) fn list<T: PartialEq>(
        &mut self,
        key: &'a str,
        default: &[&str],
        mut parse: impl FnMut(&str) -> Result<T, String>,
    ) -> Vec<T> {
        self.describe(key, || describe::strings(default, 0));
        let elements = match self.take(key).map(|entry| entry.value) {
            None => default.iter().map(|text| Scalar::Text(text)).collect(),
            Some(DeValue::Array(array)) => array.iter().map(|element| element.get_ref().into()).collect(),
            Some(other) => {
                let wrong = if matches!(other, DeValue::String(_)) { "; put [ ] around it" } else { "" };
                self.problem(key, format!("must be an array of strings, not {}{wrong}", kind(other)));
                Vec::new()
            }
        };
        self.show(key, elements.iter().map(|element: &Scalar<'_>| element.json()).collect::<Vec<_>>());
        let mut values = Vec::new();
        for (index, element) in elements.into_iter().enumerate() {
            let value = match element {
                Scalar::Text("") => Err("must not be empty".to_owned()),
                Scalar::Text(text) => parse(text),
                other => Err(other.not("a string")),
            };
            match value {
                Ok(value) if values.contains(&value) => self.element_problem(key, index, "is listed twice"),
                Ok(value) => values.push(value),
                Err(message) => self.element_problem(key, index, message),
            }
        }
        values
    }

    /// One string, or an array of strings with at least one element.
    pub(super) fn one_or_more<T: PartialEq>(
        &mut self,
        key: &'a str,
        default: &str,
        parse: impl FnMut(&str) -> Result<T, String>,
    ) -> Vec<T> {
        self.describe(key, || describe::one_or_more(default));
        match self.find(key).map(|entry| entry.value) {
            Some(DeValue::Array(_)) => self.filled_list(key, &[default], parse),
            _ => self.parsed(key, default, parse).into_iter().collect(),
        }
    }

    /// An array of strings with at least one element; required if there is no default.
    pub(super) fn filled_list<T: PartialEq>(
        &mut self,
        key: &'a str,
        default: &[&str],
        parse: impl FnMut(&str) -> Result<T, String>,
    ) -> Vec<T> {
        match default {
            [] => self.describe_required(key, || describe::strings(&[], 1)),
            default => self.describe(key, || describe::strings(default, 1)),
        }
        let values = self.list(key, default, parse);
        match self.find(key).map(|entry| entry.value) {
            None if default.is_empty() => self.missing(key),
            Some(DeValue::Array(array)) if array.is_empty() => self.problem(key, "must not be empty"),
            _ => {}
        }
        values
    }

    /// An array of at least one of a few words.
    pub(super) fn words<T: Copy + PartialEq>(&mut self, key: &'a str, choices: &[(&str, T)]) -> Vec<T> {
        let names = || choices.iter().map(|(word, _)| *word).collect::<Vec<_>>();
        let values = self.filled_list(key, &[], |text| {
            let chosen = choices.iter().find(|(word, _)| *word == text);
            chosen.map(|(_, value)| *value).ok_or_else(|| not_one_of(text, &names()))
        });
        self.narrow(key, || json!({ "items": { "type": "string", "enum": names() } }));
        values
    }
}

fn within(number: i64, range: &RangeInclusive<i64>) -> Result<i64, String> {
    match number {
        _ if range.contains(&number) => Ok(number),
        _ if *range.end() == i64::MAX => Err(format!("must be at least {}", range.start())),
        _ => Err(format!("must be between {} and {}", range.start(), range.end())),
    }
}
