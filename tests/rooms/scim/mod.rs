//! The SCIM endpoints without sockets: each response byte for byte, and the events that a change brings.
#![expect(clippy::unwrap_used, reason = "helpers of a test fail as the test does")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderName};
use http::{HeaderMap, Method};
use portcullis::authority::Authority;
use portcullis::events::{EventIssuer, EventLog};
use portcullis::metrics::Metrics;
use portcullis::signals::scim::{Provider, ScimDirectories, Settings, SubjectAttribute};
use portcullis::signals::{Concealed, SignalLog, SignalRequest};
use portcullis::state::Store;
use portcullis::time::{Now, Timestamp};
use serde_json::{Value, json};

use crate::signal_log::Published;

mod accounts;
mod bad;
mod changing;
mod discovery;
mod groups;
mod reading;
mod stores;

const ISSUER: &str = "https://idp.example.com/";
const BASE: &str = "https://gate.example.com/signals/scim/idp";
pub(crate) const TOKEN: &str = "Bearer one-secret";

/// A provider whose users are named by `userName`, and whose group `Admins` gives the role `admin`.
struct Bed {
    provider: Arc<Provider>,
    log: Arc<EventLog>,
    metrics: Metrics,
    /// The ids of resources by the names that tests give them.
    ids: BTreeMap<&'static str, String>,
}

/// A response.
#[derive(Debug)]
struct Said {
    status: u16,
    fields: HeaderMap,
    text: String,
}

impl Said {
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(|value| value.to_str().unwrap())
    }

    /// The document of a response with this status.
    #[track_caller]
    fn json(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.field("content-type"), Some("application/scim+json"), "{self:?}");
        assert_eq!(self.field("cache-control"), Some("no-store"), "{self:?}");
        serde_json::from_str(&self.text).unwrap()
    }

    /// Asserts that it has this status and no body.
    #[track_caller]
    fn is_empty(&self, status: u16) {
        assert_eq!((self.status, self.text.as_str()), (status, ""), "{self:?}");
        assert_eq!(self.field("cache-control"), Some("no-store"), "{self:?}");
    }
}

/// The provider `idp` of these accounts, or of users whom the gate knows nothing else of.
pub(crate) fn provider(
    store: Store,
    signals: Arc<SignalLog>,
    accounts: Option<Arc<Authority>>,
) -> Arc<Provider> {
    let settings = Settings {
        name: "idp".to_owned(),
        tokens: ["one-secret", "next-secret"].map(|token| Concealed::new(token.to_owned())).to_vec(),
        issuer: EventIssuer {
            issuer: ISSUER.into(),
            leeway: Duration::from_secs(30),
            max_lifetime: Duration::from_secs(3600),
        },
        subject: SubjectAttribute::UserName,
        roles: BTreeMap::from([("Admins".to_owned(), "admin".to_owned())]),
    };
    Provider::new(settings, BASE, &ScimDirectories::new(store), signals, accounts)
}

impl Bed {
    async fn start() -> Self {
        Self::over(Store::in_memory(Now::read()).unwrap()).await
    }

    /// Starts a provider that knows nothing but what is in this store.
    async fn over(store: Store) -> Self {
        let metrics = Metrics::new().unwrap();
        let published = Published::over(store.clone(), &metrics).await;
        Self::with(store, metrics, published, None)
    }

    /// Starts a provider of these accounts, or of users whom the gate knows nothing else of.
    fn with(store: Store, metrics: Metrics, published: Published, accounts: Option<Arc<Authority>>) -> Self {
        let Published { log, signals, .. } = published;
        let provider = provider(store, signals, accounts);
        Self { provider, log, metrics, ids: BTreeMap::new() }
    }

    /// A provider with the users `ada` and `bob` and the group `G` with `ada` as its member.
    async fn populated() -> Self {
        let mut bed = Self::start().await;
        bed.populate().await;
        bed
    }

    async fn populate(&mut self) {
        for name in ["ada", "bob"] {
            let emails = json!([{"value": format!("{name}@example.com"), "type": "work"}]);
            self.create("/Users", name, &json!({"userName": name, "emails": emails})).await;
        }
        self.create("/Groups", "g", &json!({"displayName": "G", "members": [{"value": "{ada}"}]})).await;
    }

    fn named(&self, text: &str) -> String {
        self.ids.iter().fold(text.to_owned(), |text, (name, id)| text.replace(&format!("{{{name}}}"), id))
    }

    async fn create(&mut self, path: &str, name: &'static str, body: &Value) -> Value {
        let shown = self.send(&format!("POST {path}"), &body.to_string()).await.json(201);
        self.ids.insert(name, shown["id"].as_str().unwrap().to_owned());
        shown
    }

    /// Sends a request of the provider. `{name}` stands for the id of the resource that was created by this name.
    async fn send(&self, line: &str, body: &str) -> Said {
        self.send_with(line, &[("authorization", TOKEN)], Some(body)).await
    }

    async fn get(&self, path: &str) -> Said {
        self.send(&format!("GET {path}"), "").await
    }

    /// Sends a change that is made only to one of these versions.
    async fn send_if(&self, line: &str, tags: &str, body: &str) -> Said {
        self.send_with(line, &[("authorization", TOKEN), ("if-match", tags)], Some(body)).await
    }

    /// Sends a PATCH with these operations.
    async fn patch(&self, path: &str, operations: &Value) -> Said {
        self.send(&format!("PATCH {path}"), &json!({"Operations": operations}).to_string()).await
    }

    /// Sends a request with these fields; without a body, it was too large to be read.
    async fn send_with(&self, line: &str, fields: &[(&str, &str)], body: Option<&str>) -> Said {
        let (method, target) = line.split_once(' ').unwrap();
        let target = format!("/v2{}", self.named(target));
        let (path, query) =
            target.split_once('?').map_or((&*target, None), |(path, query)| (path, Some(query)));
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        let body = body.map(|body| self.named(body));
        let request = SignalRequest {
            method: &Method::try_from(method).unwrap(),
            path,
            query: query.map(str::as_bytes),
            headers: &headers,
            body: body.as_deref().map(str::as_bytes),
            address: "192.0.2.1".parse().unwrap(),
        };
        let (head, body) = self.provider.answer(&request).await.into_parts();
        let text = String::from_utf8(body.to_vec()).unwrap();
        Said { status: head.status.as_u16(), fields: head.headers, text }
    }

    /// The events so far: type and subject.
    async fn events(&self) -> Vec<String> {
        let events = self.log.events(0, 1_000).await.unwrap().items;
        events
            .iter()
            .map(|stored| {
                format!(
                    "{} {}",
                    stored.event.kind.as_str(),
                    stored.event.subject.as_deref().unwrap_or_default()
                )
            })
            .collect()
    }

    /// Waits for another millisecond: events of the same kind, subject and moment are one event.
    async fn another_moment(&self) {
        let before = Timestamp::now();
        while Timestamp::now() == before {
            tokio::task::yield_now().await;
        }
    }

    /// Everything that the provider can read.
    async fn everything(&self) -> [Value; 2] {
        [self.get("/Users").await.json(200), self.get("/Groups").await.json(200)]
    }

    /// How many requests were counted as refused.
    fn refused(&self) -> u64 {
        self.metrics.signals.with_label_values(&["scim", "none", "no"]).get()
    }
}

/// Takes `meta` out of a resource and checks what it says.
#[track_caller]
fn take_meta(shown: &mut Value, kind: &str) -> Value {
    let meta = shown.as_object_mut().unwrap().remove("meta").unwrap();
    let id = shown["id"].as_str().unwrap();
    assert_eq!(meta["resourceType"], json!(kind));
    assert_eq!(meta["location"], json!(format!("{BASE}/v2/{kind}s/{id}")));
    assert!(meta["created"].is_string() && meta["lastModified"].is_string(), "{meta}");
    meta
}

#[tokio::test]
async fn only_the_tokens_of_the_provider_open_its_endpoints() {
    let bed = Bed::populated().await;
    let refused = bed.refused();
    let error = json!({
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"],
        "status": "401", "detail": "a bearer token of this provider is required",
    });
    let mut count = 0;
    for fields in [
        &[][..],
        &["Bearer"],
        &["Bearer "],
        &["Bearer one-secre"],
        &["Bearer one-secrets"],
        &["Basic one-secret"],
        &["one-secret"],
        &[TOKEN, TOKEN],
    ] {
        let fields: Vec<_> = fields.iter().map(|value| (AUTHORIZATION.as_str(), *value)).collect();
        for line in ["GET /Users", "GET /ServiceProviderConfig", "POST /Users", "GET /none"] {
            let said = bed.send_with(line, &fields, Some("")).await;
            assert_eq!(said.json(401), error, "{fields:?} {line}");
            assert_eq!(said.field("www-authenticate"), Some(r#"Bearer realm="portcullis-scim""#));
            count += 1;
        }
    }
    assert_eq!(bed.refused() - refused, count);
    for value in [TOKEN, "bearer next-secret"] {
        let said = bed.send_with("GET /Users", &[("authorization", value)], Some("")).await;
        assert_eq!(said.json(200)["totalResults"], json!(2), "{value}");
    }
}
