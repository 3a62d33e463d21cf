//! The one place where a sender's name for a user, a session or a token becomes what tokens are compared with
//! here: subject identifiers (RFC 9493, SSF §3), and the resulting events.
//!
//! | format | names |
//! |---|---|
//! | `iss_sub` | the subject `sub`, when `iss` is that issuer; when it is the sender itself, the subject or alias `sub` |
//! | `email` | the subject with that e-mail address; where no claim holds one (`issuers.claims.email`), whose subject it is |
//! | `opaque` | the subject with that identifier or alias |
//! | `account` | the same, with `acct:` and without |
//! | `jwt_id` | the token `jti`, when `iss` is that issuer |
//! | `aliases` | everything its identifiers name |
//! | complex | what its `user` names, and of that only the tokens of its `session`: a login session (`opaque`) or a token |
//!
//! A complex subject stands for what matches all of its members. Members that say nothing about tokens
//! (`device`, `tenant` and so on) are ignored, which may end more tokens than intended, but never fewer;
//! critical members are not ignored.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::events::EventIssuer;
use crate::state::record::{Event, EventKind, SubjectKind};
use crate::time::Timestamp;

/// The members of complex subjects (SSF §3.2).
const MEMBERS: [&str; 7] = ["user", "device", "session", "application", "tenant", "org_unit", "group"];

/// The issuer whose subjects a sender reports on, and which names its tokens carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectIssuer {
    /// The issuer.
    pub issuer: EventIssuer,
    /// Whether its tokens carry an e-mail address.
    pub has_email: bool,
    /// Whether its tokens carry aliases of the subject.
    pub has_aliases: bool,
}

/// What an identifier names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// A subject.
    Subject(SubjectKind, String),
    /// A login session, optionally of one subject only.
    Session {
        /// The session.
        session: String,
        /// The subject whose tokens of the session are affected; `None` for all.
        only: Option<(SubjectKind, String)>,
    },
    /// A token, by `jti`.
    Token(String),
}

/// Why an identifier cannot be resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nobody {
    /// It does not conform to its format; contains nothing from the identifier.
    Malformed(&'static str),
    /// It names a subject of another issuer.
    OtherIssuer,
    /// It names neither a user nor a token.
    Unknown,
    /// It is narrowed by a critical member that cannot be processed here (SSF §3.6).
    CriticalMember,
}

impl Named {
    /// Creates the event that ends what is named. Tokens and login sessions are always revoked, whatever `kind`
    /// says: a change of roles does not apply to them.
    #[must_use]
    pub fn event(&self, kind: EventKind, issuer: &EventIssuer, at: Timestamp, now: Timestamp) -> Event {
        let (name, expires_at): (&Arc<str>, _) = (&issuer.issuer, issuer.expiry(now));
        match self {
            Self::Subject(subject_kind, subject) => {
                Event::named(kind, name, (*subject_kind, subject), at, expires_at)
            }
            Self::Session { session, only } => {
                let only = only.as_ref().map(|(kind, subject)| (*kind, subject.as_str()));
                Event::session(name, session, only, at, expires_at)
            }
            Self::Token(jti) => Event::token(name, jti, at, expires_at),
        }
    }
}

impl SubjectIssuer {
    /// Returns everything that an identifier without an issuer may name: the subject, or an alias.
    #[must_use]
    pub fn by_identifier(&self, id: &str) -> Vec<Named> {
        let alias = self.has_aliases.then(|| Named::Subject(SubjectKind::Alias, id.to_owned()));
        [Named::Subject(SubjectKind::Subject, id.to_owned())].into_iter().chain(alias).collect()
    }

    /// Returns the subject that an e-mail address names.
    #[must_use]
    pub fn by_email(&self, address: &str) -> Named {
        let kind = if self.has_email { SubjectKind::Email } else { SubjectKind::Subject };
        Named::Subject(kind, address.to_owned())
    }
}

/// Reads identifiers on behalf of one issuer.
#[derive(Debug, Clone, Copy)]
pub struct SubjectReader<'a> {
    /// The issuer whose subjects are meant.
    pub issuer: &'a SubjectIssuer,
    /// The sender's own issuer: an identity provider whose access tokens have another issuer, such as one of
    /// several authorization servers, names its users by its own `iss`.
    pub sender: &'a str,
    /// Members of complex subjects that must not be ignored.
    pub critical: &'a [String],
    /// Whether to accept older spellings of formats, and complex subjects without one.
    pub tolerant: bool,
}

impl SubjectReader<'_> {
    /// Returns what an identifier names: at least one subject, session or token.
    ///
    /// # Errors
    /// When it names nothing here.
    pub fn read(self, identifier: &Value) -> Result<Vec<Named>, Nobody> {
        let members = object(identifier)?;
        match self.format(members)?.as_str() {
            "complex" => self.complex(members),
            _ => self.plain(members),
        }
    }

    fn format(self, members: &Map<String, Value>) -> Result<String, Nobody> {
        let older = || members.get("subject_type").filter(|_| self.tolerant);
        match members.get("format").or_else(older) {
            Some(Value::String(format)) if self.tolerant => Ok(format.replace('-', "_")),
            Some(Value::String(format)) => Ok(format.clone()),
            None if self.tolerant && MEMBERS.iter().any(|member| members.contains_key(*member)) => {
                Ok("complex".to_owned())
            }
            Some(_) | None => Err(Nobody::Malformed("a subject identifier has no `format`")),
        }
    }

    fn complex(self, members: &Map<String, Value>) -> Result<Vec<Named>, Nobody> {
        let user = members.get("user").map(|value| self.plain(object(value)?));
        let session = members.get("session").map(|value| self.session(object(value)?));
        for read in [&user, &session] {
            if let Some(Err(malformed @ Nobody::Malformed(_))) = read {
                return Err(*malformed);
            }
        }
        let processed = |member: &str| match member {
            "user" => matches!(user, Some(Ok(_))),
            "session" => matches!(session, Some(Ok(_))),
            _ => false,
        };
        if members.keys().any(|member| self.critical.contains(member) && !processed(member)) {
            return Err(Nobody::CriticalMember);
        }
        match (user, session) {
            // No token can match both.
            (Some(Err(Nobody::OtherIssuer)), _) | (_, Some(Err(Nobody::OtherIssuer))) => {
                Err(Nobody::OtherIssuer)
            }
            (Some(Ok(users)), Some(Ok(sessions))) => Ok(narrowed(&users, sessions)),
            (Some(Ok(named)), _) | (_, Some(Ok(named))) => Ok(named),
            (Some(Err(why)), _) | (_, Some(Err(why))) => Err(why),
            (None, None) => Err(Nobody::Unknown),
        }
    }

    /// Parses a login session or a token; any other identifier is unknown.
    fn session(self, members: &Map<String, Value>) -> Result<Vec<Named>, Nobody> {
        let format = self.format(members)?;
        if format == "opaque" {
            let session = text(members, "id")?;
            return Ok(vec![Named::Session { session, only: None }]);
        }
        let mut named = self.plain(members)?;
        named.retain(|named| matches!(named, Named::Token(_)));
        if named.is_empty() { Err(Nobody::Unknown) } else { Ok(named) }
    }

    /// Parses any identifier except a complex subject.
    fn plain(self, members: &Map<String, Value>) -> Result<Vec<Named>, Nobody> {
        let format = self.format(members)?;
        if format != "aliases" {
            return self.simple(&format, members);
        }
        let identifiers = members.get("identifiers").and_then(Value::as_array);
        let identifiers = identifiers.filter(|identifiers| !identifiers.is_empty());
        let identifiers = identifiers.ok_or(Nobody::Malformed("`identifiers` must be a non-empty array"))?;
        gather(identifiers.iter().map(|identifier| {
            let members = object(identifier)?;
            self.simple(&self.format(members)?, members)
        }))
    }

    fn simple(self, format: &str, members: &Map<String, Value>) -> Result<Vec<Named>, Nobody> {
        let of_issuer = |named: Named| {
            let is_ours = text(members, "iss")? == *self.issuer.issuer.issuer;
            if is_ours { Ok(vec![named]) } else { Err(Nobody::OtherIssuer) }
        };
        match format {
            "iss_sub"
                if text(members, "iss")? == self.sender && self.sender != &*self.issuer.issuer.issuer =>
            {
                Ok(self.issuer.by_identifier(&text(members, "sub")?))
            }
            "iss_sub" => of_issuer(Named::Subject(SubjectKind::Subject, text(members, "sub")?)),
            "jwt_id" => of_issuer(Named::Token(text(members, "jti")?)),
            "opaque" => Ok(self.issuer.by_identifier(&text(members, "id")?)),
            "email" => Ok(vec![self.issuer.by_email(&text(members, "email")?)]),
            "account" => {
                let uri = text(members, "uri")?;
                let account = uri.strip_prefix("acct:").filter(|account| !account.is_empty());
                let account =
                    account.ok_or(Nobody::Malformed("`uri` of an account must begin with acct:"))?;
                Ok([account, &uri].into_iter().flat_map(|name| self.issuer.by_identifier(name)).collect())
            }
            "aliases" | "complex" => Err(Nobody::Malformed("a subject identifier must not be nested here")),
            _ => Err(Nobody::Unknown),
        }
    }
}

/// Combines users and sessions: the sessions of those users. A token is already specific, so users do not narrow it.
fn narrowed(users: &[Named], sessions: Vec<Named>) -> Vec<Named> {
    let subjects = || {
        users.iter().filter_map(|user| match user {
            Named::Subject(kind, subject) => Some((*kind, subject.clone())),
            Named::Session { .. } | Named::Token(_) => None,
        })
    };
    let of_each = |named: Named| match named {
        Named::Session { session, .. } => {
            let of = |only| Named::Session { session: session.clone(), only: Some(only) };
            subjects().map(of).collect()
        }
        token => vec![token],
    };
    sessions.into_iter().flat_map(of_each).collect()
}

/// Collects everything that is named; if nothing is, returns why for the first identifier.
fn gather(read: impl Iterator<Item = Result<Vec<Named>, Nobody>>) -> Result<Vec<Named>, Nobody> {
    let (mut all, mut nobody) = (Vec::new(), None);
    for named in read {
        match named {
            Ok(named) => all.extend(named),
            Err(malformed @ Nobody::Malformed(_)) => return Err(malformed),
            Err(why) => nobody = nobody.or(Some(why)),
        }
    }
    if all.is_empty() { Err(nobody.unwrap_or(Nobody::Unknown)) } else { Ok(all) }
}

fn object(value: &Value) -> Result<&Map<String, Value>, Nobody> {
    value.as_object().ok_or(Nobody::Malformed("a subject identifier must be an object"))
}

fn text(members: &Map<String, Value>, name: &str) -> Result<String, Nobody> {
    let text = members.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    text.map(str::to_owned)
        .ok_or(Nobody::Malformed("a subject identifier lacks a member that its format requires"))
}
