//! A user: its stored form, its changes by requests, and its representation.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::error::ScimError;
use super::members::{ScimMembers, boolean, filled_text, optional_text};
use super::patch::{PatchOperation, PatchPath, PatchVerb, is_extension};
use super::{emails, emails::EmailAddress};
use crate::time::Timestamp;

/// The schema of users.
pub(super) const USER_SCHEMA: &str = "urn:ietf:params:scim:schemas:core:2.0:User";

/// A user of the directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ScimUser {
    pub(super) id: Box<str>,
    /// Its position in lists: the revision of the directory in which it was created.
    pub(super) order: u64,
    /// The revision of the directory in which it last changed.
    pub(super) revision: u64,
    pub(super) created: Timestamp,
    pub(super) modified: Timestamp,
    pub(super) fields: UserFields,
    /// The ids of the groups that it is a member of.
    pub(super) groups: BTreeSet<Box<str>>,
}

/// The attributes that providers set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UserFields {
    pub(super) external_id: Option<Box<str>>,
    pub(super) user_name: Box<str>,
    pub(super) display_name: Option<Box<str>>,
    pub(super) name: PersonName,
    pub(super) emails: Vec<EmailAddress>,
    /// `None` once it has been removed; the user then does not count as active.
    pub(super) active: Option<bool>,
}

/// The stored parts of a person's name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PersonName {
    formatted: Option<Box<str>>,
    family: Option<Box<str>>,
    given: Option<Box<str>>,
}

/// How an attribute in a request is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UserAttribute {
    UserName,
    ExternalId,
    DisplayName,
    Active,
    Name,
    Emails,
    Id,
    /// Set by the gate, never by a provider.
    ReadOnly,
    /// Defined by RFC 7643 or an extension, but not stored.
    NotKept,
    /// Would change what a user may do, and is rejected: roles come from groups, and passwords are not stored.
    Refused,
    Unknown,
}

impl UserAttribute {
    fn of(name: &str) -> Self {
        match name {
            "username" => Self::UserName,
            "externalid" => Self::ExternalId,
            "displayname" => Self::DisplayName,
            "active" => Self::Active,
            "name" => Self::Name,
            "emails" => Self::Emails,
            "id" => Self::Id,
            "groups" | "meta" => Self::ReadOnly,
            "schemas" | "nickname" | "profileurl" | "title" | "usertype" | "preferredlanguage" | "locale"
            | "timezone" | "phonenumbers" | "ims" | "photos" | "addresses" | "x509certificates" => {
                Self::NotKept
            }
            "roles" | "entitlements" | "password" => Self::Refused,
            other if is_extension(other) => Self::NotKept,
            _ => Self::Unknown,
        }
    }
}

impl UserFields {
    /// Parses the complete user of a POST or PUT. Attributes that are not stored are ignored (RFC 7644 §3.3).
    pub(super) fn parse(body: &[u8]) -> Result<Self, ScimError> {
        let mut members = ScimMembers::parse(body)?;
        members.expect_schema(USER_SCHEMA)?;
        let Some(user_name) = members.take("username") else {
            return Err(ScimError::value("userName is required"));
        };
        let mut fields = Self {
            external_id: None,
            user_name: filled_text("userName", &user_name)?,
            display_name: None,
            name: PersonName::default(),
            emails: Vec::new(),
            active: Some(true),
        };
        for name in ["externalid", "displayname", "active", "name", "emails"] {
            if let Some(value) = members.take(name) {
                fields.put(UserAttribute::of(name), PatchVerb::Replace, value)?;
            }
        }
        Ok(fields)
    }

    /// Applies one operation of a PATCH to the user with this id.
    pub(super) fn apply(&mut self, id: &str, operation: PatchOperation) -> Result<(), ScimError> {
        let PatchOperation { verb, path, value } = operation;
        let attribute = UserAttribute::of(&path.attribute);
        match attribute {
            UserAttribute::Unknown => return Err(ScimError::path("users have no such attribute")),
            UserAttribute::Refused => {
                let detail = "cannot be set: roles come from groups, and passwords are not stored here";
                return Err(ScimError::path(detail));
            }
            UserAttribute::NotKept => return Ok(()),
            UserAttribute::Id
                if value.as_str() == Some(id) && path.is_whole() && verb != PatchVerb::Remove =>
            {
                return Ok(());
            }
            UserAttribute::Id | UserAttribute::ReadOnly => {
                return Err(ScimError::mutability(format!("{} cannot be changed", path.attribute)));
            }
            _ => {}
        }
        match attribute {
            UserAttribute::Emails => emails::apply(&mut self.emails, verb, &path, value),
            UserAttribute::Name => self.name.apply(verb, &path, value),
            _ if !path.is_whole() => {
                Err(ScimError::path(format!("{} has no sub-attributes", path.attribute)))
            }
            _ if verb == PatchVerb::Remove => self.remove(attribute),
            _ => self.put(attribute, verb, value),
        }
    }

    fn put(&mut self, attribute: UserAttribute, verb: PatchVerb, value: Value) -> Result<(), ScimError> {
        match attribute {
            UserAttribute::UserName => self.user_name = filled_text("userName", &value)?,
            UserAttribute::ExternalId => {
                self.external_id = optional_text("externalId", &value)?;
            }
            UserAttribute::DisplayName => self.display_name = optional_text("displayName", &value)?,
            UserAttribute::Active => self.active = Some(boolean("active", &value)?),
            UserAttribute::Name => {
                let path = PatchPath { attribute: String::new(), within: Vec::new(), sub: None };
                self.name.apply(verb, &path, value)?;
            }
            UserAttribute::Emails => self.emails = emails::parse(value)?,
            _ => {}
        }
        Ok(())
    }

    fn remove(&mut self, attribute: UserAttribute) -> Result<(), ScimError> {
        match attribute {
            UserAttribute::ExternalId => self.external_id = None,
            UserAttribute::DisplayName => self.display_name = None,
            UserAttribute::Active => self.active = None,
            _ => return Err(ScimError::mutability("userName is required")),
        }
        Ok(())
    }
}

impl PersonName {
    fn apply(&mut self, verb: PatchVerb, path: &PatchPath, value: Value) -> Result<(), ScimError> {
        if !path.within.is_empty() {
            return Err(ScimError::path("name is not multi-valued, so a filter is not supported"));
        }
        match &path.sub {
            Some(sub) => self.put(sub, if verb == PatchVerb::Remove { &Value::Null } else { &value }),
            None if verb == PatchVerb::Remove || value.is_null() => {
                *self = Self::default();
                Ok(())
            }
            None => {
                let mut parts = ScimMembers::of(value, "name")?;
                for sub in ["formatted", "familyname", "givenname"] {
                    if let Some(value) = parts.take(sub) {
                        self.put(sub, &value)?;
                    }
                }
                Ok(())
            }
        }
    }

    fn put(&mut self, sub: &str, value: &Value) -> Result<(), ScimError> {
        let part = match sub {
            "formatted" => &mut self.formatted,
            "familyname" => &mut self.family,
            "givenname" => &mut self.given,
            "middlename" | "honorificprefix" | "honorificsuffix" => return Ok(()),
            _ => return Err(ScimError::path("name has no such sub-attribute")),
        };
        *part = optional_text("a sub-attribute of name", value)?;
        Ok(())
    }

    fn to_json(&self) -> Option<Value> {
        let parts =
            [("formatted", &self.formatted), ("familyName", &self.family), ("givenName", &self.given)];
        let parts: Map<String, Value> = parts
            .into_iter()
            .filter_map(|(name, part)| Some((name.to_owned(), (&**part.as_ref()?).into())))
            .collect();
        (!parts.is_empty()).then_some(Value::Object(parts))
    }
}

impl ScimUser {
    /// Whether the provider has set it to active.
    pub(super) fn is_active(&self) -> bool {
        self.fields.active == Some(true)
    }

    /// Its name for display.
    pub(super) fn label(&self) -> &str {
        self.fields.display_name.as_deref().unwrap_or(&self.fields.user_name)
    }

    /// Converts it to its representation. `groups` are the ids and names of its groups, and `base` is the URL prefix.
    pub(super) fn to_json<'a>(
        &self,
        base: &str,
        groups: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Map<String, Value> {
        let fields = &self.fields;
        let mut shown = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                shown.insert(name.to_owned(), value);
            }
        };
        let text = |text: &Option<Box<str>>| text.as_deref().map(Value::from);
        put("schemas", Some(json!([USER_SCHEMA])));
        put("id", Some((&*self.id).into()));
        put("externalId", text(&fields.external_id));
        put("userName", Some((&*fields.user_name).into()));
        put("displayName", text(&fields.display_name));
        put("name", fields.name.to_json());
        put("active", fields.active.map(Value::from));
        let emails: Vec<Value> = fields.emails.iter().map(EmailAddress::to_json).collect();
        put("emails", (!emails.is_empty()).then_some(emails.into()));
        let groups: Vec<Value> = groups
            .map(|(id, name)| {
                json!({ "value": id, "display": name, "type": "direct", "$ref": super::location(base, "Groups", id) })
            })
            .collect();
        put("groups", (!groups.is_empty()).then_some(groups.into()));
        let times = (self.created, self.modified);
        put(
            "meta",
            Some(super::meta("User", times, self.revision, &super::location(base, "Users", &self.id))),
        );
        shown
    }
}

#[cfg(test)]
mod tests;
