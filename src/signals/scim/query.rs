//! Parses list queries (RFC 7644 §3.4.2): filter, page, and requested attributes.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::directory::{ScimDirectory, folded};
use super::emails::EmailAddress;
use super::error::ScimError;
use super::filter::{self, Comparison, bare};
use super::group::ScimGroup;
use super::user::ScimUser;

/// The largest page, and the default page size.
pub(super) const MOST_ON_PAGE: usize = 1_000;
const ON_PAGE: usize = 100;

/// The most attributes that a query may name.
const MOST_NAMES: usize = 100;

/// The query of a request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ScimQuery {
    pub(super) filter: Vec<Comparison>,
    /// The index of the first resource, counted from 0.
    pub(super) first: usize,
    pub(super) count: usize,
    pub(super) wanted: WantedAttributes,
}

/// Which attributes a response includes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WantedAttributes {
    All,
    Only(Vec<String>),
    Except(Vec<String>),
}

impl ScimQuery {
    pub(super) fn parse(query: Option<&[u8]>) -> Result<Self, ScimError> {
        let mut parsed = Self { filter: Vec::new(), first: 0, count: ON_PAGE, wanted: WantedAttributes::All };
        let mut seen: Vec<String> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default()) {
            let name = name.to_ascii_lowercase();
            if seen.contains(&name) {
                return Err(ScimError::value(format!("the query parameter {name:?} is repeated")));
            }
            match name.as_str() {
                "filter" => parsed.filter = filter::parse(&value)?,
                "startindex" => parsed.first = number(&name, &value)?.saturating_sub(1),
                "count" => parsed.count = number(&name, &value)?.min(MOST_ON_PAGE),
                "attributes" | "excludedattributes" if parsed.wanted != WantedAttributes::All => {
                    return Err(ScimError::value("attributes and excludedAttributes cannot be combined"));
                }
                "attributes" if !value.is_empty() => parsed.wanted = WantedAttributes::Only(names(&value)?),
                "excludedattributes" if !value.is_empty() => {
                    parsed.wanted = WantedAttributes::Except(names(&value)?);
                }
                // Sorting is not supported, as the service provider configuration says; other parameters have no meaning.
                _ => {}
            }
            if seen.len() == MOST_NAMES {
                return Err(ScimError::value("the query has too many parameters"));
            }
            seen.push(name);
        }
        Ok(parsed)
    }
}

/// Parses a number; a negative one counts as zero (RFC 7644 §3.4.2.4).
fn number(name: &str, value: &str) -> Result<usize, ScimError> {
    let number: i64 =
        value.trim().parse().map_err(|_invalid| ScimError::value(format!("{name} must be a number")))?;
    Ok(usize::try_from(number).unwrap_or(0))
}

fn names(list: &str) -> Result<Vec<String>, ScimError> {
    let names: Vec<String> =
        list.split(',').map(|name| bare(name.trim())).filter(|name| !name.is_empty()).collect();
    if names.len() > MOST_NAMES {
        return Err(ScimError::value("attributes lists too many attributes"));
    }
    Ok(names)
}

impl WantedAttributes {
    /// Whether an attribute, or a part of it, is included; `name` is in lower case.
    pub(super) fn has(&self, name: &str) -> bool {
        let is_part = |named: &String| named.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
        match self {
            Self::All => true,
            Self::Only(names) => names.iter().any(|named| named == name || is_part(named)),
            Self::Except(names) => !names.iter().any(|named| named == name),
        }
    }

    /// Removes the unwanted attributes from a resource. `id` and `schemas` always stay (RFC 7643 §2.2).
    pub(super) fn narrow(&self, resource: &mut Map<String, Value>) {
        if *self == Self::All {
            return;
        }
        resource.retain(|name, _| {
            matches!(name.as_str(), "id" | "schemas") || self.has(&name.to_ascii_lowercase())
        });
        for (name, value) in resource.iter_mut() {
            let prefix = format!("{}.", name.to_ascii_lowercase());
            self.narrow_parts(&prefix, value);
        }
    }

    fn narrow_parts(&self, prefix: &str, value: &mut Value) {
        let shows = |part: &str| {
            let part = format!("{prefix}{}", part.to_ascii_lowercase());
            match self {
                Self::All => true,
                Self::Only(names) => {
                    names.contains(&part) || names.iter().any(|named| format!("{named}.") == prefix)
                }
                Self::Except(names) => !names.contains(&part),
            }
        };
        match value {
            Value::Object(parts) => parts.retain(|part, _| shows(part)),
            Value::Array(elements) => elements.iter_mut().for_each(|element| {
                if let Value::Object(parts) = element {
                    parts.retain(|part, _| shows(part));
                }
            }),
            _ => {}
        }
    }
}

/// One condition on a user.
enum UserTerm<'a> {
    Id(&'a str),
    UserName(Box<str>),
    ExternalId(&'a str),
    DisplayName(Box<str>),
    Active(bool),
    Address(Box<str>, &'a [Comparison]),
}

/// One condition on a group.
enum GroupTerm<'a> {
    Id(&'a str),
    DisplayName(Box<str>),
    ExternalId(&'a str),
    Member(&'a str),
}

fn unknown(comparison: &Comparison) -> ScimError {
    ScimError::filter(format!("filtering by {:?} is not supported", comparison.attribute))
}

impl<'a> UserTerm<'a> {
    fn of(comparison: &'a Comparison) -> Result<Self, ScimError> {
        let is_address = matches!(comparison.attribute.as_str(), "emails" | "emails.value");
        if !comparison.within.is_empty() && !is_address {
            return Err(unknown(comparison));
        }
        // Evaluate the brackets once on an empty address, so that an invalid filter is rejected now.
        EmailAddress::default().matches_all(&comparison.within).map_err(|_path| unknown(comparison))?;
        match comparison.attribute.as_str() {
            "id" => Ok(Self::Id(comparison.text()?)),
            "username" => Ok(Self::UserName(folded(comparison.text()?))),
            "externalid" => Ok(Self::ExternalId(comparison.text()?)),
            "displayname" => Ok(Self::DisplayName(folded(comparison.text()?))),
            "emails" | "emails.value" => Ok(Self::Address(folded(comparison.text()?), &comparison.within)),
            "active" => comparison.value.as_bool().map(Self::Active).ok_or_else(|| unknown(comparison)),
            _ => Err(unknown(comparison)),
        }
    }

    fn holds(&self, user: &ScimUser) -> bool {
        match self {
            Self::Id(id) => *user.id == **id,
            Self::UserName(name) => folded(&user.fields.user_name) == *name,
            Self::ExternalId(id) => user.fields.external_id.as_deref() == Some(id),
            Self::DisplayName(name) => {
                user.fields.display_name.as_deref().is_some_and(|own| folded(own) == *name)
            }
            Self::Active(active) => user.is_active() == *active,
            Self::Address(address, within) => user
                .fields
                .emails
                .iter()
                .any(|own| folded(&own.value) == *address && own.matches_all(within).unwrap_or(false)),
        }
    }

    /// The users that an index finds for this term; `None` if no index can.
    fn candidates<'d>(&self, directory: &'d ScimDirectory) -> Option<Vec<&'d Arc<ScimUser>>> {
        match self {
            Self::Id(id) => Some(directory.user(id).into_iter().collect()),
            Self::UserName(name) => Some(directory.user_named(name).into_iter().collect()),
            Self::ExternalId(id) => Some(directory.users_with_external_id(id).collect()),
            Self::Address(address, _) => Some(directory.users_with_address(address).collect()),
            Self::DisplayName(_) | Self::Active(_) => None,
        }
    }
}

impl<'a> GroupTerm<'a> {
    fn of(comparison: &'a Comparison) -> Result<Self, ScimError> {
        if !comparison.within.is_empty() {
            return Err(unknown(comparison));
        }
        match comparison.attribute.as_str() {
            "id" => Ok(Self::Id(comparison.text()?)),
            "displayname" => Ok(Self::DisplayName(folded(comparison.text()?))),
            "externalid" => Ok(Self::ExternalId(comparison.text()?)),
            "members" | "members.value" => Ok(Self::Member(comparison.text()?)),
            _ => Err(unknown(comparison)),
        }
    }

    fn holds(&self, directory: &ScimDirectory, group: &ScimGroup) -> bool {
        match self {
            Self::Id(id) => *group.id == **id,
            Self::DisplayName(name) => folded(&group.display_name) == *name,
            Self::ExternalId(id) => group.external_id.as_deref() == Some(id),
            Self::Member(id) => directory.user(id).is_some_and(|user| user.groups.contains(&group.id)),
        }
    }
}

/// Finds the users that match all comparisons, in order: their number, and those on the page.
pub(super) fn users<'d>(
    directory: &'d ScimDirectory,
    query: &ScimQuery,
) -> Result<(usize, Vec<&'d Arc<ScimUser>>), ScimError> {
    let terms = query.filter.iter().map(UserTerm::of).collect::<Result<Vec<_>, _>>()?;
    if terms.is_empty() {
        let page = directory.users().skip(query.first).take(query.count).collect();
        return Ok((directory.counts().0, page));
    }
    let holds = |user: &&'d Arc<ScimUser>| terms.iter().all(|term| term.holds(user));
    let found: Vec<_> = match terms.iter().find_map(|term| term.candidates(directory)) {
        Some(candidates) => candidates.into_iter().filter(holds).collect(),
        None => directory.users().filter(holds).collect(),
    };
    Ok((found.len(), found.into_iter().skip(query.first).take(query.count).collect()))
}

/// Finds the groups that match all comparisons, in order: their number, and those on the page.
pub(super) fn groups<'d>(
    directory: &'d ScimDirectory,
    query: &ScimQuery,
) -> Result<(usize, Vec<&'d Arc<ScimGroup>>), ScimError> {
    let terms = query.filter.iter().map(GroupTerm::of).collect::<Result<Vec<_>, _>>()?;
    let holds = |group: &&Arc<ScimGroup>| terms.iter().all(|term| term.holds(directory, group));
    let found: Vec<_> = directory.groups().filter(holds).collect();
    Ok((found.len(), found.into_iter().skip(query.first).take(query.count).collect()))
}

#[cfg(test)]
mod tests;
