//! A SCIM 2.0 service provider (RFC 7643, RFC 7644): an identity provider keeps its users and groups here, and what it
//! changes about them ends tokens.
//!
//! A group is a role of its members. A request takes one way: it is read (`patch`, `filter`, `user`, `group`) and
//! planned against the directory (`plan`), both without any I/O; the events it comes down to are made durable and put in
//! force; the directory is changed, if it still is what the plan was made for; then the answer is given. A crash in between
//! leaves tokens ended that need not be, and never the reverse: the provider, which was not answered, sends the request again,
//! and the directory says again what is different.

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

/// The longest body, in bytes.
pub const MAX_BODY: usize = 1 << 20;

/// One provider, as configured (`[[scim]]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The segment of the path that its endpoints are below.
    pub name: String,
    /// Its bearer tokens: each of them is good.
    pub tokens: Vec<Concealed>,
    /// Whose subjects its users are.
    pub issuer: EventIssuer,
    /// What of a user equals the subject of its tokens.
    pub subject: SubjectAttribute,
    /// The roles of groups by their display names. A group that is not named here is the role of its own name.
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

/// The URL of a resource. Its id may hold what a segment cannot.
fn location(base: &str, kind: &str, id: &str) -> String {
    let id = percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC).to_string();
    // RFC 3986 §2.3: these need no escape, and most ids consist of them.
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
