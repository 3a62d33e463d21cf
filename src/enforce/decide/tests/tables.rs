//! One issuer in several tables: which of them a token belongs to.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::enforce::decide::{Enforcer, TrustedIssuer};
use crate::enforce::denial::Reason;
use crate::enforce::policy::{ClaimName, RouteSettings};
use crate::enforce::resource::Resource;
use crate::enforce::testing::{
    AUDIENCE, ISSUER, TestRequest, enforcer, issuers, payload, route, rules, token,
};
use jsonwebtoken::Algorithm::{ES256, EdDSA};

const REPORTS: &str = "https://reports.example";

/// The first issuer, and the same one with another audience, types and claims.
fn gate() -> Enforcer {
    let mut tables = issuers();
    let mut reports = rules(ISSUER, &[ES256]);
    reports.audiences = vec![REPORTS.to_owned()];
    reports.token_types = vec!["at+jwt".to_owned()];
    reports.required_claims = vec!["acr".to_owned()];
    reports.claims.roles = vec![ClaimName::Member("groups".to_owned())];
    let mut third = rules(ISSUER, &[EdDSA]);
    third.audiences = vec!["https://third.example".to_owned()];
    let keys = |tables: &[TrustedIssuer]| Arc::clone(&tables[0].keys);
    tables.push(TrustedIssuer { rules: reports, keys: keys(&tables) });
    tables.push(TrustedIssuer { rules: third, keys: keys(&tables) });
    enforcer(tables, vec![route("/{*rest}")])
}

#[test]
fn the_audience_chooses_the_rules() {
    let gate = gate();
    let judged = |claims: Value| {
        let token = token(&payload(claims));
        let request = TestRequest::new(&gate, "/x").token(&token);
        let index = request.decide().token.map(|token| token.issuer.0);
        (request.reason(), index)
    };
    let table = [
        (json!({}), (None, Some(0))),
        (json!({"aud": [AUDIENCE]}), (None, Some(0))),
        (json!({"aud": REPORTS, "acr": "1"}), (None, Some(3))),
        (json!({"aud": ["x", REPORTS], "acr": "1"}), (None, Some(3))),
        // By the rules of the first table that accepts the audience.
        (json!({"aud": [REPORTS, AUDIENCE]}), (None, Some(0))),
        (json!({"aud": REPORTS}), (Some(Reason::MissingClaim), None)),
        (json!({"aud": "https://third.example"}), (Some(Reason::BadAlgorithm), None)),
        (json!({"aud": "x"}), (Some(Reason::WrongAudience), None)),
        (json!({"aud": ["x"]}), (Some(Reason::WrongAudience), None)),
        (json!({"aud": [7]}), (Some(Reason::BadClaim), None)),
        (json!({"aud": null}), (Some(Reason::WrongAudience), None)),
    ];
    for (claims, expected) in table {
        assert_eq!(judged(claims.clone()), expected, "{claims}");
    }
}

#[test]
fn a_token_for_a_resource_alone_is_accepted_on_the_routes_of_that_resource() {
    let urls = ["https://one.example", "https://two.example"];
    for resources in [&urls[..1], &urls[..]] {
        let mut tables = issuers();
        tables[0].rules.resources = resources.iter().map(ToString::to_string).collect();
        let resource = Resource { url: urls[0].to_owned(), ..Resource::default() };
        let one = RouteSettings { resource: Some(Arc::new(resource)), ..route("/one") };
        let gate = enforcer(tables, vec![one, route("/x")]);
        for (path, audience, reason) in [
            ("/one", json!(urls[0]), None),
            ("/one", json!(["x", urls[0]]), None),
            ("/one", json!(AUDIENCE), None),
            ("/one", json!(urls[1]), Some(Reason::WrongAudience)),
            ("/one", json!("x"), Some(Reason::WrongAudience)),
            ("/x", json!(urls[0]), Some(Reason::WrongAudience)),
            ("/x", json!([urls[0], AUDIENCE]), None),
        ] {
            let token = token(&payload(json!({ "aud": audience })));
            let found = TestRequest::new(&gate, path).token(&token).reason();
            assert_eq!(found, reason, "{resources:?} {path} {audience}");
        }
    }
}

#[test]
fn each_table_reads_the_claims_that_it_names() {
    let gate = gate();
    let roles = |claims: Value| {
        let token = token(&payload(claims));
        let token = TestRequest::new(&gate, "/x").token(&token).decide().token.expect("a token");
        token.roles.iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let both = |aud: &str| json!({"aud": aud, "acr": "1", "jti": aud, "roles": ["a"], "groups": ["b"]});
    assert_eq!(roles(both(AUDIENCE)), ["a"]);
    assert_eq!(roles(both(REPORTS)), ["b"]);
}

#[test]
fn an_issuer_is_listed_once_where_it_is_explained() {
    let gate = gate();
    let token = token(&payload(json!({"iss": "https://unknown.example/"})));
    let explanation = TestRequest::new(&gate, "/x").token(&token).explain().expect("an explanation");
    assert_eq!(explanation.detail("issuer").matches(ISSUER).count(), 1, "{}", explanation.detail("issuer"));
}
