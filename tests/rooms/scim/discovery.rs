//! What the service provider says of itself.

use serde_json::json;

use super::{BASE, Bed};

const LIST: &str = "urn:ietf:params:scim:api:messages:2.0:ListResponse";

#[tokio::test]
async fn the_configuration_names_what_is_supported() {
    let said = Bed::start().await.get("/ServiceProviderConfig").await.json(200);
    let expected = json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"],
        "patch": {"supported": true},
        "bulk": {"supported": false, "maxOperations": 0, "maxPayloadSize": 0},
        "filter": {"supported": true, "maxResults": 1000},
        "changePassword": {"supported": false},
        "sort": {"supported": false},
        "etag": {"supported": true},
        "authenticationSchemes": [{
            "type": "oauthbearertoken",
            "name": "Bearer token",
            "description": "One of the tokens of this provider in the configuration of the gate",
            "primary": true,
        }],
        "meta": {
            "resourceType": "ServiceProviderConfig",
            "location": format!("{BASE}/v2/ServiceProviderConfig"),
        },
    });
    assert_eq!(said, expected);
}

#[tokio::test]
async fn resource_types_and_schemas_are_listed_and_found_by_their_ids() {
    let bed = Bed::start().await;
    let one = |name: &str, description: &str| {
        json!({
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ResourceType"],
            "id": name,
            "name": name,
            "endpoint": format!("/{name}s"),
            "description": description,
            "schema": format!("urn:ietf:params:scim:schemas:core:2.0:{name}"),
            "schemaExtensions": [],
            "meta": {"resourceType": "ResourceType", "location": format!("{BASE}/v2/ResourceTypes/{name}")},
        })
    };
    let types = [
        one("User", "Users whose tokens the gate checks"),
        one("Group", "Groups, each of which gives its members a role"),
    ];
    let list = json!({
        "schemas": [LIST], "totalResults": 2, "startIndex": 1, "itemsPerPage": 2, "Resources": types,
    });
    assert_eq!(bed.get("/ResourceTypes").await.json(200), list);
    assert_eq!(bed.get("/ResourceTypes/User").await.json(200), types[0]);
    assert_eq!(bed.get("/ResourceTypes/Group/").await.json(200), types[1]);

    let listed = bed.get("/Schemas").await.json(200);
    assert_eq!((&listed["schemas"], &listed["totalResults"]), (&json!([LIST]), &json!(5)));
    let schemas = listed["Resources"].as_array().unwrap();
    let names: Vec<_> = schemas.iter().map(|schema| schema["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["User", "Group", "ServiceProviderConfig", "ResourceType", "Schema"]);
    for schema in schemas {
        let id = schema["id"].as_str().unwrap();
        assert_eq!(bed.get(&format!("/Schemas/{id}")).await.json(200), *schema);
    }
}
