//! Where each rule of the authority begins and ends: the value just before, at, and just after it.

use http::header::CACHE_CONTROL;

use super::*;
use crate::authority::error::OauthError;

fn event_issuer(issuer: &str, leeway: u64, lifetime: u64) -> events::EventIssuer {
    let (leeway, max_lifetime) = (Duration::from_secs(leeway), Duration::from_secs(lifetime));
    events::EventIssuer { issuer: issuer.into(), leeway, max_lifetime }
}

fn key_settings(algorithms: &[Algorithm]) -> keys::Settings {
    let settings = enforce_testing::key_settings("https://gate.test", algorithms);
    keys::Settings { source: keys::KeySource::Authority, ..settings }
}

fn eddsa() -> Settings {
    Settings { signing_algorithm: Algorithm::EdDSA, ..testing::settings() }
}

#[tokio::test]
async fn a_reload_keeps_counted_failures_unless_it_changes_a_limit() {
    let bed = Bed::new(testing::settings()).await;
    let body = "grant_type=client_credentials&client_id=app_unknown&client_secret=wrong";
    for _ in 0..10 {
        assert_eq!(bed.form(AuthorityEndpoint::Token, body).await.0, 401);
    }
    bed.reconfigure(Settings { audience: "https://other.test".to_owned(), ..testing::settings() }).await;
    assert_eq!(bed.form(AuthorityEndpoint::Token, body).await.0, 429, "the same limits");
    let failures_per_client = NonZeroU32::new(11).unwrap();
    bed.reconfigure(Settings { failures_per_client, ..testing::settings() }).await;
    assert_eq!(bed.form(AuthorityEndpoint::Token, body).await.0, 401, "another limit");
}

#[tokio::test]
async fn a_reload_makes_keys_only_when_their_rules_change() {
    let bed = Bed::new(testing::settings()).await;
    let first = bed.authority.ring.load().signing.kid().to_owned();
    assert_eq!(bed.authority.key_ids().join(" "), first);
    let same = Settings { audience: "https://other.test".to_owned(), ..testing::settings() };
    assert!(bed.authority.plan(&same).await.unwrap().ring.is_none());
    bed.reconfigure(eddsa()).await;
    let ring = bed.authority.ring.load_full();
    assert_eq!(ring.signing.algorithm(), Algorithm::EdDSA);
    let mut expected = vec![first, ring.signing.kid().to_owned()];
    let mut found = bed.authority.key_ids();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    bed.user("ada", &[]).await;
    let token = bed.token(&bed.client("ada", &[], &[]).await).await.unwrap();
    assert!(bed.accepts(&token), "the gate knows the key that signs");
}

#[tokio::test]
async fn keys_that_no_gate_accepts_are_not_put_in_force() {
    let Bed { authority, enforcer, .. } = Bed::new(testing::settings()).await;
    drop(enforcer);
    let narrow = authority.key_store(&key_settings(&[Algorithm::ES256]), None).unwrap();
    let ring = authority.plan(&eddsa()).await.unwrap().ring.unwrap();
    assert!(authority.take_ring(ring).is_err());
    assert_eq!(authority.ring.load().signing.algorithm(), Algorithm::ES256);
    drop(narrow);
    let ring = authority.plan(&eddsa()).await.unwrap().ring.unwrap();
    authority.take_ring(ring).unwrap();
    assert_eq!(authority.ring.load().signing.algorithm(), Algorithm::EdDSA, "there is no gate to ask");
}

#[tokio::test]
async fn key_stores_are_remembered_as_long_as_they_are_held() {
    let bed = Bed::new(testing::settings()).await;
    let count = || bed.authority.key_stores.lock().unwrap().len();
    let held = bed.authority.key_store(&key_settings(&ALGORITHMS), None).unwrap();
    assert_eq!(count(), 2);
    drop(held);
    let _held = bed.authority.key_store(&key_settings(&ALGORITHMS), None).unwrap();
    assert_eq!(count(), 2);
}

#[tokio::test]
async fn leeway_and_lifetime_are_those_of_its_own_issuer() {
    let bed = Bed::new(testing::settings()).await;
    let own = event_issuer("https://gate.test", 7, 77);
    let issuers = vec![event_issuer("https://other.test", 5, 55), own.clone()];
    assert_eq!(testing::settings().rules(&issuers).leeway, Duration::from_secs(7));
    assert_eq!(testing::settings().rules(&issuers[..1]).leeway, LEEWAY);
    bed.authority.issuers.store(Arc::new(issuers));
    assert_eq!(bed.authority.event_issuer(), own);
    bed.authority.issuers.store(Arc::new(vec![event_issuer("https://other.test", 5, 55)]));
    assert_eq!(bed.authority.event_issuer(), event_issuer("https://gate.test", 60, 3600));
}

#[tokio::test]
async fn a_start_with_a_clock_behind_the_last_look_assumes_tokens_until_the_next_one() {
    let bed = Bed::new(testing::settings()).await;
    assert_eq!(bed.authority.latest_issue.load(Ordering::Relaxed), 0);
    let ahead = "UPDATE signing_keys SET expires_by = expires_by + 86400000";
    bed.store.transact(move |db| db.execute_batch(ahead)).await.unwrap();
    let bed = Bed::on(bed.store.clone(), testing::settings()).await;
    let ring = bed.authority.ring.load();
    let expected = ring.last_expiry.minus(ring.longest_life).plus(LOOK_AGAIN);
    assert_eq!(bed.authority.latest_issue.load(Ordering::Relaxed), expected.as_millis());
}

#[tokio::test]
async fn a_closed_authority_issues_tokens_and_changes_nothing() {
    let bed = Bed::new(testing::settings()).await;
    bed.user("ada", &[]).await;
    let client = bed.client("ada", &[], &[]).await;
    bed.authority.close().await;
    assert!(bed.token(&client).await.is_ok());
    let new = NewUser { id: "bob".to_owned(), ..NewUser::default() };
    assert!(matches!(bed.authority.create_user(new).await, Err(Refused::Store(_))));
    assert!(bed.authority.user("bob").is_none());
}

#[tokio::test]
async fn users_are_listed_after_an_id_up_to_a_limit() {
    let bed = Bed::new(testing::settings()).await;
    for id in ["c", "a", "b"] {
        bed.user(id, &[]).await;
    }
    let ids = |after, limit| -> Vec<String> {
        bed.authority.users(after, limit).iter().map(|user| user.id.to_string()).collect()
    };
    assert_eq!(ids(None, 2), ["a", "b"]);
    assert_eq!(ids(Some("a"), 9), ["b", "c"]);
}

#[tokio::test]
async fn a_name_has_at_most_255_bytes_and_a_scope_is_known() {
    let bed = Bed::new(testing::settings()).await;
    for (length, passes) in [(0, false), (1, true), (255, true), (256, false), (257, false)] {
        let new = NewUser { id: "x".repeat(length), ..NewUser::default() };
        assert_eq!(bed.authority.create_user(new).await.is_ok(), passes, "{length}");
    }
    let new = |scopes: &[&str]| NewCredential {
        name: "robot".to_owned(),
        owner: "x".to_owned(),
        scopes: strings(scopes),
        ..NewCredential::default()
    };
    let (credential, _) = bed.authority.create_credential(new(&["read:deals"])).await.unwrap();
    assert_eq!(credential.scopes, [Box::from("read:deals")]);
    let unknown = bed.authority.create_credential(new(&["read:deals", "write:deals"])).await.unwrap_err();
    let why = r#""write:deals": the authority does not define this scope"#;
    assert_eq!(unknown, Refused::Invalid { field: "scopes", why: why.to_owned() });
    assert_eq!(unknown.to_string(), format!("scopes: {why}"));
    assert_eq!(Refused::Taken.to_string(), "id: is already in use by another user");
}

#[tokio::test]
async fn an_edit_that_keeps_the_end_keeps_the_tokens() {
    let bed = Bed::new(testing::settings()).await;
    bed.user("ada", &[]).await;
    let end = Some(Timestamp::from_secs(Timestamp::now().as_secs() + 1_000));
    let new = NewCredential {
        name: "robot".to_owned(),
        owner: "ada".to_owned(),
        expires_at: end,
        ..NewCredential::default()
    };
    let (credential, secret) = bed.authority.create_credential(new).await.unwrap();
    let client = (credential.client_id.to_string(), secret.reveal().to_owned());
    let token = bed.token(&client).await.unwrap();
    for expires_at in [None, Some(end)] {
        let edit = Edit { name: Some("other".to_owned()), expires_at };
        bed.authority.edit_credential(&client.0, edit).await.unwrap();
        assert!(bed.accepts(&token), "{expires_at:?}");
    }
}

#[tokio::test]
async fn a_change_that_is_complete_leaves_nothing_to_settle() {
    let bed = Bed::new(testing::settings()).await;
    bed.user("ada", &["reader"]).await;
    bed.authority.set_roles("ada", Vec::new()).await.unwrap();
    assert!(!bed.authority.unsettled.load(Ordering::Relaxed));
    assert_eq!(dropped_after(bed.authority.wake.notified(), 0).await, None);
}

#[tokio::test]
async fn upkeep_completes_what_was_interrupted_and_goes_on() {
    let bed = Bed::new(testing::settings()).await;
    let upkeep = Arc::clone(&bed.authority).upkeep();
    let interrupted = async {
        for id in ["ada", "bob"] {
            bed.user(id, &["reader"]).await;
            let user = bed.authority.user(id).unwrap();
            let demoted = User { roles: Vec::new(), role_version: 2, ..User::clone(&user) };
            let change = AccountChange::SetRoles(Arc::new(demoted));
            // Its intent is stored, and who asked for it is gone.
            assert!(dropped_after(bed.authority.try_to_carry_out(change), 0).await.is_none());
            bed.authority.wake.notify_one();
            let is_settled = || (!bed.authority.unsettled.load(Ordering::Relaxed)).then_some(());
            testkit::eventually_async("it is complete, or not made", is_settled).await;
            assert_eq!(bed.store.transact(rows::intents).await.unwrap(), [], "{id}");
        }
    };
    tokio::select! {
        () = upkeep => panic!("it runs as long as it is polled"),
        () = interrupted => {}
    }
}

#[tokio::test]
async fn a_change_ends_tokens_until_the_latest_issue_and_of_living_clients_no_further_than_ten_minutes() {
    let bed = Bed::new(testing::settings()).await;
    let (now, minute) = (Timestamp::from_secs(1_000_000), Duration::from_secs(60));
    let (deletes, replaces) =
        (AccountChange::DeleteCredential("app_c".into()), AccountChange::DeleteUser("ada".into()));
    for (latest, deleted, replaced) in [
        (now.minus(minute), now, now),
        (now.plus(minute), now.plus(minute), now.plus(minute)),
        (now.plus(minute * 10), now.plus(minute * 10), now.plus(minute * 10)),
        (now.plus(minute * 11), now.plus(minute * 11), now.plus(minute * 10)),
    ] {
        bed.authority.latest_issue.store(latest.as_millis(), Ordering::Relaxed);
        assert_eq!(bed.authority.ends_until(&deletes, now), deleted);
        assert_eq!(bed.authority.ends_until(&replaces, now), replaced);
    }
}

#[tokio::test]
async fn a_token_that_outlives_the_record_of_its_key_has_it_recorded_at_once() {
    let bed = Bed::new(testing::settings()).await;
    let ring = bed.authority.ring.load_full();
    let millis = Duration::from_millis(1);
    let at = |expires_at| {
        bed.authority.announce(&ring, Timestamp::from_secs(5), expires_at);
        dropped_after(bed.authority.wake.notified(), 0)
    };
    assert_eq!(at(ring.recorded_until.minus(millis)).await, None);
    assert_eq!(at(ring.recorded_until).await, None);
    let later = ring.recorded_until.plus(millis);
    assert_eq!(at(later).await, Some(()));
    assert_eq!(bed.authority.latest_issue.load(Ordering::Relaxed), 5_000);
    assert_eq!(bed.authority.latest_expiry.load(Ordering::Relaxed), later.as_millis());
}

#[test]
fn the_old_secret_proves_until_its_end_and_the_new_one_always() {
    let (new, old) = (Secret::generate().unwrap(), Secret::generate().unwrap());
    let (millis, until) = (Duration::from_millis(1), Timestamp::from_secs(1_000));
    let credential = Credential {
        secret: new.hash().unwrap(),
        old_secret: Some((old.hash().unwrap(), until)),
        ..testing::credential("app_c", "ada", &[], &[])
    };
    assert_eq!(credential.old_secret_expires_at(), Some(until));
    for (now, old_proves) in [(until.minus(millis), true), (until, false), (until.plus(millis), false)] {
        assert_eq!(credential.proves(old.reveal(), now), old_proves);
        assert!(credential.proves(new.reveal(), now));
        assert!(!credential.proves("wrong", now));
    }
    let repeated = Credential { old_secret: Some((new.hash().unwrap(), until)), ..credential };
    assert!(repeated.proves(new.reveal(), until.minus(millis)), "both are right");
    let single = Credential { old_secret: None, ..repeated };
    assert_eq!(single.old_secret_expires_at(), None);
    assert!(!single.proves(old.reveal(), until.minus(millis)));
}

#[test]
fn a_credential_is_expired_from_its_end_on() {
    let (millis, end) = (Duration::from_millis(1), Timestamp::from_secs(1_000));
    let ending = Credential { expires_at: Some(end), ..testing::credential("app_c", "ada", &[], &[]) };
    assert!(!ending.is_expired(end.minus(millis)));
    assert!(ending.is_expired(end) && ending.is_expired(end.plus(millis)));
    assert!(!Credential { expires_at: None, ..ending }.is_expired(end));
}

#[test]
fn an_issuer_with_a_short_host_has_a_path() {
    let settings = Settings { issuer: "https://g/tenant".into(), ..testing::settings() };
    let path = "/.well-known/oauth-authorization-server/tenant";
    assert_eq!(settings.endpoint(path), Some(AuthorityEndpoint::Metadata));
}

#[tokio::test]
async fn documents_are_public_and_kept_half_as_long_as_a_key_is_published_ahead() {
    let settings = Settings { key_rotation: Duration::from_secs(100), ..testing::settings() };
    let bed = Bed::new(settings).await;
    let get = |method: Method, path: &'static str| {
        let (headers, bed) = (HeaderMap::new(), &bed);
        async move {
            let endpoint = bed.authority.endpoint(path).unwrap();
            let call = EndpointCall {
                method: &method,
                query: None,
                headers: &headers,
                body: None,
                address: ADDRESS,
                certificate: None,
            };
            bed.authority.answer(endpoint, &call, &bed.enforcer).await
        }
    };
    let json = |response: &Response<Bytes>| serde_json::from_slice::<Value>(response.body()).unwrap();
    let keys = get(Method::GET, "/.well-known/jwks.json").await;
    assert_eq!(
        (keys.status().as_u16(), &keys.headers()[CACHE_CONTROL]),
        (200, &"public, max-age=25".parse().unwrap())
    );
    assert_eq!(keys.body(), &bed.authority.ring.load().jwks);
    assert_eq!(get(Method::POST, "/.well-known/jwks.json").await.headers()[ALLOW], "GET, HEAD");
    let metadata = json(&get(Method::HEAD, "/.well-known/oauth-authorization-server").await);
    for (member, value) in [
        ("issuer", "https://gate.test"),
        ("token_endpoint", "https://gate.test/OAuth/Token"),
        ("jwks_uri", "https://gate.test/.well-known/jwks.json"),
    ] {
        assert_eq!(metadata[member], value, "{member}");
    }
}

#[tokio::test]
async fn token_requests_are_counted_by_their_error_and_others_are_not() {
    let bed = Bed::new(testing::settings()).await;
    bed.user("ada", &[]).await;
    let (id, secret) = bed.client("ada", &[], &[]).await;
    let counted = || {
        let count = |labels: &[&str]| bed.authority.metrics.token_requests.with_label_values(labels).get();
        (count(&["ok", "none"]), count(&["error", "invalid_client"]))
    };
    let body = format!("client_id={id}&client_secret={secret}&token=x");
    assert_eq!(bed.form(AuthorityEndpoint::Introspection, &body).await.0, 200);
    assert_eq!(counted(), (0, 0));
    let body = format!("{body}&grant_type=client_credentials");
    let (status, answer) = bed.form(AuthorityEndpoint::Token, &body).await;
    assert_eq!((status, &answer["expires_in"]), (200, &json!(3600)));
    assert_eq!(bed.form(AuthorityEndpoint::Token, "grant_type=client_credentials").await.0, 401);
    assert_eq!(counted(), (1, 1));
}

#[test]
fn the_client_that_a_call_names_is_that_of_its_form() {
    let headers = form_headers();
    let named = |method: Method, body: &'static [u8]| {
        let body = Some(body);
        named_client(&EndpointCall {
            method: &method,
            query: None,
            headers: &headers,
            body,
            address: ADDRESS,
            certificate: None,
        })
    };
    assert_eq!(named(Method::POST, b"client_id=app_c&client_secret=s"), Some("app_c".to_owned()));
    assert_eq!(named(Method::POST, b"client_id=app_c"), None, "half a pair");
    assert_eq!(named(Method::GET, b"client_id=app_c&client_secret=s"), None);
}

#[test]
fn an_answer_that_may_come_later_says_when() {
    assert_eq!(OauthError::Unavailable.to_response().headers()[RETRY_AFTER], "5");
    assert!(!OauthError::Scope.to_response().headers().contains_key(RETRY_AFTER));
}

#[tokio::test]
async fn a_token_is_bound_to_the_certificate_that_asks_for_it() {
    let bed = Bed::new(testing::settings()).await;
    bed.user("ada", &[]).await;
    let (client, secret) = bed.client("ada", &[], &["read:deals"]).await;
    let body = format!("grant_type=client_credentials&client_id={client}&client_secret={secret}");
    let (method, headers) = (Method::POST, form_headers());
    for (certificate, bound) in
        [(None, Value::Null), (Some(&[7; 32]), json!({"x5t#S256": URL_SAFE_NO_PAD.encode([7; 32])}))]
    {
        let call = EndpointCall {
            method: &method,
            query: None,
            headers: &headers,
            body: Some(body.as_bytes()),
            address: ADDRESS,
            certificate,
        };
        let response = bed.authority.answer(AuthorityEndpoint::Token, &call, &bed.enforcer).await;
        let answer: Value = serde_json::from_slice(response.body()).unwrap();
        let token = answer["access_token"].as_str().unwrap();
        let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        let payload: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!((&payload["cnf"], &answer["token_type"]), (&bound, &json!("Bearer")));
    }
}

#[tokio::test]
async fn nothing_is_granted_where_browsers_ask() {
    let bed = Bed::new(testing::settings()).await;
    let headers = HeaderMap::new();
    for (method, status, error, allow) in [
        (Method::GET, 400, "unsupported_response_type", None),
        (Method::HEAD, 400, "unsupported_response_type", None),
        (Method::POST, 400, "unsupported_response_type", None),
        (Method::PUT, 405, "method_not_allowed", Some("GET, HEAD, POST")),
    ] {
        let call = EndpointCall {
            method: &method,
            query: Some(b"response_type=code&redirect_uri=https%3A%2F%2Fevil.test"),
            headers: &headers,
            body: Some(b""),
            address: ADDRESS,
            certificate: None,
        };
        let response = bed.authority.answer(AuthorityEndpoint::Authorization, &call, &bed.enforcer).await;
        let answer: Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!((response.status().as_u16(), &answer["error"]), (status, &json!(error)), "{method}");
        assert_eq!(response.headers().get(ALLOW).map(|allow| allow.to_str().unwrap()), allow, "{method}");
        assert!(!response.headers().contains_key("location"), "{method}");
    }
}
