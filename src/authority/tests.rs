//! The authority on a store in memory: who gets which token, what a change ends, and what a crash leaves.

use std::net::{IpAddr, Ipv4Addr};
use std::task::Poll;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, Response};
use serde_json::{Value, json};

use super::changes::AccountChange;
use super::*;
use crate::enforce::claims::IssuerRules;
use crate::enforce::decide::{Asked, Enforcer, TrustedIssuer};
use crate::enforce::inspect::Inspection;
use crate::enforce::testing as enforce_testing;
use crate::state::record::EventKind;
use crate::time::Now;

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// An authority, the store it is on, and what judges its tokens.
struct Bed {
    store: Store,
    log: Arc<EventLog>,
    in_force: InForce,
    authority: Arc<Authority>,
    enforcer: Enforcer,
}

fn rules(settings: &Settings) -> IssuerRules {
    let rules = enforce_testing::rules(&settings.issuer, &ALGORITHMS);
    IssuerRules { audiences: vec![settings.audience.clone()], ..rules }
}

impl Bed {
    async fn new(settings: Settings) -> Self {
        Self::on(Store::in_memory(Now::read()).unwrap(), settings).await
    }

    /// As after a start, on what a store holds.
    async fn on(store: Store, settings: Settings) -> Self {
        let in_force = InForce::unlimited();
        let metrics = Metrics::new().unwrap();
        let log = EventLog::start(store.clone(), Arc::clone(&in_force.revocations)).await.unwrap();
        let rules = rules(&settings);
        let issuer = events::EventIssuer {
            issuer: Arc::clone(&rules.issuer),
            leeway: rules.leeway,
            max_lifetime: rules.max_lifetime,
        };
        let parts = Parts {
            store: store.clone(),
            log: Arc::clone(&log),
            in_force: in_force.clone(),
            issuers: Arc::new(ArcSwap::from_pointee(vec![issuer])),
            metrics: metrics.clone(),
        };
        let keys = keys::Settings {
            source: keys::KeySource::Authority,
            ..enforce_testing::key_settings(&settings.issuer, &ALGORITHMS)
        };
        let authority = Authority::open(settings, parts).await.unwrap();
        let issuer = TrustedIssuer { rules, keys: authority.key_store(&keys, None).unwrap() };
        let enforcer = enforce_testing::enforcer_with(vec![issuer], Vec::new(), in_force.clone());
        Self { store, log, in_force, authority, enforcer }
    }

    async fn reconfigure(&self, settings: Settings) {
        self.authority.commit(self.authority.plan(&settings).await.unwrap());
    }

    async fn user(&self, id: &str, roles: &[&str]) {
        let new = NewUser { id: id.to_owned(), name: String::new(), roles: strings(roles) };
        self.authority.create_user(new).await.unwrap();
    }

    async fn client(&self, owner: &str, roles: &[&str], scopes: &[&str]) -> (String, String) {
        let new = NewCredential {
            name: "robot".to_owned(),
            owner: owner.to_owned(),
            roles: strings(roles),
            scopes: strings(scopes),
            ..NewCredential::default()
        };
        let (credential, secret) = self.authority.create_credential(new).await.unwrap();
        (credential.client_id.to_string(), secret.reveal().to_owned())
    }

    async fn ask(&self, endpoint: AuthorityEndpoint, headers: &HeaderMap, body: &str) -> Response<Bytes> {
        let (method, body) = (Method::POST, Some(body.as_bytes()));
        let call =
            EndpointCall { method: &method, query: None, headers, body, address: ADDRESS, certificate: None };
        self.authority.answer(endpoint, &call, &self.enforcer).await
    }

    async fn form(&self, endpoint: AuthorityEndpoint, body: &str) -> (u16, Value) {
        let response = self.ask(endpoint, &form_headers(), body).await;
        (response.status().as_u16(), serde_json::from_slice(response.body()).unwrap_or_default())
    }

    async fn token(&self, (client, secret): &(String, String)) -> Result<String, String> {
        let body = format!("grant_type=client_credentials&client_id={client}&client_secret={secret}");
        match self.form(AuthorityEndpoint::Token, &body).await {
            (200, answer) => Ok(answer["access_token"].as_str().unwrap().to_owned()),
            (_, answer) => Err(answer["error"].as_str().unwrap().to_owned()),
        }
    }

    async fn set_password(&self, id: &str, password: Option<&str>) -> Result<Arc<User>, Refused> {
        self.authority.set_password(id, password.map(|text| text.to_owned().into())).await
    }

    async fn signs_in(&self, id: &str, password: &str) -> bool {
        let user = self.authority.sign_in(id, password.to_owned().into()).await;
        user.is_some_and(|user| *user.id == *id)
    }

    fn accepts(&self, token: &str) -> bool {
        matches!(
            self.enforcer.inspect(token, Asked::NOTHING, crate::time::Now::read()),
            Inspection::InForce(_)
        )
    }
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn form_headers() -> HeaderMap {
    HeaderMap::from_iter([(
        CONTENT_TYPE,
        "application/x-www-form-urlencoded; charset=utf-8".parse().unwrap(),
    )])
}

fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

#[tokio::test]
async fn a_token_says_what_rfc_9068_asks_for_and_is_accepted() {
    for algorithm in ALGORITHMS {
        let bed = Bed::new(Settings { signing_algorithm: algorithm, ..testing::settings() }).await;
        bed.user("ada", &["case-reader", "case-writer"]).await;
        let client = bed.client("ada", &["case-reader"], &["read:deals", "read:users"]).await;
        let token = bed.token(&client).await.unwrap();
        assert!(bed.accepts(&token));
        let mut claims = claims(&token);
        let (iat, exp) = (claims["iat"].take(), claims["exp"].take());
        assert_eq!(exp.as_i64().unwrap() - iat.as_i64().unwrap(), 3600);
        assert_eq!(claims["jti"].take().as_str().unwrap().len(), 22);
        let expected = json!({
            "iss": "https://gate.test", "aud": "https://api.test", "sub": "ada", "client_id": client.0,
            "scope": "read:deals read:users", "roles": ["case-reader"], "role_version": 1,
            "iat": null, "exp": null, "jti": null,
        });
        assert_eq!(claims, expected);
        assert_ne!(bed.token(&client).await.unwrap(), token, "several live side by side");
        assert!(bed.accepts(&token));
    }
}

#[tokio::test]
async fn a_change_of_roles_ends_tokens_and_new_ones_carry_what_is_left() {
    let bed = Bed::new(testing::settings()).await;
    bed.user("ada", &["reader", "writer"]).await;
    let both = bed.client("ada", &["reader", "writer"], &[]).await;
    let one = bed.client("ada", &["writer"], &[]).await;
    let (first, second) = (bed.token(&both).await.unwrap(), bed.token(&one).await.unwrap());

    let user = bed.authority.set_roles("ada", strings(&["reader"])).await.unwrap();
    assert_eq!(user.role_version, 2);
    assert!(!bed.accepts(&first) && !bed.accepts(&second), "every token of the user");
    let token = bed.token(&both).await.unwrap();
    assert_eq!(claims(&token)["roles"], json!(["reader"]));
    assert!(bed.accepts(&token), "in the very second of the change, by its version");
    assert_eq!(bed.token(&one).await, Err("unauthorized_client".to_owned()));

    bed.authority.set_roles("ada", strings(&["reader", "admin"])).await.unwrap();
    assert!(!bed.accepts(&token), "a role more is a change as well");
    assert_eq!(
        claims(&bed.token(&both).await.unwrap())["roles"],
        json!(["reader"]),
        "and not the credential's"
    );

    let before = bed.log.events(0, 100).await.unwrap().items.len();
    let same = bed.authority.set_roles("ada", strings(&["admin", "reader", "admin"])).await.unwrap();
    assert_eq!((same.role_version, bed.log.events(0, 100).await.unwrap().items.len()), (3, before));
}

#[tokio::test]
async fn what_is_deleted_is_of_no_use_and_its_successor_is() {
    let bed = Bed::new(testing::settings()).await;
    bed.user("ada", &["reader"]).await;
    bed.user("bob", &[]).await;
    let (kept, gone) = (bed.client("ada", &["reader"], &[]).await, bed.client("ada", &[], &[]).await);
    let others = bed.client("bob", &[], &[]).await;
    let [kept_token, gone_token, others_token] =
        [bed.token(&kept).await.unwrap(), bed.token(&gone).await.unwrap(), bed.token(&others).await.unwrap()];

    bed.authority.delete_credential(&gone.0).await.unwrap();
    assert_eq!((bed.accepts(&kept_token), bed.accepts(&gone_token)), (true, false));
    assert_eq!(bed.token(&gone).await, Err("invalid_client".to_owned()));
    assert_eq!(bed.authority.delete_credential(&gone.0).await, Err(Refused::NoCredential));

    bed.authority.delete_user("ada").await.unwrap();
    assert!(!bed.accepts(&kept_token) && bed.accepts(&others_token));
    assert_eq!(bed.token(&kept).await, Err("invalid_client".to_owned()));
    assert_eq!(bed.authority.credentials(None, None, 10).len(), 1);

    bed.user("ada", &[]).await;
    assert_eq!(bed.authority.user("ada").unwrap().role_version, 2, "never the version of tokens that ended");
    let token = bed.token(&bed.client("ada", &[], &[]).await).await.unwrap();
    assert!(bed.accepts(&token), "issued in the second after, so that the event does not end it");
    assert!(!bed.accepts(&kept_token));
}

#[tokio::test]
async fn a_new_secret_stops_the_old_one_or_lets_it_live_for_a_while() {
    let bed = Bed::new(testing::settings()).await;
    bed.user("ada", &[]).await;
    let old = bed.client("ada", &[], &[]).await;
    let token = bed.token(&old).await.unwrap();
    let hour = Duration::from_secs(3600);
    let (_, secret) = bed.authority.new_secret(&old.0, hour, false).await.unwrap();
    let newer = (old.0.clone(), secret.reveal().to_owned());
    assert!(bed.token(&old).await.is_ok() && bed.token(&newer).await.is_ok() && bed.accepts(&token));

    let (_, secret) = bed.authority.new_secret(&old.0, Duration::ZERO, true).await.unwrap();
    let newest = (old.0.clone(), secret.reveal().to_owned());
    assert!(bed.token(&old).await.is_err() && bed.token(&newer).await.is_err());
    assert!(!bed.accepts(&token), "ended");
    assert!(bed.accepts(&bed.token(&newest).await.unwrap()));
}

#[tokio::test]
async fn no_token_outlives_its_credential() {
    let bed = Bed::new(testing::settings()).await;
    bed.user("ada", &[]).await;
    let client = bed.client("ada", &[], &[]).await;
    let token = bed.token(&client).await.unwrap();
    let end = |after| Some(Some(Timestamp::from_secs(Timestamp::now().as_secs() + after)));
    let edit = |expires_at| bed.authority.edit_credential(&client.0, Edit { name: None, expires_at });
    edit(end(36_000)).await.unwrap();
    assert!(bed.accepts(&token), "it ends before");
    edit(end(100)).await.unwrap();
    assert!(!bed.accepts(&token), "it would not");
    let token = bed.token(&client).await.unwrap();
    let expires_at = bed.authority.credential(&client.0).unwrap().expires_at.unwrap();
    assert_eq!(claims(&token)["exp"], expires_at.as_secs());
    bed.reconfigure(Settings { token_lifetime: Duration::from_secs(60), ..testing::settings() }).await;
    edit(end(50_000)).await.unwrap();
    assert!(bed.accepts(&token), "it ends before");
    edit(end(90)).await.unwrap();
    assert!(!bed.accepts(&token), "earlier tokens lived longer");
    let token = bed.token(&client).await.unwrap();
    assert!(matches!(edit(end(0)).await, Err(Refused::Invalid { field: "expires_at", .. })));
    edit(Some(None)).await.unwrap();
    assert!(bed.accepts(&token));
}

#[tokio::test]
async fn whatever_is_wrong_with_a_client_looks_the_same() {
    let settings = Settings { tenant_parameter: Some("tenant_id".to_owned()), ..testing::settings() };
    let bed = Bed::new(settings).await;
    bed.user("ada", &[]).await;
    let new = |tenant: Option<&str>| NewCredential {
        name: "robot".to_owned(),
        owner: "ada".to_owned(),
        tenant: tenant.map(str::to_owned),
        ..NewCredential::default()
    };
    let (credential, secret) = bed.authority.create_credential(new(Some("acme"))).await.unwrap();
    let (without, its_secret) = bed.authority.create_credential(new(None)).await.unwrap();
    let body = |id: &str, secret: &str, tenant: &str| {
        format!("grant_type=client_credentials&client_id={id}&client_secret={secret}&tenant_id={tenant}")
    };
    let mut answers = Vec::new();
    for body in [
        body(&credential.client_id, "wrong", "acme"),
        body(&credential.client_id, secret.reveal(), "other"),
        body("app_nobody", secret.reveal(), "acme"),
        body(&without.client_id, its_secret.reveal(), "acme"),
    ] {
        let response = bed.ask(AuthorityEndpoint::Token, &form_headers(), &body).await;
        assert_eq!(response.headers()[WWW_AUTHENTICATE], "Basic realm=\"portcullis\", charset=\"UTF-8\"");
        answers.push((response.status(), response.headers().clone(), response.into_body()));
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(answers[0].0.as_u16(), 401);
    let (status, answer) =
        bed.form(AuthorityEndpoint::Token, &body(&credential.client_id, secret.reveal(), "")).await;
    assert_eq!((status, &answer["error"]), (400, &json!("invalid_request")));
    let (status, answer) =
        bed.form(AuthorityEndpoint::Token, &body(&credential.client_id, secret.reveal(), "acme")).await;
    assert_eq!(status, 200);
    assert_eq!(claims(answer["access_token"].as_str().unwrap())["tenant"], "acme");
}

#[tokio::test]
async fn guessing_is_slowed_for_known_and_unknown_clients_alike() {
    let bed = Bed::new(testing::settings()).await;
    bed.user("ada", &[]).await;
    let (known, other) = (bed.client("ada", &[], &[]).await, bed.client("ada", &[], &[]).await);
    for id in [known.0.as_str(), "app_unknown"] {
        let body = format!("grant_type=client_credentials&client_id={id}&client_secret=wrong");
        for _ in 0..10 {
            assert_eq!(bed.form(AuthorityEndpoint::Token, &body).await.0, 401);
        }
        let response = bed.ask(AuthorityEndpoint::Token, &form_headers(), &body).await;
        assert_eq!(response.status().as_u16(), 429);
        let wait: u64 = response.headers()[RETRY_AFTER].to_str().unwrap().parse().unwrap();
        assert!((1..=6).contains(&wait), "{wait}");
    }
    assert!(bed.token(&known).await.is_ok(), "a right secret passes");
    assert!(bed.token(&other).await.is_ok());
}

#[tokio::test]
async fn every_bad_request_has_its_error() {
    let bed = Bed::new(testing::settings()).await;
    bed.user("ada", &[]).await;
    let (id, secret) = bed.client("ada", &[], &["read:deals"]).await;
    let good = format!("grant_type=client_credentials&client_id={id}&client_secret={secret}");
    for (body, status, error) in [
        (String::new(), 400, "invalid_request"),
        (good.replace("grant_type=client_credentials", "grant_type="), 400, "invalid_request"),
        (good.replace("client_credentials&", "password&"), 400, "unsupported_grant_type"),
        (format!("{good}&grant_type=client_credentials"), 400, "invalid_request"),
        (format!("{good}&other=1&other=2"), 400, "invalid_request"),
        (format!("{good}&scope=read:users"), 400, "invalid_scope"),
        (format!("{good}&scope=read:deals++"), 400, "invalid_scope"),
        (format!("{good}&x=%ff"), 400, "invalid_request"),
        ("grant_type=client_credentials".to_owned(), 401, "invalid_client"),
        (format!("{good}&scope=read:deals&unknown=1&empty="), 200, ""),
    ] {
        let (found, answer) = bed.form(AuthorityEndpoint::Token, &body).await;
        assert_eq!((found, answer["error"].as_str().unwrap_or_default()), (status, error), "{body}");
        if status == 200 {
            let mut members: Vec<_> = answer.as_object().unwrap().keys().cloned().collect();
            members.sort();
            assert_eq!(members, ["access_token", "expires_in", "token_type"]);
        }
    }
    let call = |method, query: Option<&'static str>, content_type: &str, body| {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type.parse().unwrap())]);
        let (authority, enforcer) = (&bed.authority, &bed.enforcer);
        async move {
            let call = EndpointCall {
                method: &method,
                query: query.map(str::as_bytes),
                headers: &headers,
                body,
                address: ADDRESS,
                certificate: None,
            };
            let response = authority.answer(AuthorityEndpoint::Token, &call, enforcer).await;
            (response.status().as_u16(), response.headers().get(ALLOW).cloned())
        }
    };
    let (form, body) = ("application/x-www-form-urlencoded", Some(good.as_bytes()));
    assert_eq!(call(Method::POST, None, "application/json", body).await.0, 400);
    assert_eq!(call(Method::POST, None, "multipart/form-data; boundary=a", body).await.0, 400);
    assert_eq!(call(Method::POST, Some("client_secret=a"), form, body).await.0, 400);
    assert_eq!(call(Method::POST, Some("trace=a"), form, body).await.0, 200);
    assert_eq!(call(Method::POST, None, form, None).await.0, 413);
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::OPTIONS] {
        assert_eq!(call(method, None, form, body).await, (405, Some("POST".parse().unwrap())));
    }
}

#[tokio::test]
async fn a_client_revokes_its_own_tokens_and_introspection_knows() {
    let bed = Bed::new(testing::settings()).await;
    bed.user("ada", &["reader"]).await;
    let (one, other) =
        (bed.client("ada", &["reader"], &["read:deals"]).await, bed.client("ada", &[], &[]).await);
    let token = bed.token(&one).await.unwrap();
    let body = |client: &(String, String), token: &str| {
        format!("client_id={}&client_secret={}&token={token}&token_type_hint=x", client.0, client.1)
    };
    let inactive = (200, json!({ "active": false }));
    assert_eq!(
        bed.form(AuthorityEndpoint::Introspection, &body(&other, &token)).await,
        inactive,
        "of another client"
    );
    let introspection_clients = vec![other.0.clone()];
    bed.reconfigure(Settings { introspection_clients, ..testing::settings() }).await;
    let (status, answer) = bed.form(AuthorityEndpoint::Introspection, &body(&other, &token)).await;
    assert_eq!(status, 200);
    assert_eq!(bed.form(AuthorityEndpoint::Introspection, &body(&one, &token)).await.1, answer);
    for (member, value) in [
        ("active", json!(true)),
        ("client_id", json!(one.0)),
        ("sub", json!("ada")),
        ("scope", json!("read:deals")),
        ("roles", json!(["reader"])),
        ("token_type", json!("Bearer")),
        ("iss", json!("https://gate.test")),
    ] {
        assert_eq!(answer[member], value, "{member}");
    }
    assert_eq!(
        bed.form(AuthorityEndpoint::Revocation, &body(&other, &token)).await.1["error"],
        "invalid_grant"
    );
    assert!(bed.accepts(&token));
    assert_eq!(bed.form(AuthorityEndpoint::Revocation, &body(&one, &token)).await.0, 200);
    assert!(!bed.accepts(&token));
    assert_eq!(bed.form(AuthorityEndpoint::Revocation, &body(&one, &token)).await.0, 200, "again");
    assert_eq!(bed.form(AuthorityEndpoint::Revocation, &body(&one, "nonsense")).await.0, 200);
    assert_eq!(bed.form(AuthorityEndpoint::Introspection, &body(&one, &token)).await, inactive);
    assert_eq!(bed.form(AuthorityEndpoint::Introspection, &body(&one, "nonsense")).await, inactive);
    assert_eq!(bed.form(AuthorityEndpoint::Introspection, "token=x").await.0, 401);
    assert_eq!(bed.form(AuthorityEndpoint::Revocation, &body(&one, "")).await.0, 400);
}

#[tokio::test]
async fn basic_authentication_is_taken_encoded_and_raw() {
    let bed = Bed::new(testing::settings()).await;
    bed.user("ada", &[]).await;
    let (id, secret) = bed.client("ada", &[], &[]).await;
    for id in [id.clone(), id.replace('_', "%5F")] {
        let mut headers = form_headers();
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("{id}:{secret}"));
        headers.insert(AUTHORIZATION, format!("Basic {basic}").parse().unwrap());
        let response = bed.ask(AuthorityEndpoint::Token, &headers, "grant_type=client_credentials").await;
        assert_eq!(response.status().as_u16(), 200);
    }
}

#[tokio::test]
async fn a_change_that_was_cut_off_anywhere_is_whole_after_a_restart() {
    // What the store holds when the process ends behind each of the steps: intent; intent and event.
    for published in [false, true] {
        let bed = Bed::new(testing::settings()).await;
        bed.user("ada", &["reader", "writer"]).await;
        let client = bed.client("ada", &["writer"], &[]).await;
        let gone = bed.client("ada", &[], &[]).await;
        let (token, gone_token) = (bed.token(&client).await.unwrap(), bed.token(&gone).await.unwrap());
        let user = bed.authority.user("ada").unwrap();
        let changed = User { roles: vec!["reader".into()], role_version: 2, ..User::clone(&user) };
        let at = Now::read();
        for change in [
            AccountChange::SetRoles(Arc::new(changed)),
            AccountChange::DeleteCredential(gone.0.as_str().into()),
        ] {
            let text = serde_json::to_string(&change).unwrap();
            bed.store.transact(move |db| rows::put_intent(db, &text)).await.unwrap();
            if published {
                let event = change.event(&bed.authority.event_issuer(), at.wall).unwrap();
                bed.log.publish(vec![event], crate::state::record::EventSource::Authority, at).await.unwrap();
            }
        }
        let Bed { store, authority, log, in_force, enforcer } = bed;
        drop((authority, log, in_force, enforcer));

        let bed = Bed::on(store, testing::settings()).await;
        assert_eq!(*bed.authority.user("ada").unwrap().roles, [Box::from("reader")]);
        assert!(!bed.accepts(&token) && !bed.accepts(&gone_token));
        assert!(bed.authority.credential(&gone.0).is_none());
        assert_eq!(bed.token(&client).await, Err("unauthorized_client".to_owned()));
        assert_eq!(bed.store.transact(rows::intents).await.unwrap(), []);
        let items = bed.log.events(0, 10).await.unwrap().items;
        for kind in [EventKind::RoleChanged, EventKind::ClientRevoked] {
            assert!(items.iter().any(|item| item.event.kind == kind));
        }
    }
}

/// Polls a future until it has been pending so often, then drops it; what it answered, if it did.
async fn dropped_after<T>(future: impl Future<Output = T>, polls: usize) -> Option<T> {
    let (mut future, mut left) = (std::pin::pin!(future), polls);
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

#[tokio::test]
async fn a_change_that_is_dropped_anywhere_is_rolled_back_and_then_completed_or_not_made() {
    for kind in ["roles", "user", "secret", "credential"] {
        let (mut dropped, mut whole) = (0, 0);
        // How often it is pending depends on the store's thread, too.
        for polls in (0..5).cycle().take(15) {
            let bed = Bed::new(testing::settings()).await;
            bed.user("ada", &["reader", "writer"]).await;
            let password = Some(PasswordHash::nobody());
            let given = AccountChange::SetPassword { id: "ada".into(), password };
            bed.authority.try_to_carry_out(given).await.unwrap();
            let client = bed.client("ada", &["writer"], &[]).await;
            let token = bed.token(&client).await.unwrap();
            let (user, credential) =
                (bed.authority.user("ada").unwrap(), bed.authority.credential(&client.0).unwrap());
            let demoted = User { roles: vec!["reader".into()], role_version: 2, ..User::clone(&user) };
            let other = Secret::generate().unwrap();
            let renewed = Credential { secret: other.hash().unwrap(), ..Credential::clone(&credential) };
            let change = match kind {
                "roles" => AccountChange::SetRoles(Arc::new(demoted)),
                "user" => AccountChange::DeleteUser("ada".into()),
                "secret" => AccountChange::PutCredential { credential: Arc::new(renewed), end_tokens: true },
                _ => AccountChange::DeleteCredential(client.0.as_str().into()),
            };
            let outcome = dropped_after(bed.authority.try_to_carry_out(change), polls).await;
            if outcome.is_none() {
                let found =
                    (bed.authority.user("ada").unwrap(), bed.authority.credential(&client.0).unwrap());
                assert!(Arc::ptr_eq(&found.0, &user) && Arc::ptr_eq(&found.1, &credential), "{kind} {polls}");
                assert!(bed.authority.unsettled.load(Ordering::Relaxed), "{kind} {polls}");
            }
            drop(bed.authority.settled_alone().await.unwrap());
            assert_eq!(bed.store.transact(rows::intents).await.unwrap(), [], "{kind} {polls}");
            // Whole or not made: a client that gets no new token has no accepted one either.
            let is_made = !bed.accepts(&token);
            assert_eq!(bed.token(&client).await.is_err(), is_made, "{kind} {polls}");
            let shown = (bed.authority.users(None, 9), bed.authority.credentials(None, None, 9));
            bed.authority.refresh().await.unwrap();
            let stored = (bed.authority.users(None, 9), bed.authority.credentials(None, None, 9));
            assert_eq!(shown, stored, "{kind} {polls}");
            assert!(stored.0.iter().all(|user| user.has_password()), "{kind} {polls}: {:?}", stored.0);
            assert!(is_made || outcome.is_none(), "{kind} {polls}: what was answered holds");
            (dropped, whole) = (dropped + i32::from(outcome.is_none()), whole + i32::from(is_made));
        }
        assert!(dropped > 0 && whole > 0, "{kind}: {dropped} were dropped, {whole} are made");
    }
}

#[tokio::test]
async fn a_user_signs_in_with_its_own_password_only() {
    let bed = Bed::new(testing::settings()).await;
    for user in ["ada", "bob", "carl"] {
        bed.user(user, &[]).await;
    }
    assert!(!bed.authority.has_password_users());
    let user = bed.set_password("ada", Some("the password of ada")).await.unwrap();
    assert_eq!(bed.authority.user("ada").unwrap(), user);
    bed.set_password("bob", Some("the password of bob")).await.unwrap();
    assert!(bed.authority.has_password_users());
    for (id, password, is_right) in [
        ("ada", "the password of ada", true),
        ("ada", "the password of bob", false),
        ("ada", "the password of ad", false),
        ("ada", "the password of ada ", false),
        ("ada", "", false),
        ("bob", "the password of bob", true),
        ("bob", "the password of ada", false),
        ("carl", "the password of ada", false),
        ("carl", "", false),
        ("ADA", "the password of ada", false),
        ("nobody", "the password of ada", false),
        ("", "", false),
    ] {
        assert_eq!(bed.signs_in(id, password).await, is_right, "{id:?} {password:?}");
    }
    let long = "x".repeat(1 << 20);
    assert!(!bed.signs_in("ada", &long).await);

    let stamp = |id| bed.authority.user(id).unwrap().password_stamp();
    let (before, of_bob) = (stamp("ada"), stamp("bob"));
    bed.set_password("ada", Some("the password of ada")).await.unwrap();
    assert!(before.is_some() && stamp("ada") != before, "the same text set again ends sessions, too");
    bed.set_password("ada", Some("another password")).await.unwrap();
    assert!(
        !bed.signs_in("ada", "the password of ada").await && bed.signs_in("ada", "another password").await
    );
    assert_eq!(stamp("bob"), of_bob);
    bed.set_password("ada", None).await.unwrap();
    assert!(!bed.signs_in("ada", "another password").await);
    assert_eq!((stamp("ada"), stamp("carl")), (None, None));
    bed.set_password("ada", None).await.unwrap();
    bed.set_password("bob", None).await.unwrap();
    assert!(!bed.authority.has_password_users());
}

#[tokio::test]
async fn a_password_that_cannot_be_set_leaves_the_one_before() {
    let bed = Bed::new(testing::settings()).await;
    bed.user("ada", &[]).await;
    bed.set_password("ada", Some("correct horse")).await.unwrap();
    for refused in ["", "1234567", &"x".repeat(1_025)] {
        let refused = bed.set_password("ada", Some(refused)).await.unwrap_err();
        assert!(matches!(refused, Refused::Invalid { field: "password", .. }), "{refused:?}");
    }
    assert_eq!(bed.set_password("nobody", Some("correct horse")).await, Err(Refused::NoUser));
    assert_eq!(bed.set_password("nobody", None).await, Err(Refused::NoUser));
    let broken = "CREATE TRIGGER broken BEFORE UPDATE ON users BEGIN SELECT RAISE(ABORT, 'broken'); END";
    bed.store.transact(|db| db.execute_batch(broken)).await.unwrap();
    for password in [Some("another password"), None] {
        assert!(matches!(bed.set_password("ada", password).await, Err(Refused::Store(_))));
    }
    assert!(bed.signs_in("ada", "correct horse").await && !bed.signs_in("ada", "another password").await);
}

#[tokio::test]
async fn a_password_outlives_changes_of_roles_and_restarts_but_not_its_user() {
    let mut bed = Bed::new(testing::settings()).await;
    bed.user("ada", &["reader", "writer"]).await;
    let user = bed.set_password("ada", Some("correct horse")).await.unwrap();
    let client = bed.client("ada", &["writer"], &[]).await;
    let token = bed.token(&client).await.unwrap();
    let stamp = user.password_stamp();
    for roles in [&["reader"][..], &[], &["writer"]] {
        bed.authority.set_roles("ada", strings(roles)).await.unwrap();
        for restarted in [false, true] {
            let user = bed.authority.user("ada").unwrap();
            assert_eq!(user.password_stamp(), stamp, "{roles:?} {restarted}");
            assert_eq!(user.roles.len(), roles.len());
            assert!(bed.authority.has_password_users());
            let store = bed.store.clone();
            bed = Bed::on(store, testing::settings()).await;
        }
    }
    assert!(bed.signs_in("ada", "correct horse").await && !bed.accepts(&token));

    let token = bed.token(&client).await.unwrap();
    bed.set_password("ada", Some("another password")).await.unwrap();
    assert!(bed.accepts(&token), "a password ends no token");
    bed.authority.delete_user("ada").await.unwrap();
    assert!(!bed.signs_in("ada", "another password").await && !bed.authority.has_password_users());
    bed.user("ada", &["reader"]).await;
    let store = bed.store.clone();
    for bed in [bed, Bed::on(store, testing::settings()).await] {
        assert_eq!(bed.authority.user("ada").unwrap().password, None, "the id is another user's now");
        assert!(!bed.signs_in("ada", "another password").await && !bed.authority.has_password_users());
    }
}

#[tokio::test]
async fn a_change_of_roles_that_is_completed_late_brings_back_no_old_password() {
    for (later, published) in
        [(Some("another password"), false), (None, false), (Some("another password"), true)]
    {
        let bed = Bed::new(testing::settings()).await;
        bed.user("ada", &["reader", "writer"]).await;
        bed.set_password("ada", Some("correct horse")).await.unwrap();
        let before = bed.authority.user("ada").unwrap();
        let demoted = User { roles: vec!["reader".into()], role_version: 2, ..User::clone(&before) };
        let change = AccountChange::SetRoles(Arc::new(demoted));
        if published {
            let at = Now::read();
            let event = change.event(&bed.authority.event_issuer(), at.wall).unwrap();
            bed.log.publish(vec![event], crate::state::record::EventSource::Authority, at).await.unwrap();
        }
        let text = serde_json::to_string(&change).unwrap();
        assert!(!text.contains("argon2"), "{text}");
        bed.store.transact(move |db| rows::put_intent(db, &text)).await.unwrap();
        // As another process would find it, and as this one completes it before it sets the next password.
        let store = bed.store.clone();
        let hash = later.map(|text| PasswordHash::make(text).unwrap());
        store.transact(move |db| rows::put_password(db, "ada", hash.as_ref())).await.unwrap();
        for bed in
            [Bed::on(store.clone(), testing::settings()).await, Bed::on(store, testing::settings()).await]
        {
            let user = bed.authority.user("ada").unwrap();
            assert_eq!((*user.roles).to_vec(), [Box::from("reader")], "{later:?}");
            assert_eq!(user.has_password(), later.is_some());
            assert!(!bed.signs_in("ada", "correct horse").await, "{later:?}");
            assert_eq!(bed.signs_in("ada", "another password").await, later.is_some());
            assert_eq!(bed.authority.has_password_users(), later.is_some());
            assert_eq!(bed.store.transact(rows::intents).await.unwrap(), []);
        }
        bed.authority.unsettled.store(true, Ordering::Relaxed);
        bed.set_password("ada", Some("a third password")).await.unwrap();
        assert!(bed.signs_in("ada", "a third password").await);
    }
}

#[tokio::test]
async fn a_password_that_changes_while_it_is_checked_signs_nobody_in() {
    let bed = Bed::new(testing::settings()).await;
    for (change, is_let_in) in [("none", true), ("roles", true), ("password", false), ("deleted", false)] {
        bed.user("ada", &["reader"]).await;
        bed.set_password("ada", Some("correct horse")).await.unwrap();
        let busy = Arc::clone(&bed.authority.hashing).acquire_many_owned(2).await.unwrap();
        let mut signing_in = Box::pin(bed.authority.sign_in("ada", "correct horse".to_owned().into()));
        let is_waiting =
            std::future::poll_fn(|context| Poll::Ready(signing_in.as_mut().poll(context).is_pending()));
        assert!(is_waiting.await, "the check waits its turn");
        match change {
            "roles" => drop(bed.authority.set_roles("ada", Vec::new()).await.unwrap()),
            "password" => drop(bed.set_password("ada", None).await.unwrap()),
            "deleted" => bed.authority.delete_user("ada").await.unwrap(),
            _ => {}
        }
        drop(busy);
        let user = signing_in.await;
        assert_eq!(user.is_some(), is_let_in, "{change}");
        if let Some(user) = user {
            assert_eq!(bed.authority.user("ada"), Some(user), "as it is now");
        }
        drop(bed.authority.delete_user("ada").await);
    }
}

#[tokio::test]
async fn two_passwords_are_hashed_at_a_time_also_when_their_callers_have_gone() {
    let bed = Bed::new(testing::settings()).await;
    let (begun, mut begins) = tokio::sync::mpsc::channel(4);
    let mut jobs = Vec::new();
    for number in 0..4 {
        let (finish, finished) = std::sync::mpsc::sync_channel::<()>(1);
        let (authority, begun) = (Arc::clone(&bed.authority), begun.clone());
        let job = tokio::spawn(async move {
            let work = move || begun.try_send(number).is_ok() && finished.recv().is_ok();
            authority.hash_in_turn(work).await
        });
        tokio::task::yield_now().await;
        jobs.push((finish, job));
    }
    let mut started = [begins.recv().await.unwrap(), begins.recv().await.unwrap()];
    started.sort_unstable();
    assert_eq!(started, [0, 1], "in their order");
    jobs[0].1.abort();
    jobs[2].1.abort();
    assert!((&mut jobs[0].1).await.is_err() && (&mut jobs[2].1).await.is_err());
    assert_eq!(bed.authority.hashing.available_permits(), 0, "what has begun still counts");
    assert!(begins.try_recv().is_err());
    jobs[0].0.send(()).unwrap();
    assert_eq!(begins.recv().await, Some(3), "who has gone before its turn takes none");
    for (place, (finish, job)) in jobs.into_iter().enumerate().filter(|(place, _)| [1, 3].contains(place)) {
        finish.send(()).unwrap();
        assert_eq!(job.await.unwrap(), Ok(true), "{place}");
    }
    assert_eq!(bed.authority.hashing.available_permits(), password::HASHED_AT_ONCE);
}

#[tokio::test]
async fn a_restart_keeps_users_credentials_and_keys() {
    let bed = Bed::new(testing::settings()).await;
    bed.user("ada", &["reader"]).await;
    let client = bed.client("ada", &["reader"], &["read:deals"]).await;
    let (token, credential) =
        (bed.token(&client).await.unwrap(), bed.authority.credential(&client.0).unwrap());
    let bed = Bed::on(bed.store.clone(), testing::settings()).await;
    assert!(bed.accepts(&token));
    assert_eq!(bed.authority.credential(&client.0).unwrap(), credential);
    assert!(bed.token(&client).await.is_ok());
}

#[tokio::test]
async fn a_store_that_fails_changes_nothing() {
    let (bed, events) = (Bed::new(testing::settings()).await, Store::in_memory(Now::read()).unwrap());
    bed.user("ada", &["reader"]).await;
    let client = bed.client("ada", &["reader"], &[]).await;
    // The events are in another store, as they are beside a shared one; it stops taking them.
    let in_force = bed.in_force.clone();
    let log = EventLog::start(events.clone(), Arc::clone(&in_force.revocations)).await.unwrap();
    events.transact(|db| db.execute_batch("DROP TABLE events")).await.unwrap();
    let parts = Parts {
        store: bed.store.clone(),
        log,
        in_force,
        issuers: Arc::default(),
        metrics: Metrics::new().unwrap(),
    };
    let authority = Authority::open(testing::settings(), parts).await.unwrap();
    let bed = Bed { authority, ..bed };
    let token = bed.token(&client).await.unwrap();

    assert!(matches!(bed.authority.set_roles("ada", Vec::new()).await, Err(Refused::Store(_))));
    assert!(matches!(bed.authority.delete_user("ada").await, Err(Refused::Store(_))));
    assert!(matches!(bed.authority.delete_credential(&client.0).await, Err(Refused::Store(_))));
    let user = bed.authority.user("ada").unwrap();
    assert_eq!((*user.roles).to_vec(), [Box::from("reader")]);
    assert_eq!(user.role_version, 2, "the event may have come through, and tokens must be newer than it");
    let wanted = provided::wanted("ada", "", &["writer"], true);
    assert!(matches!(bed.authority.provide(vec![wanted]).await, Err(Refused::Store(_))));
    let user = bed.authority.user("ada").unwrap();
    assert_eq!(((*user.roles).to_vec(), user.role_version), (vec![Box::from("reader")], 3));
    assert!(bed.accepts(&token) && bed.token(&client).await.is_ok());
    assert_eq!(bed.store.transact(rows::intents).await.unwrap(), []);
}

#[test]
fn paths_and_metadata_follow_the_issuer() {
    let settings = Settings { issuer: "https://gate.test/tenant/".into(), ..testing::settings() };
    for (path, endpoint) in [
        ("/oauth/token", Some(AuthorityEndpoint::Token)),
        ("/OAUTH/tOKEN", Some(AuthorityEndpoint::Token)),
        ("/oauth/token/", None),
        ("/oauth/authorize", Some(AuthorityEndpoint::Authorization)),
        ("/oauth/revoke", Some(AuthorityEndpoint::Revocation)),
        ("/OAuth/Revoke", None),
        ("/oauth/introspect", Some(AuthorityEndpoint::Introspection)),
        ("/.well-known/jwks.json", Some(AuthorityEndpoint::Keys)),
        ("/.well-known/oauth-authorization-server", Some(AuthorityEndpoint::Metadata)),
        ("/.well-known/oauth-authorization-server/tenant", Some(AuthorityEndpoint::Metadata)),
        ("/.well-known/oauth-authorization-server/other", None),
        ("/", None),
    ] {
        assert_eq!(settings.endpoint(path), endpoint, "{path}");
    }
    assert_eq!(testing::settings().endpoint("/.well-known/oauth-authorization-server/"), None);
}

mod boundaries;
mod provided;
