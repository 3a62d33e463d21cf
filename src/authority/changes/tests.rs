//! What a change takes out of the directory, and whether it goes back.

use super::*;
use crate::authority::testing;

#[test]
fn what_a_change_took_goes_back_unless_the_change_stands() {
    for is_kept in [false, true] {
        let directory = Directory::default();
        let credential = testing::credential("app_c", "ada", &[], &[]);
        directory.replace(vec![testing::user("ada", &[])], vec![credential]);
        let taken = AccountChange::DeleteUser("ada".into()).take(&directory);
        assert_eq!(directory.counts(), (0, 0));
        if is_kept {
            taken.keep()
        } else {
            drop(taken)
        }
        assert_eq!(directory.counts(), if is_kept { (0, 0) } else { (1, 1) });
    }
}

#[test]
fn users_that_become_inactive_are_shut_out_before_the_change_and_others_are_not() {
    for is_kept in [false, true] {
        let directory = Directory::default();
        directory.replace(vec![testing::user("ada", &[]), testing::user("bob", &[])], Vec::new());
        let provided = |id: &str, is_active| {
            let user = Arc::new(User { is_active, ..testing::user(id, &["reader"]) });
            ProvidedChange { user, end_tokens: true }
        };
        let change = AccountChange::ProvideUsers(vec![
            provided("ada", false),
            provided("bob", true),
            provided("eve", false),
        ]);
        let active = || ["ada", "bob", "eve"].map(|id| directory.user(id).map(|user| user.is_active));
        let taken = change.take(&directory);
        assert_eq!(active(), [Some(false), Some(true), None]);
        assert!(directory.user("ada").unwrap().roles.is_empty(), "what else changes comes later");
        if is_kept {
            taken.keep()
        } else {
            drop(taken)
        }
        assert_eq!(active(), [Some(!is_kept), Some(true), None]);
    }
}

#[test]
fn a_change_of_roles_ends_older_versions_and_the_end_of_a_user_ends_all() {
    let issuer = events::EventIssuer {
        issuer: "https://gate.test".into(),
        leeway: Duration::ZERO,
        max_lifetime: Duration::from_secs(60),
    };
    let user = |is_active| Arc::new(User { is_active, role_version: 7, ..testing::user("ada", &[]) });
    let provided = |is_active, end_tokens| {
        AccountChange::ProvideUsers(vec![ProvidedChange { user: user(is_active), end_tokens }])
    };
    for (change, expected) in [
        (AccountChange::SetRoles(user(true)), Some((EventKind::RoleChanged, Some(7)))),
        (AccountChange::DeleteUser("ada".into()), Some((EventKind::SubjectRevoked, None))),
        (AccountChange::CreateUser(user(true)), None),
        (provided(true, true), Some((EventKind::RoleChanged, Some(7)))),
        (provided(false, true), Some((EventKind::SubjectRevoked, None))),
        (provided(true, false), None),
        (provided(false, false), None),
    ] {
        let events = change.events(&issuer, Timestamp::from_secs(100));
        let told: Vec<_> = events.iter().map(|event| (event.kind, event.role_version)).collect();
        assert_eq!(told, Vec::from_iter(expected), "{change:?}");
        assert!(events.iter().all(|event| event.subject.as_deref() == Some("ada")));
    }
}
