//! The header fields by which a request of the Model Context Protocol describes itself.
//!
//! Servers reject a request whose body differs from the fields (revision 2026-07-28, Streamable HTTP), so the
//! fields are enough for a decision without reading the body. Older revisions do not promise that, so their
//! requests are rejected.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName};

use super::glob;

/// The field with the method in the body.
pub const METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// The field with the name or URI that the method concerns.
pub const NAME: HeaderName = HeaderName::from_static("mcp-name");
/// The field with the revision of the protocol.
pub const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// The first revision whose servers compare the fields with the body.
const FIRST_REVISION: &str = "2026-07-28";
/// The methods whose requests must carry a name.
const WITH_NAME: [&str; 3] = ["tools/call", "prompts/get", "resources/read"];
/// Prefix of a value that is base64-encoded because a field cannot carry it as it is.
const ENCODED: &str = "=?base64?";

/// The MCP requests that a route matches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct McpSettings {
    /// Methods; empty: any request, including other protocols.
    pub methods: Vec<String>,
    /// Names; empty: any name, or none.
    pub names: Vec<McpName>,
}

/// A name or a pattern for names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum McpName {
    /// This name.
    Exact(String),
    /// All names that match a pattern with `*`.
    Glob(String),
}

/// How specifically a route matches a request. A later variant takes precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum McpFit {
    /// The route matches any request.
    Any,
    /// It names the method.
    Method,
    /// It has a pattern for the name.
    Glob,
    /// It names the exact name.
    Exact,
}

/// Why a request to routes with MCP methods is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum McpFault {
    /// The field is absent or empty.
    Absent(&'static str),
    /// The field is repeated.
    Repeated(&'static str),
    /// The value is not ASCII, has control characters, or is base64 that cannot be decoded into text.
    Unreadable(&'static str),
    /// The revision is not a date.
    NoDate,
    /// The revision is one whose servers do not compare the fields with the body.
    TooOld,
}

/// The method and name that a request states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct McpCall<'h> {
    /// The method.
    pub method: Cow<'h, str>,
    /// What the method concerns.
    pub name: Option<Cow<'h, str>>,
}

impl McpName {
    /// Parses a name of the configuration.
    #[must_use]
    pub fn new(text: &str) -> Self {
        if text.contains('*') { Self::Glob(text.to_owned()) } else { Self::Exact(text.to_owned()) }
    }

    /// The name as it is written in the configuration.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Exact(text) | Self::Glob(text) => text,
        }
    }

    fn fit(&self, name: &str) -> Option<McpFit> {
        match self {
            Self::Exact(own) => (own == name).then_some(McpFit::Exact),
            Self::Glob(pattern) => glob::is_match(pattern, name).then_some(McpFit::Glob),
        }
    }

    /// Whether one request could match both equally well.
    fn ties(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(own), Self::Exact(other)) => own == other,
            (Self::Glob(own), Self::Glob(other)) => glob::overlap(own, other),
            (Self::Exact(_), Self::Glob(_)) | (Self::Glob(_), Self::Exact(_)) => false,
        }
    }
}

impl McpSettings {
    /// Whether it matches MCP requests only.
    pub(super) fn is_named(&self) -> bool {
        !self.methods.is_empty()
    }

    /// How specifically it matches the call; `None` if it does not.
    pub(super) fn fit(&self, call: &McpCall<'_>) -> Option<McpFit> {
        if !self.is_named() {
            return Some(McpFit::Any);
        }
        if !self.has_method(&call.method) {
            return None;
        }
        if self.names.is_empty() {
            return Some(McpFit::Method);
        }
        let name = call.name.as_deref()?;
        self.names.iter().filter_map(|own| own.fit(name)).max()
    }

    /// Whether its names decide on a request that lacks the name its method requires.
    pub(super) fn needs_name(&self, call: &McpCall<'_>) -> bool {
        let is_lacking = call.name.is_none() && WITH_NAME.contains(&&*call.method);
        is_lacking && self.has_method(&call.method) && !self.names.is_empty()
    }

    /// What one request could match equally well in both, and the key at fault.
    pub(super) fn tie(&self, other: &Self) -> Option<(&'static str, String)> {
        let method = match (self.is_named(), other.is_named()) {
            (false, false) => return Some(("path", String::new())),
            (true, true) => self.methods.iter().find(|method| other.has_method(method))?,
            (true, false) | (false, true) => return None,
        };
        match (self.names.is_empty(), other.names.is_empty()) {
            (true, true) => Some(("mcp_methods", format!("{method:?}"))),
            (false, false) => {
                let tied = |own: &&McpName| other.names.iter().any(|other| own.ties(other));
                self.names.iter().find(tied).map(|name| ("mcp_names", format!("{:?}", name.as_str())))
            }
            (true, false) | (false, true) => None,
        }
    }

    fn has_method(&self, method: &str) -> bool {
        self.methods.iter().any(|own| own == method)
    }
}

impl<'h> McpCall<'h> {
    /// Reads the MCP fields of a request.
    ///
    /// # Errors
    /// Why the fields cannot be used for a decision.
    pub fn read(headers: &'h HeaderMap) -> Result<Self, McpFault> {
        let version = text(headers, &VERSION, "MCP-Protocol-Version")?;
        check_revision(version.ok_or(McpFault::Absent("MCP-Protocol-Version"))?)?;
        let method = text(headers, &METHOD, "Mcp-Method")?.filter(|method| !method.is_empty());
        let method = decode(method.ok_or(McpFault::Absent("Mcp-Method"))?, "Mcp-Method")?;
        let name = text(headers, &NAME, "Mcp-Name")?.map(|name| decode(name, "Mcp-Name")).transpose()?;
        Ok(Self { method, name })
    }
}

impl std::fmt::Display for McpFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Absent(field) => write!(f, "the header {field} is missing"),
            Self::Repeated(field) => write!(f, "the header {field} is repeated"),
            Self::Unreadable(field) => {
                write!(f, "the value of {field} is neither visible ASCII nor base64-encoded text")
            }
            Self::NoDate => f.write_str("the value of MCP-Protocol-Version is not a date"),
            Self::TooOld => {
                write!(
                    f,
                    "MCP-Protocol-Version is earlier than {FIRST_REVISION}, the first version whose servers compare headers and body"
                )
            }
        }
    }
}

/// The single value of a field.
fn text<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
    shown: &'static str,
) -> Result<Option<&'h str>, McpFault> {
    let mut fields = headers.get_all(name).iter();
    let Some(value) = fields.next() else { return Ok(None) };
    if fields.next().is_some() {
        return Err(McpFault::Repeated(shown));
    }
    let value = value.to_str().ok().filter(|value| !value.contains(char::is_control));
    value.map(Some).ok_or(McpFault::Unreadable(shown))
}

/// Decodes a value. A value that an upstream might decode but this gate does not is rejected.
fn decode<'h>(value: &'h str, shown: &'static str) -> Result<Cow<'h, str>, McpFault> {
    let is_encoded = value.get(..ENCODED.len()).is_some_and(|start| start.eq_ignore_ascii_case(ENCODED));
    if !is_encoded {
        return Ok(Cow::Borrowed(value));
    }
    let inner = value.strip_prefix(ENCODED).and_then(|rest| rest.strip_suffix("?="));
    let decoded = inner.and_then(|inner| STANDARD.decode(inner).ok());
    let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    let decoded = decoded.filter(|text| !text.contains(char::is_control));
    decoded.map(Cow::Owned).ok_or(McpFault::Unreadable(shown))
}

/// Checks the revision. It is a date, and dates in this form sort like text.
fn check_revision(version: &str) -> Result<(), McpFault> {
    let bytes = version.as_bytes();
    let number = |from: usize, to: usize| {
        let digits = bytes.get(from..to).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
        std::str::from_utf8(digits).ok()?.parse::<u16>().ok()
    };
    let is_date = bytes.len() == 10
        && bytes.get(4) == Some(&b'-')
        && bytes.get(7) == Some(&b'-')
        && number(0, 4).is_some()
        && number(5, 7).is_some_and(|month| (1..=12).contains(&month))
        && number(8, 10).is_some_and(|day| (1..=31).contains(&day));
    match is_date {
        false => Err(McpFault::NoDate),
        true if version < FIRST_REVISION => Err(McpFault::TooOld),
        true => Ok(()),
    }
}

#[cfg(test)]
mod tests;
