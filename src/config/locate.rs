//! Locates problems in the file: converts byte offsets to lines, and collects all problems.
//!
//! Does not know the meaning of keys.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};

use super::describe::KeyDescriptions;
use super::watch::WatchedFiles;

/// One problem in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The path of the configuration file, as it was given.
    pub file: PathBuf,
    /// The line, from 1; `None` if the file could not be read.
    pub line: Option<usize>,
    /// The full key, such as `routes[2].upstream`; empty if no key is at fault.
    pub key: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for ConfigProblem {
    /// `config/portcullis.toml:12: routes[2].upstream: no upstream is named "ap1" (known: api)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}", self.message)
    }
}

/// All problems of a configuration in the order of its lines; each prints as one line.
#[derive(Debug, Clone)]
pub struct Problems {
    list: Vec<ConfigProblem>,
    files: WatchedFiles,
}

impl Problems {
    /// The problems; at least one.
    #[must_use]
    pub fn list(&self) -> &[ConfigProblem] {
        &self.list
    }

    /// The files that were read: if one of them changes, reading again may succeed.
    #[must_use]
    pub fn files(&self) -> &WatchedFiles {
        &self.files
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.list.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The purpose of reading a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadFor<'a> {
    /// To run the gate with it.
    Everything,
    /// To judge a token.
    Judgement {
        /// The possible issuers or SPIFFE trust domains of the token.
        names: &'a [&'a str],
    },
    /// To describe its keys. Referenced files and secrets are not read, and problems do not matter.
    Description,
}

/// The state of reading one configuration file: the base of relative paths, the problems, and the files that were read.
pub(super) struct Reading<'a> {
    file: &'a Path,
    text: &'a str,
    found: RefCell<Vec<(usize, ConfigProblem)>>,
    files: RefCell<WatchedFiles>,
    extent: ReadFor<'a>,
    descriptions: RefCell<KeyDescriptions>,
}

impl<'a> Reading<'a> {
    /// Starts reading `text`, the content of `file`; `files` contains the file itself.
    pub(super) fn new(file: &'a Path, text: &'a str, files: WatchedFiles, extent: ReadFor<'a>) -> Self {
        let (found, files, descriptions) = (RefCell::default(), RefCell::new(files), RefCell::default());
        Self { file, text, found, files, extent, descriptions }
    }

    /// Whether everything is read, or tokens of this issuer or trust domain are to be judged.
    pub(super) fn concerns(&self, name: &str) -> bool {
        match self.extent {
            ReadFor::Everything => true,
            ReadFor::Judgement { names } => names.contains(&name),
            ReadFor::Description => false,
        }
    }

    /// Whether everything is read.
    pub(super) fn is_complete(&self) -> bool {
        self.extent == ReadFor::Everything
    }

    /// Whether the purpose is to describe keys.
    pub(super) fn describes(&self) -> bool {
        self.extent == ReadFor::Description
    }

    /// Records descriptions of keys, if that is the purpose.
    pub(super) fn describe(&self, note: impl FnOnce(&mut KeyDescriptions)) {
        if self.describes() {
            note(&mut self.descriptions.borrow_mut());
        }
    }

    /// Returns the recorded descriptions.
    pub(super) fn into_descriptions(self) -> KeyDescriptions {
        self.descriptions.into_inner()
    }

    /// Records a problem at a byte offset.
    pub(super) fn problem(&self, offset: usize, key: &str, message: impl Into<String>) {
        let problem = ConfigProblem {
            file: self.file.to_path_buf(),
            line: Some(self.line(offset)),
            key: key.to_owned(),
            message: on_one_line(&message.into()),
        };
        self.found.borrow_mut().push((offset, problem));
    }

    /// Whether no problem has been found with a key or its content.
    pub(super) fn is_sound(&self, key: &str) -> bool {
        let within = |problem: &ConfigProblem| {
            let rest = problem.key.strip_prefix(key);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        !self.found.borrow().iter().any(|(_, problem)| within(problem))
    }

    /// Converts a byte offset to a line, from 1. The end of the file belongs to its last line.
    pub(super) fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().iter().take(offset);
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        line.min(self.text.lines().count().max(1))
    }

    /// Resolves a path relative to the folder of the configuration file; the file is watched from then on.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        let path = self.beside(path);
        if !self.describes() {
            self.files.borrow_mut().note(&path);
        }
        path
    }

    /// Resolves a path relative to the folder of the configuration file.
    pub(super) fn beside(&self, path: &str) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(path)
    }

    /// Returns the files that were read or, if there are any, the problems.
    pub(super) fn finish(self) -> Result<WatchedFiles, Problems> {
        if self.found.borrow().is_empty() { Ok(self.files.into_inner()) } else { Err(self.fail()) }
    }

    /// Returns the problems, in the order of the file.
    pub(super) fn fail(self) -> Problems {
        let mut found = self.found.into_inner();
        found.sort_by_key(|(offset, _)| *offset);
        let list = found.into_iter().map(|(_, problem)| problem).collect();
        Problems { list, files: self.files.into_inner() }
    }
}

/// Replaces control characters, so that text from a file or library cannot begin a line of its own.
fn on_one_line(message: &str) -> String {
    message
        .chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

/// The only problem of a file that cannot be read.
pub(super) fn unreadable(file: &Path, files: WatchedFiles, message: String) -> Problems {
    let problem = ConfigProblem { file: file.to_path_buf(), line: None, key: String::new(), message };
    Problems { list: vec![problem], files }
}
