//! Whom a filter finds, with an index and without, and which attributes a response has.

use serde_json::json;

use super::super::directory::DirectoryChange;
use super::super::user::UserFields;
use super::*;
use crate::time::Timestamp;

fn query(text: &str) -> Result<ScimQuery, &'static str> {
    ScimQuery::parse(Some(text.as_bytes())).map_err(|error| error.word())
}

fn filtered(filter: &str) -> Result<ScimQuery, &'static str> {
    query(&form_urlencoded::Serializer::new(String::new()).append_pair("filter", filter).finish())
}

/// Users `1` to `3`, of whom the first two are the group `g`.
fn directory() -> ScimDirectory {
    let user = |id: &str, order: u64, body: Value| {
        let user = ScimUser {
            id: id.into(),
            order,
            revision: order,
            created: Timestamp::EPOCH,
            modified: Timestamp::EPOCH,
            fields: UserFields::parse(body.to_string().as_bytes()).unwrap(),
            groups: if order < 3 { ["g".into()].into() } else { Default::default() },
        };
        (id.into(), Some(Arc::new(user)))
    };
    let group = |id: &str, order: u64, name: &str, external_id: Option<&str>| {
        let group = ScimGroup {
            id: id.into(),
            order,
            revision: order,
            created: Timestamp::EPOCH,
            modified: Timestamp::EPOCH,
            display_name: name.into(),
            external_id: external_id.map(Into::into),
        };
        (id.into(), Some(Arc::new(group)))
    };
    let mut directory = ScimDirectory::default();
    directory.apply(DirectoryChange {
        users: vec![
            user(
                "1",
                1,
                json!({
                    "userName": "Ada", "externalId": "a", "displayName": "Ada L.",
                    "emails": [{ "value": "A@x", "type": "work" }, { "value": "b@x", "type": "home" }],
                }),
            ),
            user("2", 2, json!({ "userName": "bob", "externalId": "B", "active": false, "emails": ["b@x"] })),
            user("3", 3, json!({ "userName": "cyd", "displayName": "ada l." })),
        ],
        groups: vec![group("g", 4, "Crew", Some("one")), group("h", 5, "Board", None)],
    });
    directory
}

#[test]
fn a_filter_finds_the_users_that_match_all_of_it() {
    let directory = directory();
    for (filter, expected) in [
        ("id eq \"1\"", Ok("1")),
        ("id eq \"4\"", Ok("")),
        ("userName eq \"ADA\"", Ok("1")),
        ("externalId eq \"a\"", Ok("1")),
        ("externalId eq \"b\"", Ok("")),
        ("displayName eq \"ADA l.\"", Ok("1 3")),
        ("active eq true", Ok("1 3")),
        ("active eq false", Ok("2")),
        ("emails eq \"B@X\"", Ok("1 2")),
        ("emails.value eq \"a@x\"", Ok("1")),
        ("emails[type eq \"home\"].value eq \"b@x\"", Ok("1")),
        ("emails[type eq \"work\"].value eq \"b@x\"", Ok("")),
        // The first comparison finds candidates in an index, and the others are applied to them, in either order.
        ("userName eq \"ada\" and id eq \"1\"", Ok("1")),
        ("userName eq \"ada\" and id eq \"2\"", Ok("")),
        ("id eq \"1\" and userName eq \"bob\"", Ok("")),
        ("id eq \"1\" and externalId eq \"a\" and active eq true", Ok("1")),
        ("id eq \"1\" and externalId eq \"B\"", Ok("")),
        ("id eq \"1\" and active eq false", Ok("")),
        ("id eq \"3\" and displayName eq \"Ada L.\"", Ok("3")),
        ("id eq \"2\" and displayName eq \"Ada L.\"", Ok("")),
        ("id eq \"3\" and emails eq \"b@x\"", Ok("")),
        ("emails eq \"b@x\" and id eq \"2\"", Ok("2")),
        ("active eq \"true\"", Err("invalidFilter")),
        ("userName eq true", Err("invalidFilter")),
        ("name.givenName eq \"Ada\"", Err("invalidFilter")),
        ("userName[type eq \"work\"] eq \"ada\"", Err("invalidFilter")),
        ("emails[colour eq \"red\"].value eq \"b@x\"", Err("invalidFilter")),
    ] {
        let found = filtered(filter).and_then(|query| {
            let (count, page) = users(&directory, &query).map_err(|error| error.word())?;
            assert_eq!(count, page.len(), "{filter}");
            Ok(page.iter().map(|user| &*user.id).collect::<Vec<_>>().join(" "))
        });
        assert_eq!(found, expected.map(str::to_owned), "{filter}");
    }
}

#[test]
fn a_filter_finds_the_groups_that_match_all_of_it() {
    let directory = directory();
    for (filter, expected) in [
        ("id eq \"h\"", Ok("h")),
        ("displayName eq \"crew\"", Ok("g")),
        ("externalId eq \"one\"", Ok("g")),
        ("externalId eq \"two\"", Ok("")),
        ("members eq \"1\"", Ok("g")),
        ("members.value eq \"3\"", Ok("")),
        ("members eq \"9\"", Ok("")),
        ("displayName eq \"crew\" and id eq \"h\"", Ok("")),
        ("userName eq \"ada\"", Err("invalidFilter")),
        ("members[value eq \"1\"] eq \"1\"", Err("invalidFilter")),
    ] {
        let found = filtered(filter).and_then(|query| {
            let (count, page) = groups(&directory, &query).map_err(|error| error.word())?;
            assert_eq!(count, page.len(), "{filter}");
            Ok(page.iter().map(|group| &*group.id).collect::<Vec<_>>().join(" "))
        });
        assert_eq!(found, expected.map(str::to_owned), "{filter}");
    }
}

#[test]
fn a_query_chooses_a_page_and_attributes() {
    let only = |names: &[&str]| WantedAttributes::Only(names.iter().map(|name| (*name).to_owned()).collect());
    let shown = |text| query(text).map(|query| (query.first, query.count, query.wanted));
    for (text, expected) in [
        ("", Ok((0, ON_PAGE, WantedAttributes::All))),
        ("startIndex=1&count=2", Ok((0, 2, WantedAttributes::All))),
        ("STARTINDEX=3&count=-1", Ok((2, 0, WantedAttributes::All))),
        ("startIndex=-3&count=5000", Ok((0, MOST_ON_PAGE, WantedAttributes::All))),
        ("count=many", Err("invalidValue")),
        ("count=1&count=1", Err("invalidValue")),
        ("attributes=&excludedAttributes=", Ok((0, ON_PAGE, WantedAttributes::All))),
        ("attributes=userName,%20emails.value,", Ok((0, ON_PAGE, only(&["username", "emails.value"])))),
        ("attributes=a&excludedAttributes=b", Err("invalidValue")),
    ] {
        assert_eq!(shown(text), expected, "{text}");
    }
    for (count, is_accepted) in [(MOST_NAMES - 1, true), (MOST_NAMES, true), (MOST_NAMES + 1, false)] {
        let list = vec!["a"; count].join(",");
        assert_eq!(names(&list).is_ok(), is_accepted, "{count} attributes");
    }
}

#[test]
fn a_response_has_the_wanted_parts_of_what_has_parts() {
    let all = json!({
        "id": "1", "schemas": [], "active": true, "name": { "givenName": "Ada", "familyName": "L." },
        "emails": [{ "value": "a@x", "type": "work" }, "odd"],
    });
    for (text, expected) in [
        ("attributes=name.givenName", json!({ "id": "1", "schemas": [], "name": { "givenName": "Ada" } })),
        (
            "attributes=emails.type",
            json!({ "id": "1", "schemas": [], "emails": [{ "type": "work" }, "odd"] }),
        ),
        ("attributes=emails", json!({ "id": "1", "schemas": [], "emails": all["emails"] })),
        (
            "excludedAttributes=id,active,emails.value,name.familyName",
            json!({ "id": "1", "schemas": [], "name": { "givenName": "Ada" }, "emails": [{ "type": "work" }, "odd"] }),
        ),
    ] {
        let mut resource = all.as_object().unwrap().clone();
        query(text).unwrap().wanted.narrow(&mut resource);
        assert_eq!(Value::Object(resource), expected, "{text}");
    }
}
