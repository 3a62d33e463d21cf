//! The file format for moving state from one store to another: lines of JSON, with a header first and a count last.
//!
//! Knows the content and the format, but not where the state comes from or goes: that is in `export` and
//! `import` beside this, and in `redis::transfer`.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::record::{IdleFloor, IdleTerms, PerIssuer, SessionRow, UsageRow};
use super::redis::entry::{EntryWire, LogEntry};
use crate::identity::{Key, SubjectKey, TokenKey, TokenNames};
use crate::time::{Now, Timestamp};

mod directories;
mod export;
mod import;

pub(in crate::state) use directories::DirectoryImport;
pub(in crate::state) use export::StateSource;
pub use export::{ExportedStore, export};
pub use import::{ImportingStore, import};

/// Identifies the file format in the header.
const FORMAT: &str = "portcullis-state";
/// The version of the format. Other versions are refused.
const VERSION: u32 = 1;

/// The first line: identifies the format, and describes the store that was copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferHeader {
    format: String,
    version: u32,
    /// The release that wrote the file.
    product: String,
    exported_at: i64,
    /// `embedded` or `redis`.
    pub store: String,
    /// Distinguishes the store's log from any other.
    pub identity: String,
    /// Tokens issued before this moment are rejected (`before_state`), because nothing is known of them.
    pub not_before: i64,
    /// The last sequence of the log.
    pub sequence: u64,
    /// Whether a gate was using the store, which may therefore have received events that are not in the file.
    pub in_use: bool,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum TransferLine {
    Header(TransferHeader),
    Event {
        sequence: u64,
        entry: EntryWire,
    },
    Session(SessionLine),
    Idle(IdleLine),
    Forgotten(ForgottenLine),
    Usage(UsageLine),
    Directory(DirectoryLine),
    /// The last line, with the number of lines before it.
    End {
        lines: usize,
    },
}

/// A token in use. Times are in milliseconds since 1970, keys hexadecimal.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionLine {
    token: String,
    issuer: String,
    subject: Option<String>,
    client: Option<String>,
    names: Option<Vec<u8>>,
    issued_at: i64,
    first_used_at: i64,
    last_used_at: i64,
    /// Milliseconds since its last use, on running time.
    unused_for: u64,
    expires_at: i64,
}

/// The idle timeout that was last in force for an issuer; without an issuer, for all issuers without one of their own.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IdleLine {
    issuer: Option<String>,
    /// Milliseconds; `None` if tokens did not go idle.
    timeout: Option<u64>,
    floor: Option<FloorLine>,
}

/// The floor left by earlier timeouts: the moment since which tokens had to be used, by both clocks, and
/// the timeout at that time.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FloorLine {
    at: i64,
    ago: u64,
    timeout: u64,
}

/// What deleted events may have ended: tokens that are older than `retention` and were issued before that moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::state) struct ForgottenLine {
    /// `None` for every issuer.
    pub(in crate::state) issuer: Option<String>,
    pub(in crate::state) retention: u64,
    pub(in crate::state) ago: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UsageLine {
    client: String,
    route: String,
    status: u16,
    count: u64,
    last_used_at: i64,
}

/// A SCIM provider's directory: all its documents by name.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::state) struct DirectoryLine {
    pub(in crate::state) name: String,
    pub(in crate::state) revision: u64,
    pub(in crate::state) entries: Vec<(String, String)>,
}

/// The content of a file that was read completely.
pub struct StateCopy {
    /// Describes the copied store.
    pub header: TransferHeader,
    pub(in crate::state) entries: Vec<LogEntry>,
    pub(super) sessions: Vec<SessionLine>,
    pub(super) idle: Vec<IdleLine>,
    pub(in crate::state) forgotten: Vec<ForgottenLine>,
    pub(super) usage: Vec<UsageRow>,
    pub(in crate::state) directories: Vec<DirectoryLine>,
}

impl fmt::Debug for StateCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateCopy").field("header", &self.header).finish_non_exhaustive()
    }
}

/// The result of an import.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImportReport {
    /// Events that the store did not have.
    pub events: usize,
    /// Events that it already had.
    pub known: usize,
    /// Tokens whose last use was imported.
    pub sessions: usize,
    /// Tokens issued before this moment are rejected.
    pub not_before: Timestamp,
    /// Directories that stay unchanged, although the file contains others.
    pub kept_directories: Vec<String>,
    /// Whether the store's beginning stays as it was because the file does not contain everything that the source knew.
    pub keeps_beginning: bool,
}

/// Why a file cannot be imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransferFault {
    /// It is not an export.
    Foreign,
    /// It has this other version of the format.
    Version(u32),
    /// It does not end with the correct count of its lines.
    Truncated,
    /// A line cannot be parsed: its number, and why.
    Line(usize, String),
}

impl fmt::Display for TransferFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str("is not an export of `portcullis state export`"),
            Self::Version(version) => write!(
                f,
                "is of format version {version}, this release reads {VERSION}; export it with this release"
            ),
            Self::Truncated => f.write_str("is truncated: nothing was imported; export it again"),
            Self::Line(number, why) => write!(f, "line {number}: {why}; nothing was imported"),
        }
    }
}

impl std::error::Error for TransferFault {}

impl StateCopy {
    /// Parses an exported file.
    ///
    /// # Errors
    /// When it is not an export, of another version, or incomplete.
    pub fn read(text: &str) -> Result<Self, TransferFault> {
        let mut lines = text.lines();
        let header = header(lines.next().unwrap_or_default())?;
        let body: Vec<&str> = lines.collect();
        let (last, body) = body.split_last().ok_or(TransferFault::Truncated)?;
        match serde_json::from_str(last) {
            Ok(TransferLine::End { lines }) if lines == body.len() + 1 && text.ends_with('\n') => {}
            _ => return Err(TransferFault::Truncated),
        }
        let mut copy = Self {
            header,
            entries: Vec::new(),
            sessions: Vec::new(),
            idle: Vec::new(),
            forgotten: Vec::new(),
            usage: Vec::new(),
            directories: Vec::new(),
        };
        for (index, line) in body.iter().enumerate() {
            copy.take(line).map_err(|why| TransferFault::Line(index + 2, why))?;
        }
        Ok(copy)
    }

    fn take(&mut self, line: &str) -> Result<(), String> {
        match serde_json::from_str(line).map_err(|error| error.to_string())? {
            TransferLine::Event { sequence, entry } => {
                let entry = LogEntry::from_wire(entry, sequence, 0);
                self.entries.push(entry.ok_or("an event of a kind that this release does not know")?);
            }
            TransferLine::Session(session) => {
                session.row(Now::read()).ok_or("a session whose keys are not hexadecimal")?;
                self.sessions.push(session);
            }
            TransferLine::Idle(idle) => self.idle.push(idle),
            TransferLine::Forgotten(forgotten) => self.forgotten.push(forgotten),
            TransferLine::Usage(UsageLine { client, route, status, count, last_used_at }) => {
                let last_used_at = Timestamp::from_millis(last_used_at);
                self.usage.push(UsageRow {
                    client: client.into(),
                    route: route.into(),
                    status,
                    count,
                    last_used_at,
                });
            }
            TransferLine::Directory(directory) => self.directories.push(directory),
            TransferLine::Header(_) | TransferLine::End { .. } => {
                return Err("a second header or end".to_owned());
            }
        }
        Ok(())
    }

    /// Returns the tokens in use, on the clocks of `now`.
    pub(in crate::state) fn session_rows(&self, now: Now) -> Vec<SessionRow> {
        self.sessions.iter().filter_map(|line| line.row(now)).collect()
    }

    /// Returns the idle timeouts that were last in force, on the clocks of `now`; `None` if there were none.
    pub(in crate::state) fn idle_terms(&self, now: Now) -> Option<PerIssuer<IdleTerms>> {
        let common = self.idle.iter().find(|line| line.issuer.is_none())?.terms(now);
        let own = self.idle.iter().filter_map(|line| Some((line.issuer.as_deref()?.into(), line.terms(now))));
        Some(PerIssuer::new(common, own))
    }

    /// Returns what the store's counts lack. The larger of two counts is right, because both started from the same.
    pub(in crate::state) fn missing_usage(&self, known: &[UsageRow]) -> Vec<UsageRow> {
        let key = |row: &UsageRow| (row.client.clone(), row.route.clone(), row.status);
        let counts: std::collections::HashMap<_, u64> =
            known.iter().map(|row| (key(row), row.count)).collect();
        let missing = self.usage.iter().filter_map(|row| {
            let count = row
                .count
                .checked_sub(counts.get(&key(row)).copied().unwrap_or(0))
                .filter(|count| *count > 0)?;
            Some(UsageRow { count, ..row.clone() })
        });
        missing.collect()
    }
}

/// Parses the first line, which all versions of the format share.
fn header(line: &str) -> Result<TransferHeader, TransferFault> {
    let value: serde_json::Value = serde_json::from_str(line).map_err(|_no_json| TransferFault::Foreign)?;
    let header = &value["header"];
    if header["format"].as_str() != Some(FORMAT) {
        return Err(TransferFault::Foreign);
    }
    match header["version"].as_u64().and_then(|version| u32::try_from(version).ok()) {
        Some(VERSION) => {}
        Some(version) => return Err(TransferFault::Version(version)),
        None => return Err(TransferFault::Foreign),
    }
    match serde_json::from_str(line) {
        Ok(TransferLine::Header(header)) => Ok(header),
        Ok(_) => Err(TransferFault::Foreign),
        Err(error) => Err(TransferFault::Line(1, error.to_string())),
    }
}

fn unhex(text: &str) -> Option<Key> {
    u128::from_str_radix(text, 16).ok().map(|key| Key::from_bytes(key.to_be_bytes()))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl SessionLine {
    fn of(row: &SessionRow, now: Now) -> Self {
        Self {
            token: row.token.0.to_string(),
            issuer: row.issuer.to_string(),
            subject: row.subject.map(|subject| subject.0.to_string()),
            client: row.client.as_deref().map(str::to_owned),
            names: row.names.as_ref().map(|names| names.to_bytes()),
            issued_at: row.issued_at.as_millis(),
            first_used_at: row.first_used_at.as_millis(),
            last_used_at: row.last_used_at.as_millis(),
            unused_for: millis(now.monotonic.since(row.last_used_monotonic)),
            expires_at: row.expires_at.as_millis(),
        }
    }

    /// Converts it to a row on the clocks of `now`. Running time does not advance while no gate runs, so the
    /// longer of the two spans counts.
    fn row(&self, now: Now) -> Option<SessionRow> {
        let subject = match &self.subject {
            Some(subject) => Some(SubjectKey(unhex(subject)?)),
            None => None,
        };
        let last_used_at = Timestamp::from_millis(self.last_used_at);
        let unused = Duration::from_millis(self.unused_for).max(now.wall.since(last_used_at));
        Some(SessionRow {
            token: TokenKey(unhex(&self.token)?),
            issuer: self.issuer.as_str().into(),
            subject,
            client: self.client.as_deref().map(Into::into),
            issued_at: Timestamp::from_millis(self.issued_at),
            first_used_at: Timestamp::from_millis(self.first_used_at),
            last_used_at,
            last_used_monotonic: now.monotonic.minus(unused),
            expires_at: Timestamp::from_millis(self.expires_at),
            names: self.names.as_deref().and_then(TokenNames::from_bytes).map(Into::into),
        })
    }
}

impl IdleLine {
    fn of(issuer: Option<&str>, terms: &IdleTerms, now: Now) -> Self {
        let floor = terms.floor.map(|floor| FloorLine {
            at: floor.wall.as_millis(),
            ago: millis(now.monotonic.since(floor.monotonic)),
            timeout: millis(floor.timeout),
        });
        Self { issuer: issuer.map(str::to_owned), timeout: terms.timeout.map(millis), floor }
    }

    fn terms(&self, now: Now) -> IdleTerms {
        let floor = self.floor.as_ref().map(|floor| IdleFloor {
            wall: Timestamp::from_millis(floor.at),
            monotonic: now.monotonic.minus(Duration::from_millis(floor.ago)),
            timeout: Duration::from_millis(floor.timeout),
        });
        IdleTerms { timeout: self.timeout.map(Duration::from_millis), floor }
    }
}
