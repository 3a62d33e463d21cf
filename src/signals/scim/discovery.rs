//! The metadata of the service provider (RFC 7644 §4, RFC 7643 §5–7): describes only what is supported.

use serde_json::{Value, json};

use super::group::GROUP_SCHEMA;
use super::query::MOST_ON_PAGE;
use super::user::USER_SCHEMA;

const CONFIG_SCHEMA: &str = "urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig";
const TYPE_SCHEMA: &str = "urn:ietf:params:scim:schemas:core:2.0:ResourceType";
const SCHEMA_SCHEMA: &str = "urn:ietf:params:scim:schemas:core:2.0:Schema";

/// `/ServiceProviderConfig`.
pub(super) fn config(base: &str) -> Value {
    json!({
        "schemas": [CONFIG_SCHEMA],
        "patch": { "supported": true },
        "bulk": { "supported": false, "maxOperations": 0, "maxPayloadSize": 0 },
        "filter": { "supported": true, "maxResults": MOST_ON_PAGE },
        "changePassword": { "supported": false },
        "sort": { "supported": false },
        "etag": { "supported": true },
        "authenticationSchemes": [{
            "type": "oauthbearertoken",
            "name": "Bearer token",
            "description": "One of the tokens of this provider in the configuration of the gate",
            "primary": true,
        }],
        "meta": { "resourceType": "ServiceProviderConfig", "location": format!("{base}/ServiceProviderConfig") },
    })
}

/// `/ResourceTypes`.
pub(super) fn resource_types(base: &str) -> Vec<Value> {
    let one = |id: &str, endpoint: &str, schema: &str, description: &str| {
        json!({
            "schemas": [TYPE_SCHEMA],
            "id": id,
            "name": id,
            "endpoint": endpoint,
            "description": description,
            "schema": schema,
            "schemaExtensions": [],
            "meta": { "resourceType": "ResourceType", "location": format!("{base}/ResourceTypes/{id}") },
        })
    };
    vec![
        one("User", "/Users", USER_SCHEMA, "Users whose tokens the gate checks"),
        one("Group", "/Groups", GROUP_SCHEMA, "Groups, each of which gives its members a role"),
    ]
}

/// `/Schemas`.
pub(super) fn schemas(base: &str) -> Vec<Value> {
    let one = |id: &str, name: &str, description: &str, attributes: Value| {
        json!({
            "schemas": [SCHEMA_SCHEMA],
            "id": id,
            "name": name,
            "description": description,
            "attributes": attributes,
            "meta": { "resourceType": "Schema", "location": format!("{base}/Schemas/{id}") },
        })
    };
    vec![
        one(USER_SCHEMA, "User", "A person", user_attributes()),
        one(GROUP_SCHEMA, "Group", "A group of users", group_attributes()),
        one(
            CONFIG_SCHEMA,
            "ServiceProviderConfig",
            "The features that the service provider supports",
            config_attributes(),
        ),
        one(TYPE_SCHEMA, "ResourceType", "A resource type", type_attributes()),
        one(SCHEMA_SCHEMA, "Schema", "The attributes of a resource type", schema_attributes()),
    ]
}

/// Describes an attribute, starting from the most common characteristics.
fn attribute(name: &str, kind: &str, others: &Value) -> Value {
    let mut shown = json!({
        "name": name,
        "type": kind,
        "multiValued": false,
        "description": name,
        "required": false,
        "mutability": "readWrite",
        "returned": "default",
    });
    if kind == "string" {
        shown["caseExact"] = false.into();
        shown["uniqueness"] = "none".into();
    }
    for (name, value) in others.as_object().into_iter().flatten() {
        shown[name.as_str()] = value.clone();
    }
    shown
}

fn text(name: &str) -> Value {
    attribute(name, "string", &json!({}))
}

fn read_only(name: &str, kind: &str) -> Value {
    attribute(name, kind, &json!({ "mutability": "readOnly" }))
}

fn complex(name: &str, others: &Value, parts: Vec<Value>) -> Value {
    let mut shown = attribute(name, "complex", others);
    shown["subAttributes"] = parts.into();
    shown
}

fn reference(to: &str, mutability: &str) -> Value {
    let others =
        json!({ "mutability": mutability, "referenceTypes": [to], "caseExact": true, "uniqueness": "none" });
    attribute("$ref", "reference", &others)
}

fn user_attributes() -> Value {
    let name = vec![text("formatted"), text("familyName"), text("givenName")];
    let email = vec![
        attribute("value", "string", &json!({ "description": "E-mail address", "required": true })),
        text("display"),
        attribute("type", "string", &json!({ "canonicalValues": ["work", "home", "other"] })),
        attribute("primary", "boolean", &json!({})),
    ];
    let group = vec![
        read_only("value", "string"),
        reference("Group", "readOnly"),
        read_only("display", "string"),
        read_only("type", "string"),
    ];
    json!([
        attribute("userName", "string", &json!({ "required": true, "uniqueness": "server" })),
        complex("name", &json!({}), name),
        text("displayName"),
        attribute(
            "active",
            "boolean",
            &json!({ "description": "Whether the user is allowed to use tokens" })
        ),
        complex("emails", &json!({ "multiValued": true }), email),
        complex("groups", &json!({ "multiValued": true, "mutability": "readOnly" }), group),
    ])
}

fn group_attributes() -> Value {
    let immutable = json!({ "mutability": "immutable" });
    let member = vec![
        attribute(
            "value",
            "string",
            &json!({ "mutability": "immutable", "description": "The id of a user" }),
        ),
        reference("User", "immutable"),
        attribute(
            "type",
            "string",
            &json!({ "mutability": immutable["mutability"], "canonicalValues": ["User"] }),
        ),
    ];
    json!([
        attribute(
            "displayName",
            "string",
            &json!({ "required": true, "description": "The name of the group; by default the role of its members" })
        ),
        complex("members", &json!({ "multiValued": true }), member),
    ])
}

fn config_attributes() -> Value {
    let supported =
        || vec![attribute("supported", "boolean", &json!({ "required": true, "mutability": "readOnly" }))];
    let with = |names: &[&str]| {
        let numbers = names
            .iter()
            .map(|name| attribute(name, "integer", &json!({ "required": true, "mutability": "readOnly" })));
        supported().into_iter().chain(numbers).collect()
    };
    let required = json!({ "required": true, "mutability": "readOnly" });
    let scheme = ["type", "name", "description"].map(|name| attribute(name, "string", &required)).to_vec();
    json!([
        complex("patch", &required, supported()),
        complex("bulk", &required, with(&["maxOperations", "maxPayloadSize"])),
        complex("filter", &required, with(&["maxResults"])),
        complex("changePassword", &required, supported()),
        complex("sort", &required, supported()),
        complex("etag", &required, supported()),
        complex(
            "authenticationSchemes",
            &json!({ "multiValued": true, "required": true, "mutability": "readOnly" }),
            scheme,
        ),
    ])
}

fn type_attributes() -> Value {
    let required = json!({ "required": true, "mutability": "readOnly" });
    let reference =
        json!({ "required": true, "mutability": "readOnly", "referenceTypes": ["uri"], "caseExact": true });
    let extension =
        vec![attribute("schema", "reference", &reference), attribute("required", "boolean", &required)];
    json!([
        read_only("id", "string"),
        attribute("name", "string", &required),
        read_only("description", "string"),
        attribute("endpoint", "reference", &reference),
        attribute("schema", "reference", &reference),
        complex("schemaExtensions", &json!({ "multiValued": true, "mutability": "readOnly" }), extension),
    ])
}

fn schema_attributes() -> Value {
    let parts = || {
        let texts = ["name", "type", "description", "mutability", "returned", "uniqueness"];
        let lists = ["canonicalValues", "referenceTypes"];
        let flags = ["multiValued", "required", "caseExact"];
        let list = json!({ "multiValued": true, "mutability": "readOnly" });
        let texts = texts.iter().map(|name| read_only(name, "string"));
        let flags = flags.iter().map(|name| read_only(name, "boolean"));
        let lists = lists.map(|name| attribute(name, "string", &list));
        texts.chain(flags).chain(lists).collect::<Vec<_>>()
    };
    let list = json!({ "multiValued": true, "mutability": "readOnly" });
    let mut attributes = parts();
    attributes.push(complex("subAttributes", &list, parts()));
    json!([
        attribute("id", "string", &json!({ "required": true, "mutability": "readOnly" })),
        read_only("name", "string"),
        read_only("description", "string"),
        complex(
            "attributes",
            &json!({ "multiValued": true, "required": true, "mutability": "readOnly" }),
            attributes
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An attribute and its sub-attributes, each with its name behind those around it.
    fn all(within: &str, attributes: &Value, found: &mut Vec<(String, Value)>) {
        for attribute in attributes.as_array().unwrap() {
            let name = format!("{within}{}", attribute["name"].as_str().unwrap());
            found.push((name.clone(), attribute.clone()));
            if attribute["type"] == "complex" {
                all(&format!("{name}."), &attribute["subAttributes"], found);
            }
        }
    }

    #[test]
    fn every_attribute_of_a_schema_has_the_characteristics_of_its_type() {
        let mut names = Vec::new();
        for schema in schemas("https://gate") {
            let mut found = Vec::new();
            all("", &schema["attributes"], &mut found);
            for (name, attribute) in &found {
                // RFC 7643 §7: these are characteristics of text.
                let is_text = attribute["type"] == "string" || attribute["type"] == "reference";
                assert_eq!(attribute.get("caseExact").is_some(), is_text, "{name}: {attribute}");
                let needs_uniqueness = attribute["type"] == "string";
                assert!(!needs_uniqueness || attribute.get("uniqueness").is_some(), "{name}: {attribute}");
                for member in ["multiValued", "required", "mutability", "returned", "description"] {
                    assert!(attribute.get(member).is_some(), "{name} has no {member}");
                }
            }
            let listed: Vec<_> = found.into_iter().map(|(name, _)| name).collect();
            names.push((schema["name"].as_str().unwrap().to_owned(), listed.join(" ")));
        }
        let of =
            |schema: &str| names.iter().find(|(name, _)| name == schema).map(|(_, found)| &**found).unwrap();
        assert!(of("User").starts_with("userName "), "{}", of("User"));
        assert!(
            of("User").contains(" emails.value emails.display emails.type emails.primary "),
            "{}",
            of("User")
        );
        assert_eq!(of("Group"), "displayName members members.value members.$ref members.type");
        assert!(of("ServiceProviderConfig").starts_with("patch patch.supported bulk bulk.supported "));
        assert!(
            of("ResourceType")
                .ends_with("schemaExtensions schemaExtensions.schema schemaExtensions.required")
        );
        assert!(of("Schema").contains(" attributes.subAttributes attributes.subAttributes.name "));
    }
}
