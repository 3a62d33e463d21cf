//! A SCIM 2.0 service provider (RFC 7643, RFC 7644): an identity provider keeps its users and groups here, and
//! its changes to them end tokens.
//!
//! A group is a role of its members. A request is parsed (`patch`, `filter`, `user`, `group`) and planned
//! against the directory (`plan`), both without any I/O; the resulting events are made durable and put in
//! force; the directory is changed if it still has the planned revision; then the response is sent. After a
//! crash in between, more tokens may have ended than necessary, but never fewer: the provider, which received
//! no response, sends the request again, and the plan again finds the difference.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::events::EventIssuer;
use crate::signals::Concealed;
use crate::time::Timestamp;

mod accounts;
mod answer;
mod copy;
mod directory;
mod discovery;
mod emails;
mod error;
mod filter;
mod group;
mod members;
mod patch;
mod plan;
mod provider;
mod query;
mod request;
mod user;

pub use copy::ScimDirectories;
pub use provider::{Provider, fault};

/// The largest accepted body, in bytes.
pub const MAX_BODY: usize = 1 << 20;

/// The settings of one provider (`[[scim]]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The path segment that its endpoints are below.
    pub name: String,
    /// Its bearer tokens, each of which is accepted.
    pub tokens: Vec<Concealed>,
    /// The issuer whose subjects its users are.
    pub issuer: EventIssuer,
    /// The attribute of a user that equals the subject of its tokens.
    pub subject: SubjectAttribute,
    /// The roles of groups by display name. A group that is not listed gives the role with its own name.
    pub roles: BTreeMap<String, String>,
}

/// The attribute of a user that equals the subject of its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectAttribute {
    /// `externalId`.
    ExternalId,
    /// `userName`.
    UserName,
    /// `id`.
    Id,
}

/// The URL of a resource. Its id may contain characters that must be escaped in a path segment.
fn location(base: &str, kind: &str, id: &str) -> String {
    let id = percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC).to_string();
    // RFC 3986 §2.3: these need no escape, and most ids contain only unreserved characters.
    let id = id.replace("%2D", "-").replace("%2E", ".").replace("%5F", "_").replace("%7E", "~");
    format!("{base}/{kind}/{id}")
}

/// The entity tag of a revision.
fn version(revision: u64) -> String {
    format!("W/\"{revision}\"")
}

/// `meta` of a resource (RFC 7643 §3.1).
fn meta(kind: &str, (created, modified): (Timestamp, Timestamp), revision: u64, location: &str) -> Value {
    json!({
        "resourceType": kind,
        "created": created.to_string(),
        "lastModified": modified.to_string(),
        "version": version(revision),
        "location": location,
    })
}
