//! Which endpoint and sender a path names, and how often a sender may call.

use http::Method;
use portcullis::signals::intake::{EndpointKind, Intake};

use super::Bed;
use crate::scim;

#[tokio::test]
async fn the_segments_of_a_path_name_the_endpoint_the_sender_and_what_it_is_about() {
    let Bed { intake, .. } = Bed::start().await;
    let named = |path: &str| {
        let endpoint = intake.endpoint(path)?;
        Some((endpoint.kind, endpoint.path().to_owned()))
    };
    for (path, kind, rest) in [
        ("/signals", None, ""),
        ("/signals/", None, ""),
        ("/signals/none/t", None, ""),
        ("/signals/ssf", Some(EndpointKind::Ssf), ""),
        ("/signals/ssf/t", Some(EndpointKind::Ssf), ""),
        ("/signals/logout/op", Some(EndpointKind::Logout), ""),
        ("/signals/logout/op/", Some(EndpointKind::Logout), "/"),
        ("/signals/global-token-revocation/okta", Some(EndpointKind::GlobalTokenRevocation), ""),
        ("/signals/scim/idp/v2/Users/1", Some(EndpointKind::Scim), "/v2/Users/1"),
    ] {
        assert_eq!(named(path), Some((kind, rest.to_owned())), "{path}");
    }
    for path in ["", "/", "/signal", "/signalsssf/t", "/ssf/t", "/api/signals/ssf/t", "/Signals/ssf/t"] {
        assert_eq!(named(path), None, "{path}");
    }
}

#[tokio::test]
async fn logs_and_metrics_know_endpoints_by_patterns() {
    let Bed { intake, .. } = Bed::start().await;
    let expected = [
        (Some(EndpointKind::Ssf), "/signals/ssf/{name}"),
        (Some(EndpointKind::Logout), "/signals/logout/{name}"),
        (Some(EndpointKind::GlobalTokenRevocation), "/signals/global-token-revocation/{name}"),
        (Some(EndpointKind::Scim), "/signals/scim/{name}"),
        (None, "/signals/*"),
    ];
    assert_eq!(intake.patterns(), expected.map(|(kind, pattern)| (kind, pattern.to_owned())));
}

#[tokio::test]
async fn a_provider_of_users_is_known_by_its_name_and_gets_the_rest_of_the_path() {
    let bed = Bed::start().await;
    let authorized = [("authorization", scim::TOKEN)];
    for (path, status) in [
        ("scim/idp/v2/Users", 200),
        ("scim/idp/v2/Users/1", 404),
        ("scim/idp/v2/none", 404),
        ("scim/idp", 404),
        ("scim/other/v2/Users", 404),
    ] {
        let (found, _, text) = bed.send(&Method::GET, path, &authorized, Some("")).await;
        assert_eq!(found, status, "{path}: {text}");
        assert_eq!(text.contains("ListResponse"), status == 200, "{path}: {text}");
    }
}

#[tokio::test]
async fn a_sender_stays_limited_over_a_reload_unless_the_limit_changes() {
    let is_admitted = |intake: &Intake| {
        let endpoint = intake.endpoint("/signals/ssf/t").unwrap();
        intake.admit(&endpoint, &Method::POST, "192.0.2.1".parse().unwrap()).is_ok()
    };
    let exhausted = async || {
        let Bed { intake, .. } = Bed::with(true, 1).await;
        while is_admitted(&intake) {}
        intake
    };
    let reloaded = async |requests| Bed::with(true, requests).await.intake.after(&exhausted().await);
    assert!(is_admitted(&reloaded(2).await));
    // A pause of a second makes room for one request.
    for _ in 0..100 {
        if !is_admitted(&reloaded(1).await) {
            return;
        }
    }
    panic!("the sender may call again at once");
}
