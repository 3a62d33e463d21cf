//! Which users and groups a request changes, whose tokens it ends, and what becomes of accounts.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::patch;
use super::ends::MOST_ROLES;
use super::*;
use crate::events::EventIssuer;

/// A directory to which requests are made one after the other.
struct Scene {
    directory: ScimDirectory,
    settings: Settings,
    /// The users of the embedded authority, if the directory is for it.
    accounts: Option<BTreeSet<&'static str>>,
    revision: u64,
}

impl Scene {
    fn new(subject: SubjectAttribute) -> Self {
        let issuer = EventIssuer {
            issuer: "idp".into(),
            leeway: Duration::ZERO,
            max_lifetime: Duration::from_secs(60),
        };
        let roles = BTreeMap::from([("The Board".to_owned(), "board".to_owned())]);
        let settings = Settings { name: "idp".to_owned(), tokens: Vec::new(), issuer, subject, roles };
        Self { directory: ScimDirectory::default(), settings, accounts: None, revision: 0 }
    }

    fn plan(&self, id: &str, wanted: WantedChange) -> Result<ScimPlan, String> {
        let has_account = |id: &str| self.accounts.as_ref().is_some_and(|accounts| accounts.contains(id));
        let has_account: &dyn Fn(&str) -> bool = &has_account;
        let planner = Planner {
            directory: &self.directory,
            settings: &self.settings,
            has_account: self.accounts.is_some().then_some(has_account),
            now: Timestamp::from_secs(i64::try_from(self.revision + 1).unwrap()),
            revision: self.revision + 1,
        };
        planner.plan(id, wanted, |_| true).map_err(|error| {
            let body: Value = serde_json::from_slice(error.response().body()).unwrap();
            format!("{}: {}", error.word(), body["detail"].as_str().unwrap())
        })
    }

    /// Makes a request, and returns the tokens that it ends.
    fn make(&mut self, id: &str, wanted: WantedChange) -> Result<Vec<String>, String> {
        let plan = self.plan(id, wanted)?;
        let shown = |(subject, end): &(Box<str>, SubjectEnd)| match end {
            SubjectEnd::Revoked => format!("all of {subject}"),
            SubjectEnd::RolesChanged => format!("older of {subject}"),
        };
        let ends = plan.ends.iter().map(shown).collect();
        let mut changed: Vec<_> = plan.change.users.iter().map(|(id, _)| id).collect();
        changed.dedup();
        assert_eq!(changed.len(), plan.change.users.len(), "no user is changed twice");
        self.revision += 1;
        self.directory.apply(plan.change);
        Ok(ends)
    }

    fn create_user(&mut self, id: &str, body: Value) -> Result<Vec<String>, String> {
        let fields = UserFields::parse(body.to_string().as_bytes()).unwrap();
        self.make("", WantedChange::CreateUser(fields, id.into()))
    }

    fn create_group(&mut self, id: &str, name: &str, members: &[&str]) -> Result<Vec<String>, String> {
        let edit = GroupEdit::parse(group(name, members).as_bytes()).unwrap();
        self.make("", WantedChange::CreateGroup(edit, id.into()))
    }

    fn put_group(&mut self, id: &str, name: &str, members: &[&str]) -> Result<Vec<String>, String> {
        let edit = GroupEdit::parse(group(name, members).as_bytes()).unwrap();
        self.make(id, WantedChange::ReplaceGroup(edit))
    }

    fn patch_user(&mut self, id: &str, operations: Value) -> Result<Vec<String>, String> {
        self.make(id, WantedChange::PatchUser(operations_of(operations)))
    }

    fn patch_group(&mut self, id: &str, operations: Value) -> Result<Vec<String>, String> {
        self.make(id, WantedChange::PatchGroup(operations_of(operations)))
    }

    fn members(&self, group: &str) -> String {
        self.directory.members(group).map(|user| &*user.id).collect::<Vec<_>>().join(" ")
    }

    /// Users `1` to `3` with the subjects `a`, `b` and `c`, of whom the first two are the group `crew`.
    fn with_crew() -> Self {
        let mut scene = Self::new(SubjectAttribute::ExternalId);
        for (id, subject) in [("1", "a"), ("2", "b"), ("3", "c")] {
            let user = json!({ "userName": format!("user {subject}"), "externalId": subject });
            assert_eq!(scene.create_user(id, user), Ok(Vec::new()));
        }
        assert_eq!(scene.create_group("g", "crew", &["1", "2"]), ends(&["older of a", "older of b"]));
        scene
    }
}

fn operations_of(operations: Value) -> Vec<PatchOperation> {
    patch::parse(json!({ "Operations": operations }).to_string().as_bytes()).unwrap()
}

fn group(name: &str, members: &[&str]) -> String {
    let members: Vec<_> = members.iter().map(|id| json!({ "value": id })).collect();
    json!({ "displayName": name, "members": members }).to_string()
}

fn ends(all: &[&str]) -> Result<Vec<String>, String> {
    Ok(all.iter().map(|end| (*end).to_owned()).collect())
}

#[test]
fn tokens_end_when_a_user_is_made_inactive_renamed_or_deleted() {
    let mut scene = Scene::new(SubjectAttribute::ExternalId);
    let active = |value: bool| json!([{ "op": "replace", "path": "active", "value": value }]);
    let user = json!({ "userName": "ada", "externalId": "a", "active": false });
    assert_eq!(scene.create_user("1", user), ends(&["all of a"]), "it may have tokens already");
    assert_eq!(scene.patch_user("1", active(true)), ends(&[]));
    assert_eq!(scene.patch_user("1", active(false)), ends(&["all of a"]));
    assert_eq!(scene.patch_user("1", active(false)), ends(&[]), "nothing has changed");
    let rename = json!([{ "op": "replace", "path": "externalId", "value": "b" }]);
    assert_eq!(scene.patch_user("1", rename), ends(&["all of a", "all of b"]));
    assert_eq!(scene.patch_user("1", active(true)), ends(&[]));
    let user = scene.directory.user("1").unwrap().clone();
    assert_eq!((user.order, user.revision, user.created), (1, 6, Timestamp::from_secs(1)));
    assert_eq!(user.modified, Timestamp::from_secs(6));
    assert_eq!(scene.make("1", WantedChange::DeleteUser), ends(&["all of b"]));
    assert!(scene.directory.user("1").is_none());
}

#[test]
fn older_tokens_end_when_the_groups_of_a_user_change() {
    let mut scene = Scene::with_crew();
    let add = |id: &str| json!([{ "op": "add", "path": "members", "value": [{ "value": id }] }]);
    let remove = |id: &str| json!([{ "op": "remove", "path": format!("members[value eq \"{id}\"]") }]);
    assert_eq!(scene.patch_group("g", add("1")), ends(&[]), "it is a member already");
    assert_eq!(scene.directory.group("g").unwrap().revision, 4, "and the group is as it was");
    assert_eq!(scene.patch_group("g", add("3")), ends(&["older of c"]));
    let (group, user) = (scene.directory.group("g").unwrap(), scene.directory.user("3").unwrap());
    assert_eq!((group.revision, group.modified), (6, Timestamp::from_secs(6)));
    assert_eq!((user.revision, user.modified), (6, Timestamp::from_secs(6)));
    assert_eq!(scene.patch_group("g", remove("3")), ends(&["older of c"]));
    assert_eq!(scene.patch_group("g", remove("3")), ends(&[]));
    assert_eq!(scene.patch_group("g", remove("9")), ends(&[]), "there is no such user");
    let nobody = "invalidValue: a member refers to a user that does not exist";
    assert_eq!(scene.patch_group("g", add("9")), Err(nobody.to_owned()));
    let nested = "invalidValue: a group cannot be a member of another";
    assert_eq!(scene.patch_group("g", add("g")), Err(nested.to_owned()));
    assert_eq!(scene.members("g"), "1 2");

    // Those who stay keep their tokens; those who leave are listed among the members to remove as well.
    assert_eq!(scene.put_group("g", "crew", &["2", "3"]), ends(&["older of a", "older of c"]));
    let replace_and_remove = json!([
        { "op": "replace", "path": "members", "value": [{ "value": "1" }] },
        { "op": "remove", "path": "members", "value": [{ "value": "2" }] },
    ]);
    assert_eq!(scene.patch_group("g", replace_and_remove), ends(&["older of b", "older of c", "older of a"]));
    assert_eq!(scene.members("g"), "1");
    assert_eq!(scene.make("g", WantedChange::DeleteGroup), ends(&["older of a"]));
    assert!(scene.directory.user("1").unwrap().groups.is_empty());
}

#[test]
fn the_name_of_a_group_is_a_role_of_its_members() {
    let mut scene = Scene::with_crew();
    let rename = |name: &str| json!([{ "op": "replace", "path": "displayName", "value": name }]);
    assert_eq!(scene.patch_group("g", rename("board")), ends(&["older of a", "older of b"]));
    assert_eq!(scene.patch_group("g", rename("The Board")), ends(&[]), "it gives the same role");
    assert_eq!(
        scene.put_group("g", "team", &["2", "3"]),
        ends(&["older of a", "older of c", "older of b"]),
        "one leaves, one comes, one stays"
    );
    assert_eq!(scene.make("3", WantedChange::DeleteUser), ends(&["all of c"]));
    let group = scene.directory.group("g").unwrap();
    assert_eq!((group.revision, group.modified), (8, Timestamp::from_secs(8)), "it has a member less");
}

#[test]
fn names_and_subjects_belong_to_one_user() {
    let user = |name: &str, id: &str| json!({ "userName": name, "externalId": id });
    let rename = |name: &str| json!([{ "op": "replace", "path": "userName", "value": name }]);
    let mut scene = Scene::new(SubjectAttribute::ExternalId);
    scene.create_user("1", user("ada", "a")).unwrap();
    let taken = |what: &str| Err(format!("uniqueness: another user has this {what}"));
    assert_eq!(scene.create_user("2", user("ADA", "b")), taken("userName"));
    assert_eq!(scene.create_user("2", user("bob", "a")), taken("externalId"));
    assert_eq!(scene.create_user("1", user("bob", "b")), taken("id"));
    scene.create_user("2", user("bob", "b")).unwrap();
    assert_eq!(scene.patch_user("2", rename("Ada")), taken("userName"));
    assert_eq!(scene.patch_user("2", rename("BOB")), ends(&[]));
    let without = json!([{ "op": "remove", "path": "externalId" }]);
    assert!(scene.patch_user("2", without).unwrap_err().starts_with("invalidValue: externalId is required"));

    let mut scene = Scene::new(SubjectAttribute::UserName);
    scene.create_user("1", user("ada", "a")).unwrap();
    assert_eq!(scene.create_user("2", user("bob", "a")), ends(&[]), "it is not their subject");
    assert_eq!(scene.patch_user("2", rename("cyd")), ends(&["all of bob"]));
}

#[test]
fn users_of_the_authority_follow_the_directory() {
    let mut scene = Scene::with_crew();
    scene.settings.subject = SubjectAttribute::UserName;
    scene.accounts = Some(BTreeSet::from(["ada", "root"]));
    let create = |name: &str| {
        let body = json!({ "userName": name, "displayName": "Ada L." }).to_string();
        WantedChange::CreateUser(UserFields::parse(body.as_bytes()).unwrap(), "random".into())
    };
    let kept = |name: &str, roles: &[&str], is_active: bool| WantedAccount::Kept {
        id: "ada".into(),
        name: name.into(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        is_active,
    };
    assert_eq!(scene.plan("", create("ada")).unwrap().accounts, [kept("Ada L.", &[], true)]);
    for name in ["a/b", "a\\b", "a?b", "a#b", "a%b"] {
        assert!(scene.plan("", create(name)).unwrap_err().starts_with("invalidValue: the subject"), "{name}");
    }
    scene.make("", create("ada")).unwrap();
    let patch = |path: &str, value: Value| {
        WantedChange::PatchUser(operations_of(json!([{ "op": "replace", "path": path, "value": value }])))
    };
    let taken = Err("uniqueness: another user has this id".to_owned());
    assert_eq!(scene.plan("ada", patch("userName", json!("root"))), taken, "an account without an entry");
    assert_eq!(scene.plan("ada", patch("userName", json!("1"))), taken, "an entry");
    scene.make("ada", patch("userName", json!("new"))).unwrap();
    scene.accounts.as_mut().unwrap().insert("new");
    let plan = scene.plan("ada", patch("displayName", json!("Ada"))).unwrap();
    assert_eq!(plan.accounts, [kept("Ada", &[], true)], "its name was its own before the account was made");
    assert!(scene.plan("ada", patch("userName", json!("ada"))).is_ok(), "back to its id");

    let add = operations_of(json!([{ "op": "add", "path": "members", "value": [{ "value": "ada" }] }]));
    let plan = scene.plan("g", WantedChange::PatchGroup(add.clone())).unwrap();
    assert_eq!(plan.accounts, [kept("Ada L.", &["crew"], true)], "nobody else changes");
    scene.make("g", WantedChange::PatchGroup(add)).unwrap();
    let plan = scene.plan("ada", patch("active", json!(false))).unwrap();
    assert_eq!(plan.accounts, [kept("Ada L.", &["crew"], false)]);
    assert_eq!(plan.ends, [("ada".into(), SubjectEnd::Revoked)]);
    let plan = scene.plan("ada", WantedChange::DeleteUser).unwrap();
    assert_eq!(plan.accounts, [WantedAccount::Deleted("ada".into())]);
}

#[test]
fn a_user_has_256_roles_and_no_more() {
    let mut scene = Scene::with_crew();
    for number in 1..MOST_ROLES {
        scene.create_group(&format!("g{number}"), &format!("role {number}"), &["1"]).unwrap();
    }
    let more = "invalidValue: a user would have more than 256 roles";
    assert_eq!(scene.create_group("more", "more", &["1"]), Err(more.to_owned()));
    assert!(scene.create_group("more", "more", &["2"]).is_ok());
}
