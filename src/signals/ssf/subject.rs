//! Subject identifiers (RFC 9493, SSF §3): whom among the tokens of one issuer they name.
//!
//! | format | names |
//! |---|---|
//! | `iss_sub` | the subject `sub`, when `iss` is that issuer |
//! | `opaque`, `email`, `account` | the subject whose `sub` is that identifier, address, or account without `acct:` |
//! | `jwt_id` | the token `jti`, when `iss` is that issuer |
//! | `aliases` | everything its identifiers name |
//! | complex | what its `user` names, and the token that its `session` names |
//!
//! A complex subject stands for what matches all of its members. Those that say nothing of tokens (`device`, `tenant`
//! and so on) are passed over, which ends more than was meant, never less; one that is critical is not.

use serde_json::{Map, Value};

use super::{PassedOver, SignalRefusal, malformed};

/// The members of complex subjects (SSF §3.2).
const MEMBERS: [&str; 7] = ["user", "device", "session", "application", "tenant", "org_unit", "group"];

/// What an identifier names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Named {
    /// A subject, by `sub`.
    Subject(String),
    /// A token, by `jti`.
    Token(String),
}

/// Why an identifier names nothing here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Nobody {
    /// It is not of the form that its format demands.
    Malformed(SignalRefusal),
    /// It is, and names something else.
    PassedOver(PassedOver),
}

/// Reads identifiers on behalf of one issuer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    /// Whose subjects are meant.
    pub(super) issuer: &'a str,
    /// Members of complex subjects that must not be passed over.
    pub(super) critical: &'a [String],
    /// Take older spellings of formats, and complex subjects without one.
    pub(super) tolerant: bool,
}

impl Reader<'_> {
    /// Whom an identifier names: at least one, unless it is an error.
    pub(super) fn read(self, identifier: &Value) -> Result<Vec<Named>, Nobody> {
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
            Some(_) | None => Err(wrong("a subject identifier has no `format`")),
        }
    }

    fn complex(self, members: &Map<String, Value>) -> Result<Vec<Named>, Nobody> {
        let of = |member: &str| members.get(member).map(|value| self.plain(object(value)?));
        let user = of("user");
        let token = |named: &Named| matches!(named, Named::Token(_));
        // A session under any other name than its token's is not known here, and is nobody's `sub`.
        let session = of("session").map(|named| {
            let tokens: Vec<Named> = named?.into_iter().filter(token).collect();
            if tokens.is_empty() { Err(unknown()) } else { Ok(tokens) }
        });
        let processed = |member: &str| match member {
            "user" => matches!(user, Some(Ok(_))),
            "session" => matches!(session, Some(Ok(_))),
            _ => false,
        };
        let is_critical = |member: &&String| self.critical.contains(member) && !processed(member);
        let critical = members.keys().find(is_critical).is_some();
        let named = gather(user.into_iter().chain(session));
        if critical && !matches!(named, Err(Nobody::Malformed(_))) {
            return Err(Nobody::PassedOver(PassedOver::CriticalMember));
        }
        named
    }

    /// Any identifier but a complex subject.
    fn plain(self, members: &Map<String, Value>) -> Result<Vec<Named>, Nobody> {
        let format = self.format(members)?;
        if format != "aliases" {
            return self.simple(&format, members).map(|named| vec![named]);
        }
        let identifiers = members.get("identifiers").and_then(Value::as_array);
        let identifiers = identifiers.filter(|identifiers| !identifiers.is_empty());
        let identifiers = identifiers.ok_or(wrong("`identifiers` must be an array that is not empty"))?;
        gather(identifiers.iter().map(|identifier| {
            let members = object(identifier)?;
            self.simple(&self.format(members)?, members).map(|named| vec![named])
        }))
    }

    fn simple(self, format: &str, members: &Map<String, Value>) -> Result<Named, Nobody> {
        let text = |name: &str| {
            let text = members.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
            text.map(str::to_owned).ok_or(wrong("a subject identifier lacks what its format demands"))
        };
        let of_issuer = |named: Named| {
            let other = Nobody::PassedOver(PassedOver::OtherIssuer);
            if text("iss")? == self.issuer { Ok(named) } else { Err(other) }
        };
        match format {
            "iss_sub" => of_issuer(Named::Subject(text("sub")?)),
            "jwt_id" => of_issuer(Named::Token(text("jti")?)),
            "opaque" => text("id").map(Named::Subject),
            "email" => text("email").map(Named::Subject),
            "account" => {
                let uri = text("uri")?;
                let account = uri.strip_prefix("acct:").filter(|account| !account.is_empty());
                let account = account.ok_or(wrong("`uri` of an account must begin with acct:"))?;
                Ok(Named::Subject(account.to_owned()))
            }
            "aliases" | "complex" => Err(wrong("a subject identifier is nested where it must be simple")),
            _ => Err(unknown()),
        }
    }
}

/// Everything that is named; when nothing is, why the first identifier names nothing.
fn gather(read: impl Iterator<Item = Result<Vec<Named>, Nobody>>) -> Result<Vec<Named>, Nobody> {
    let (mut all, mut nobody) = (Vec::new(), None);
    for named in read {
        match named {
            Ok(named) => all.extend(named),
            Err(Nobody::PassedOver(why)) => nobody = nobody.or(Some(why)),
            Err(malformed @ Nobody::Malformed(_)) => return Err(malformed),
        }
    }
    if all.is_empty() { Err(nobody.map_or_else(unknown, Nobody::PassedOver)) } else { Ok(all) }
}

fn object(value: &Value) -> Result<&Map<String, Value>, Nobody> {
    value.as_object().ok_or(wrong("a subject identifier is no object"))
}

const fn unknown() -> Nobody {
    Nobody::PassedOver(PassedOver::UnknownSubject)
}

const fn wrong(description: &'static str) -> Nobody {
    Nobody::Malformed(malformed(description))
}
