//! The typed values of a table: each method reads one key, falls back to its default and shows what is in effect.
//!
//! Knows notations and files, not what a key is for.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use toml::de::DeValue;

use super::section::{Section, kind, not_one_of};
use super::units;

/// What stands for a secret in the effective configuration.
const REDACTED: &str = "[redacted]";

/// A value without parts, of the file or a default.
#[derive(Clone, Copy)]
pub(super) enum Scalar<'a> {
    Text(&'a str),
    Integer(i64),
    Flag(bool),
    /// Something else, by its name in plain words.
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
                .map_or(Self::Other("an integer of more than 64 bits"), Self::Integer),
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
            Self::Other(_) => Value::Null,
        }
    }

    fn kind(self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Flag(_) => "true or false",
            Self::Other(kind) => kind,
        }
    }

    fn not(self, wanted: &str) -> String {
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
    /// One value: what the file says, else the default; `None` when it is wrong.
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

    /// `"30s"`.
    pub(super) fn duration(&mut self, key: &'a str, default: &str, zero: Zero) -> Duration {
        let decode = |value: Scalar<'_>| match value {
            Scalar::Text(text) => match units::duration(text)? {
                Duration::ZERO if zero == Zero::Refused => Err("must be longer than zero".to_owned()),
                duration => Ok(duration),
            },
            Scalar::Integer(number) => Err(units::duration_without_unit(number)),
            other => Err(other.not("a duration such as \"30s\"")),
        };
        self.value(key, default.into(), decode).unwrap_or_default()
    }

    /// `"30s"`, or `""` for none.
    pub(super) fn optional_duration(&mut self, key: &'a str) -> Option<Duration> {
        if matches!(self.find(key).map(|entry| Scalar::from(entry.value)), None | Some(Scalar::Text(""))) {
            self.text(key, "");
            return None;
        }
        Some(self.duration(key, "", Zero::Refused))
    }

    /// A whole number.
    pub(super) fn count(&mut self, key: &'a str, default: i64, range: RangeInclusive<i64>) -> usize {
        let decode = |value: Scalar<'_>| match value {
            Scalar::Integer(number) => within(number, &range),
            other => Err(other.not("an integer")),
        };
        let number = self.value(key, default.into(), decode).unwrap_or_default();
        usize::try_from(number).unwrap_or_default()
    }

    /// `"64KiB"`, or an integer in bytes.
    pub(super) fn size<'d>(
        &mut self,
        key: &'a str,
        default: impl Into<Scalar<'d>>,
        range: RangeInclusive<i64>,
    ) -> u64 {
        let decode = |value: Scalar<'_>| {
            let bytes = match value {
                Scalar::Text(text) => i64::try_from(units::size(text)?).unwrap_or(i64::MAX),
                Scalar::Integer(number) => number,
                other => return Err(other.not("a size such as \"64KiB\", or an integer in bytes")),
            };
            within(bytes, &range)
        };
        let bytes = self.value(key, default.into(), decode).unwrap_or_default();
        u64::try_from(bytes).unwrap_or_default()
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &'a str, default: bool) -> bool {
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

    /// A string with a form of its own; `None` when it is wrong.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'a str,
        default: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let decode = |value: Scalar<'_>| match value {
            Scalar::Text(text) => parse(text),
            other => Err(other.not("a string")),
        };
        self.value(key, default.into(), decode)
    }

    /// A string that must be there; `None` when it is not, or wrong.
    pub(super) fn required<T>(
        &mut self,
        key: &'a str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
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
        let parse = |text: &str| match choices.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Ok(*value),
            None => Err(not_one_of(text, &choices.iter().map(|(word, _)| *word).collect::<Vec<_>>())),
        };
        self.parsed(key, default.0, parse).unwrap_or(default.1)
    }

    /// An array of strings; empty ones and repetitions are problems.
    pub(super) fn list<T: PartialEq>(
        &mut self,
        key: &'a str,
        default: &[&str],
        mut parse: impl FnMut(&str) -> Result<T, String>,
    ) -> Vec<T> {
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

    /// An array of strings with at least one element; required when there is no default.
    pub(super) fn filled_list<T: PartialEq>(
        &mut self,
        key: &'a str,
        default: &[&str],
        parse: impl FnMut(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let values = self.list(key, default, parse);
        match self.find(key).map(|entry| entry.value) {
            None if default.is_empty() => self.missing(key),
            Some(DeValue::Array(array)) if array.is_empty() => self.problem(key, "must not be empty"),
            _ => {}
        }
        values
    }

    /// The path of a file that can be read, or `""` for none.
    pub(super) fn file(&mut self, key: &'a str) -> Option<PathBuf> {
        let path = self.text(key, "");
        (!path.is_empty()).then(|| self.readable(key, &path))
    }

    /// The path of a file that can be read.
    pub(super) fn required_file(&mut self, key: &'a str) -> PathBuf {
        let path = self.required(key, |text| Ok(text.to_owned()));
        path.map(|path| self.readable(key, &path)).unwrap_or_default()
    }

    fn readable(&mut self, key: &'a str, path: &str) -> PathBuf {
        let path = self.reading.resolve(path);
        self.show(key, path.to_string_lossy());
        if let Err(message) = open(&path) {
            self.problem(key, message);
        }
        path
    }

    /// A string, `{ env = "NAME" }` or `{ file = "PATH" }`; `""` for none.
    pub(super) fn secret(&mut self, key: &'a str) -> Option<String> {
        let secret = match self.take(key).map(|entry| entry.value) {
            None => None,
            Some(DeValue::String(text)) if text.is_empty() => None,
            Some(DeValue::String(text)) => Some(text.clone().into_owned()),
            Some(DeValue::Table(_)) => self.table(key, referenced_secret),
            Some(other) => {
                self.problem(key, Scalar::from(other).not("a string, { env = … } or { file = … }"));
                None
            }
        };
        self.show(key, if secret.is_some() { REDACTED } else { "" });
        secret
    }

    /// A secret that must be there.
    pub(super) fn required_secret(&mut self, key: &'a str) -> String {
        match self.find(key).map(|entry| entry.value) {
            None => self.missing(key),
            Some(DeValue::String(text)) if text.is_empty() => self.problem(key, "must not be empty"),
            Some(_) => {}
        }
        self.secret(key).unwrap_or_default()
    }
}

/// `{ env = "NAME" }` or `{ file = "PATH" }`. Messages name the place, never the content.
fn referenced_secret(s: &mut Section<'_>) -> Option<String> {
    let name = |text: &str| Ok(text.to_owned());
    let (env, file) = (s.parsed("env", "", name), s.parsed("file", "", name));
    let found = match (env?.as_str(), file?.as_str()) {
        // A misspelt one, which is reported as unknown.
        ("", "") if s.written().any(|key| !matches!(key, "env" | "file")) => return None,
        ("", "") => Err("names neither an environment variable (`env`) nor a file (`file`)".to_owned()),
        (name, "") => match std::env::var(name) {
            Ok(value) if value.is_empty() => Err(format!("the environment variable {name} is empty")),
            Ok(value) => Ok(value),
            Err(std::env::VarError::NotPresent) => Err(format!("the environment variable {name} is not set")),
            Err(std::env::VarError::NotUnicode(_)) => {
                Err(format!("the environment variable {name} is not UTF-8"))
            }
        },
        ("", path) => secret_in(&s.reading.resolve(path)),
        _ => Err("names an environment variable and a file; keep one".to_owned()),
    };
    found.map_err(|message| s.own_problem(message)).ok()
}

/// The content of a file without the line end that editors leave behind.
fn secret_in(path: &Path) -> Result<String, String> {
    open(path)?;
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    match text.strip_suffix('\r').unwrap_or(text) {
        "" => Err(format!("{} is empty", path.display())),
        secret => Ok(secret.to_owned()),
    }
}

/// Whether this is a file that can be read.
fn open(path: &Path) -> Result<(), String> {
    let metadata = std::fs::File::open(path).and_then(|file| file.metadata());
    match metadata {
        Ok(metadata) if metadata.is_dir() => Err(format!("{} is a folder", path.display())),
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
    }
}

fn within(number: i64, range: &RangeInclusive<i64>) -> Result<i64, String> {
    match number {
        _ if range.contains(&number) => Ok(number),
        _ if *range.end() == i64::MAX => Err(format!("must be at least {}", range.start())),
        _ => Err(format!("must be between {} and {}", range.start(), range.end())),
    }
}
