//! A group: its stored form, its changes by requests, and its representation.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::error::ScimError;
use super::members::{ScimMembers, elements, filled_text, optional_text};
use super::patch::{PatchOperation, PatchPath, PatchVerb, is_extension};
use crate::time::Timestamp;

/// The schema of groups.
pub(super) const GROUP_SCHEMA: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";

/// The longest name, in bytes: the name may be that of a role.
const LONGEST_NAME: usize = 255;

/// A group of the directory. Its members are stored with the users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ScimGroup {
    pub(super) id: Box<str>,
    /// Its position in lists: the revision of the directory in which it was created.
    pub(super) order: u64,
    /// The revision of the directory in which it last changed.
    pub(super) revision: u64,
    pub(super) created: Timestamp,
    pub(super) modified: Timestamp,
    pub(super) display_name: Box<str>,
    pub(super) external_id: Option<Box<str>>,
}

/// The state of a group after a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GroupEdit {
    pub(super) display_name: Box<str>,
    pub(super) external_id: Option<Box<str>>,
    /// Whether all earlier members are removed, except those listed below.
    pub(super) is_cleared: bool,
    /// User ids, and whether each is a member from now on.
    pub(super) members: BTreeMap<Box<str>, bool>,
}

impl GroupEdit {
    /// Starts from the current group: nothing changes.
    pub(super) fn of(group: &ScimGroup) -> Self {
        Self {
            display_name: group.display_name.clone(),
            external_id: group.external_id.clone(),
            is_cleared: false,
            members: BTreeMap::new(),
        }
    }

    /// Parses the complete group of a POST or PUT.
    pub(super) fn parse(body: &[u8]) -> Result<Self, ScimError> {
        let mut members = ScimMembers::parse(body)?;
        members.expect_schema(GROUP_SCHEMA)?;
        let Some(display_name) = members.take("displayname") else {
            return Err(ScimError::value("displayName is required"));
        };
        let external_id = members.take("externalid").unwrap_or(Value::Null);
        let ids = member_ids(members.take("members").unwrap_or(Value::Null))?;
        Ok(Self {
            display_name: group_name(&display_name)?,
            external_id: optional_text("externalId", &external_id)?,
            is_cleared: true,
            members: ids.into_iter().map(|id| (id, true)).collect(),
        })
    }

    /// Applies one operation of a PATCH to the group with this id.
    pub(super) fn apply(&mut self, id: &str, operation: PatchOperation) -> Result<(), ScimError> {
        let PatchOperation { verb, path, value } = operation;
        match path.attribute.as_str() {
            "members" => self.apply_to_members(verb, &path, value),
            "schemas" => Ok(()),
            other if is_extension(other) => Ok(()),
            "displayname" | "externalid" | "id" | "meta" if !path.is_whole() => {
                Err(ScimError::path(format!("{} has no sub-attributes", path.attribute)))
            }
            "displayname" if verb == PatchVerb::Remove => {
                Err(ScimError::mutability("displayName is required"))
            }
            "displayname" => {
                self.display_name = group_name(&value)?;
                Ok(())
            }
            "externalid" => {
                let value = if verb == PatchVerb::Remove { &Value::Null } else { &value };
                self.external_id = optional_text("externalId", value)?;
                Ok(())
            }
            // Okta sends the id along with a new name.
            "id" if value.as_str() == Some(id) && verb != PatchVerb::Remove => Ok(()),
            "id" | "meta" => Err(ScimError::mutability(format!("{} cannot be changed", path.attribute))),
            _ => Err(ScimError::path("groups have no such attribute")),
        }
    }

    fn apply_to_members(&mut self, verb: PatchVerb, path: &PatchPath, value: Value) -> Result<(), ScimError> {
        if path.sub.is_some() {
            return Err(ScimError::path("members can only be added and removed as a whole"));
        }
        if !path.within.is_empty() {
            if verb != PatchVerb::Remove {
                return Err(ScimError::path("a filter is supported only for removing members"));
            }
            let [only] = path.within.as_slice() else {
                return Err(ScimError::path("the filter for members must be members[value eq \"id\"]"));
            };
            if only.attribute != "value" {
                return Err(ScimError::path("the filter for members must be members[value eq \"id\"]"));
            }
            self.members.insert(only.text()?.into(), false);
            return Ok(());
        }
        match verb {
            PatchVerb::Add => self.members.extend(member_ids(value)?.into_iter().map(|id| (id, true))),
            PatchVerb::Replace => {
                let ids = member_ids(value)?;
                self.clear();
                self.members.extend(ids.into_iter().map(|id| (id, true)));
            }
            PatchVerb::Remove if value.is_null() => self.clear(),
            PatchVerb::Remove => {
                self.members.extend(member_ids(value)?.into_iter().map(|id| (id, false)));
            }
        }
        Ok(())
    }

    fn clear(&mut self) {
        self.is_cleared = true;
        self.members.clear();
    }
}

/// Parses a list of members into ids. Salesforce wraps the list in an object of the same name.
fn member_ids(value: Value) -> Result<BTreeSet<Box<str>>, ScimError> {
    let value = match value {
        Value::Object(object) if object.keys().any(|name| name.eq_ignore_ascii_case("members")) => {
            let mut nested = ScimMembers::new(object)?;
            let list = nested.take("members").unwrap_or(Value::Null);
            if nested.into_rest().next().is_some() {
                return Err(ScimError::value("the value has attributes other than members"));
            }
            list
        }
        other => other,
    };
    let id = |element: Value| {
        let mut member = ScimMembers::of(element, "a member")?;
        let is_group = member.take("type").is_some_and(|kind| kind.as_str().is_some_and(is_group_type));
        if is_group {
            return Err(ScimError::value("a group cannot be a member of another"));
        }
        match member.take("value") {
            Some(value) => filled_text("members.value", &value),
            None => Err(ScimError::value("a member has no value")),
        }
    };
    elements(value).into_iter().map(id).collect()
}

fn is_group_type(kind: &str) -> bool {
    kind.eq_ignore_ascii_case("Group")
}

fn group_name(value: &Value) -> Result<Box<str>, ScimError> {
    let name = filled_text("displayName", value)?;
    if name.len() > LONGEST_NAME {
        return Err(ScimError::value(format!("displayName is longer than {LONGEST_NAME} bytes")));
    }
    Ok(name)
}

impl ScimGroup {
    /// Converts it to its representation. `members` are the ids of its users, if wanted, and `base` is the URL prefix.
    pub(super) fn to_json<'a>(
        &self,
        base: &str,
        members: Option<impl Iterator<Item = &'a str>>,
    ) -> Map<String, Value> {
        let mut shown = Map::new();
        shown.insert("schemas".to_owned(), json!([GROUP_SCHEMA]));
        shown.insert("id".to_owned(), (&*self.id).into());
        if let Some(external_id) = &self.external_id {
            shown.insert("externalId".to_owned(), (&**external_id).into());
        }
        shown.insert("displayName".to_owned(), (&*self.display_name).into());
        if let Some(members) = members {
            let member =
                |id: &str| json!({ "value": id, "type": "User", "$ref": super::location(base, "Users", id) });
            shown.insert("members".to_owned(), members.map(member).collect::<Vec<_>>().into());
        }
        let location = super::location(base, "Groups", &self.id);
        let times = (self.created, self.modified);
        shown.insert("meta".to_owned(), super::meta("Group", times, self.revision, &location));
        shown
    }
}

#[cfg(test)]
mod tests;
