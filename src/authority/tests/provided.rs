//! Users that a provider manages: what becomes of them, and of their tokens.

use super::*;
use crate::authority::provided::ProvidedUser;

pub(super) fn wanted(id: &str, name: &str, roles: &[&str], is_active: bool) -> ProvidedUser {
    ProvidedUser { id: id.to_owned(), name: name.to_owned(), roles: strings(roles), is_active }
}

/// The name, sorted roles, version and standing of a user.
fn shown(bed: &Bed, id: &str) -> (String, Vec<String>, u64, bool) {
    let user = bed.authority.user(id).unwrap();
    let mut roles: Vec<String> = user.roles.iter().map(|role| role.to_string()).collect();
    roles.sort_unstable();
    (user.name.to_string(), roles, user.role_version, user.is_active)
}

fn sorted(words: &[&str]) -> Vec<String> {
    let mut words = strings(words);
    words.sort_unstable();
    words
}

async fn event_count(bed: &Bed) -> usize {
    bed.log.events(0, 100).await.unwrap().items.len()
}

#[tokio::test]
async fn a_user_becomes_what_its_provider_wants_and_loses_tokens_only_by_roles_or_its_end() {
    let bed = Bed::new(testing::settings()).await;
    bed.user("ada", &["reader", "writer"]).await;
    bed.set_password("ada", Some("correct horse battery staple")).await.unwrap();
    let created_at = bed.authority.user("ada").unwrap().created_at;
    let client = bed.client("ada", &["reader"], &[]).await;
    let mut events = event_count(&bed).await;
    for (name, roles, is_active, version, ends) in [
        // The same, in another order, with another name.
        ("ada", &["reader", "writer"][..], true, 1, false),
        ("ada", &["writer", "reader"], true, 1, false),
        ("Ada", &["reader", "writer"], true, 1, false),
        // A role less, more, and instead of another one.
        ("Ada", &["reader"], true, 2, true),
        ("Ada", &["reader", "admin"], true, 3, true),
        ("Ada", &["reader", "writer"], true, 4, true),
        ("Ada L.", &["reader"], true, 5, true),
    ] {
        let token = bed.token(&client).await.unwrap();
        let user = wanted("ada", name, roles, is_active);
        bed.authority.provide(vec![user]).await.unwrap();
        assert_eq!(shown(&bed, "ada"), (name.to_owned(), sorted(roles), version, true));
        assert_eq!(bed.accepts(&token), !ends, "{name} {roles:?}");
        assert_eq!(event_count(&bed).await - events, usize::from(ends), "{name} {roles:?}");
        events = event_count(&bed).await;
        assert!(bed.accepts(&bed.token(&client).await.unwrap()), "a new one, {name} {roles:?}");
    }
    let token = bed.token(&client).await.unwrap();
    bed.authority.provide(vec![wanted("ada", "Ada L.", &["reader"], false)]).await.unwrap();
    assert_eq!(shown(&bed, "ada"), ("Ada L.".to_owned(), strings(&["reader"]), 6, false));
    assert!(!bed.accepts(&token) && bed.token(&client).await.is_err());
    assert!(!bed.signs_in("ada", "correct horse battery staple").await);

    bed.authority.provide(vec![wanted("ada", "", &["reader"], true)]).await.unwrap();
    assert_eq!(shown(&bed, "ada"), ("ada".to_owned(), strings(&["reader"]), 6, true));
    assert!(!bed.accepts(&token), "what ended has ended");
    assert!(bed.signs_in("ada", "correct horse battery staple").await, "its password outlives all of it");
    assert_eq!(bed.authority.user("ada").unwrap().created_at, created_at);
}

#[tokio::test]
async fn all_users_of_a_call_change_or_none() {
    let bed = Bed::new(testing::settings()).await;
    bed.user("ada", &["reader"]).await;
    let before = Timestamp::now();
    let bad = vec![wanted("ada", "", &["writer"], true), wanted("", "", &[], true)];
    assert!(matches!(bed.authority.provide(bad).await, Err(Refused::Invalid { .. })));
    assert_eq!(shown(&bed, "ada").2, 1);

    let good = vec![
        wanted("ada", "", &["writer"], true),
        wanted("bob", "Bob", &["reader"], true),
        wanted("eve", "", &[], false),
    ];
    bed.authority.provide(good).await.unwrap();
    assert_eq!(shown(&bed, "ada"), ("ada".to_owned(), strings(&["writer"]), 2, true));
    assert_eq!(shown(&bed, "bob"), ("Bob".to_owned(), strings(&["reader"]), 1, true));
    assert_eq!(shown(&bed, "eve"), ("eve".to_owned(), strings(&[]), 1, false));
    assert!(bed.authority.user("bob").unwrap().created_at >= before);
    let told = bed.log.events(0, 100).await.unwrap().items;
    let told: Vec<_> =
        told.iter().map(|item| (item.event.kind, item.event.subject.as_deref().unwrap())).collect();
    assert_eq!(told, [(EventKind::RoleChanged, "ada"), (EventKind::SubjectRevoked, "eve")]);
}

#[tokio::test]
async fn a_user_that_comes_again_has_a_version_that_no_token_had() {
    let bed = Bed::new(testing::settings()).await;
    for version in 1..=3 {
        bed.authority.provide(vec![wanted("ada", "", &[], true)]).await.unwrap();
        assert_eq!(shown(&bed, "ada").2, version);
        bed.authority.delete_user("ada").await.unwrap();
    }
}
