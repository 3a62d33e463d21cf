//! Values that refer to something else: files, and secrets in files and environment variables.
//!
//! Neither messages nor effective values show the content.

use std::path::{Path, PathBuf};

use serde_json::json;
use toml::de::DeValue;

use super::describe;
use super::section::{Section, kind};
use super::values::Scalar;

/// Replaces secrets in the effective configuration.
const REDACTED: &str = "[redacted]";

impl<'a> Section<'a> {
    /// The path of a readable file, or `""` for none.
    pub(super) fn file(&mut self, key: &'a str) -> Option<PathBuf> {
        let path = self.text(key, "");
        (!path.is_empty()).then(|| self.readable(key, &path))
    }

    /// The path of a readable file.
    pub(super) fn required_file(&mut self, key: &'a str) -> PathBuf {
        let path = self.required(key, |text| Ok(text.to_owned()));
        path.map(|path| self.readable(key, &path)).unwrap_or_default()
    }

    fn readable(&mut self, key: &'a str, path: &str) -> PathBuf {
        let path = self.reading.resolve(path);
        self.show(key, path.to_string_lossy());
        if self.looks()
            && let Err(message) = open(&path)
        {
            self.problem(key, message);
        }
        path
    }

    /// A secret: a string, `{ env = "NAME" }` or `{ file = "PATH" }`; `""` for none.
    pub(super) fn secret(&mut self, key: &'a str) -> Option<String> {
        self.describe(key, || json!({ "$ref": "#/$defs/secret", "default": "" }));
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

    /// Like [`Self::secret`], together with the path of its file, for a secret that is read again at each use.
    pub(super) fn secret_or_file(&mut self, key: &'a str) -> Option<(String, Option<PathBuf>)> {
        let secret = self.secret(key)?;
        let file = match self.find(key)?.value {
            DeValue::Table(table) => table.get("file").and_then(|path| path.get_ref().as_str()),
            _ => None,
        };
        Some((secret, file.filter(|path| !path.is_empty()).map(|path| self.reading.beside(path))))
    }

    /// An array of at least one secret; each is read like [`Self::secret`].
    pub(super) fn secrets(&mut self, key: &'a str) -> Vec<String> {
        self.describe_required(
            key,
            || json!({ "type": "array", "items": describe::filled_secret(), "minItems": 1 }),
        );
        let elements = match self.take(key).map(|entry| entry.value) {
            Some(DeValue::Array(array)) if array.is_empty() => {
                self.problem(key, "must not be empty");
                return Vec::new();
            }
            Some(DeValue::Array(array)) => array,
            Some(other) => {
                self.problem(
                    key,
                    format!("must be an array of secrets, not {}; put [ ] around it", kind(other)),
                );
                return Vec::new();
            }
            None => {
                self.missing(key);
                return Vec::new();
            }
        };
        let mut secrets = Vec::new();
        for (index, element) in elements.iter().enumerate() {
            match element.get_ref() {
                DeValue::String(text) if text.is_empty() => {
                    self.element_problem(key, index, "must not be empty")
                }
                DeValue::String(text) => secrets.push(text.clone().into_owned()),
                DeValue::Table(table) => {
                    let name = format!("{}[{index}]", self.full(key));
                    secrets.extend(self.element(name, element.span().start, table, referenced_secret));
                }
                other => {
                    let message = Scalar::from(other).not("a string, { env = … } or { file = … }");
                    self.element_problem(key, index, message);
                }
            }
        }
        self.show(key, vec![REDACTED; secrets.len()]);
        secrets
    }

    /// A secret that is required.
    pub(super) fn required_secret(&mut self, key: &'a str) -> String {
        self.describe_required(key, describe::filled_secret);
        match self.find(key).map(|entry| entry.value) {
            None => self.missing(key),
            Some(DeValue::String(text)) if text.is_empty() => self.problem(key, "must not be empty"),
            Some(_) => {}
        }
        self.secret(key).unwrap_or_default()
    }
}

/// `{ env = "NAME" }` or `{ file = "PATH" }`. Messages name the variable or file, never the content.
fn referenced_secret(s: &mut Section<'_>) -> Option<String> {
    let name = |text: &str| Ok(text.to_owned());
    let (env, file) = (s.parsed("env", "", name), s.parsed("file", "", name));
    let found = match (env?.as_str(), file?.as_str()) {
        // A placeholder that is long enough for any use and different for each secret.
        (place, "") | ("", place) if !place.is_empty() && !s.looks() => {
            Ok(format!("{:-<64}", s.full("not-read").replace('"', "'")))
        }
        // A misspelt key, which is reported as unknown.
        ("", "") if s.written().any(|key| !matches!(key, "env" | "file")) => return None,
        ("", "") => Err("must name an environment variable (`env`) or a file (`file`)".to_owned()),
        (name, "") => match std::env::var(name) {
            Ok(value) if value.is_empty() => Err(format!("the environment variable {name} is empty")),
            Ok(value) => Ok(value),
            Err(std::env::VarError::NotPresent) => Err(format!("the environment variable {name} is not set")),
            Err(std::env::VarError::NotUnicode(_)) => {
                Err(format!("the environment variable {name} is not UTF-8"))
            }
        },
        ("", path) => secret_in(&s.reading.resolve(path)),
        _ => Err("names both an environment variable and a file; keep one".to_owned()),
    };
    found.map_err(|message| s.own_problem(message)).ok()
}

/// Reads the content of a file without the trailing line end that editors add.
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

/// Checks that this is a readable file.
fn open(path: &Path) -> Result<(), String> {
    let metadata = std::fs::File::open(path).and_then(|file| file.metadata());
    match metadata {
        Ok(metadata) if metadata.is_dir() => Err(format!("{} is a directory", path.display())),
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
    }
}
