//! The e-mail addresses of a user: a list of objects that PATCH paths may choose from.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::ScimError;
use super::filter::Comparison;
use super::members::{ScimMembers, boolean, elements, filled_text, optional_text};
use super::patch::{PatchPath, PatchVerb};

/// The most addresses of one user.
const MOST: usize = 100;

/// One address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EmailAddress {
    pub(super) value: Box<str>,
    /// The type, such as `work`.
    pub(super) kind: Option<Box<str>>,
    display: Option<Box<str>>,
    primary: Option<bool>,
}

impl EmailAddress {
    fn parse(value: Value) -> Result<Self, ScimError> {
        if let Value::String(_) = value {
            return Ok(Self { value: filled_text("emails.value", &value)?, ..Self::default() });
        }
        let mut members = ScimMembers::of(value, "an element of emails")?;
        let mut address = Self::default();
        for sub in ["value", "type", "display", "primary"] {
            if let Some(value) = members.take(sub) {
                address.put(sub, &value)?;
            }
        }
        if address.value.is_empty() {
            return Err(ScimError::value("an element of emails has no value"));
        }
        Ok(address)
    }

    fn put(&mut self, sub: &str, value: &Value) -> Result<(), ScimError> {
        match sub {
            "value" => self.value = filled_text("emails.value", value)?,
            "type" => self.kind = optional_text("emails.type", value)?,
            "display" => self.display = optional_text("emails.display", value)?,
            "primary" if value.is_null() => self.primary = None,
            "primary" => self.primary = Some(boolean("emails.primary", value)?),
            _ => return Err(ScimError::path("emails has no such sub-attribute")),
        }
        Ok(())
    }

    fn matches(&self, comparison: &Comparison) -> Result<bool, ScimError> {
        let same = |text: Option<&str>, with: &str| text.is_some_and(|text| text.eq_ignore_ascii_case(with));
        match comparison.attribute.as_str() {
            "value" => Ok(same(Some(&self.value), comparison.text()?)),
            "type" => Ok(same(self.kind.as_deref(), comparison.text()?)),
            "display" => Ok(same(self.display.as_deref(), comparison.text()?)),
            "primary" => Ok(Value::Bool(self.primary.unwrap_or(false)) == comparison.value),
            _ => Err(ScimError::path("emails has no such sub-attribute")),
        }
    }

    /// Whether all of these comparisons match.
    pub(super) fn matches_all(&self, within: &[Comparison]) -> Result<bool, ScimError> {
        within.iter().try_fold(true, |so_far, comparison| Ok(self.matches(comparison)? && so_far))
    }

    pub(super) fn to_json(&self) -> Value {
        let mut shown = Map::new();
        shown.insert("value".to_owned(), (&*self.value).into());
        let texts = [("type", &self.kind), ("display", &self.display)];
        for (name, text) in texts {
            if let Some(text) = text {
                shown.insert(name.to_owned(), (&**text).into());
            }
        }
        if let Some(primary) = self.primary {
            shown.insert("primary".to_owned(), primary.into());
        }
        Value::Object(shown)
    }
}

/// Parses all addresses of a user.
pub(super) fn parse(value: Value) -> Result<Vec<EmailAddress>, ScimError> {
    let addresses = elements(value).into_iter().map(EmailAddress::parse).collect::<Result<Vec<_>, _>>()?;
    check(&addresses)?;
    Ok(addresses)
}

/// Checks that at most one address is primary (RFC 7643 §2.4), and their number.
fn check(addresses: &[EmailAddress]) -> Result<(), ScimError> {
    if addresses.len() > MOST {
        return Err(ScimError::value(format!("a user has at most {MOST} emails")));
    }
    if addresses.iter().filter(|address| address.primary == Some(true)).count() > 1 {
        return Err(ScimError::value("only one of the emails can be primary"));
    }
    Ok(())
}

/// Applies one operation.
pub(super) fn apply(
    addresses: &mut Vec<EmailAddress>,
    verb: PatchVerb,
    path: &PatchPath,
    value: Value,
) -> Result<(), ScimError> {
    if path.is_whole() {
        match verb {
            PatchVerb::Replace => *addresses = parse(value)?,
            PatchVerb::Add => add(addresses, value)?,
            PatchVerb::Remove if value.is_null() => addresses.clear(),
            PatchVerb::Remove => {
                let gone = parse(value)?;
                addresses.retain(|address| !gone.iter().any(|gone| gone.value == address.value));
            }
        }
        return check(addresses);
    }
    let mut chosen = Vec::new();
    for (at, address) in addresses.iter().enumerate() {
        if address.matches_all(&path.within)? {
            chosen.push(at);
        }
    }
    match (verb, &path.sub) {
        (PatchVerb::Remove, None) => retain(addresses, &chosen),
        (PatchVerb::Remove, Some(sub)) if sub == "value" => retain(addresses, &chosen),
        (PatchVerb::Remove, Some(sub)) => {
            for at in chosen {
                if let Some(address) = addresses.get_mut(at) {
                    address.put(sub, &Value::Null)?;
                }
            }
        }
        (PatchVerb::Replace, _) if chosen.is_empty() => {
            return Err(ScimError::no_target("no e-mail address matches the path"));
        }
        (_, sub) => change(addresses, &chosen, (&path.within, sub.as_deref()), &value)?,
    }
    check(addresses)
}

/// Adds addresses, or changes those that exist. A new primary address replaces the former one (RFC 7644 §3.5.2).
fn add(addresses: &mut Vec<EmailAddress>, value: Value) -> Result<(), ScimError> {
    for new in parse(value)? {
        if new.primary == Some(true) {
            addresses
                .iter_mut()
                .filter(|old| old.primary == Some(true))
                .for_each(|old| old.primary = Some(false));
        }
        match addresses.iter_mut().find(|old| old.value == new.value) {
            Some(old) => *old = new,
            None => addresses.push(new),
        }
    }
    Ok(())
}

fn retain(addresses: &mut Vec<EmailAddress>, gone: &[usize]) {
    let mut at = 0;
    addresses.retain(|_| {
        at += 1;
        !gone.contains(&(at - 1))
    });
}

/// Changes the chosen addresses. If none matches, `add` creates one, as Entra expects.
fn change(
    addresses: &mut Vec<EmailAddress>,
    chosen: &[usize],
    (within, sub): (&[Comparison], Option<&str>),
    value: &Value,
) -> Result<(), ScimError> {
    let put = |address: &mut EmailAddress| match sub {
        Some(sub) => address.put(sub, value),
        None => {
            let mut parts = ScimMembers::of(value.clone(), "an e-mail address")?;
            for sub in ["value", "type", "display", "primary"] {
                if let Some(value) = parts.take(sub) {
                    address.put(sub, &value)?;
                }
            }
            Ok(())
        }
    };
    for at in chosen {
        if let Some(address) = addresses.get_mut(*at) {
            put(address)?;
        }
    }
    if chosen.is_empty() {
        let mut address = EmailAddress::default();
        for comparison in within {
            address.put(&comparison.attribute, &comparison.value)?;
        }
        put(&mut address)?;
        if address.value.is_empty() {
            return Err(ScimError::no_target("no e-mail address matches the path"));
        }
        addresses.push(address);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
