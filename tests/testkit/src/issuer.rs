//! The sources of an issuer's keys: a file, or a server that can be made to misbehave.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::pki::Identity;
use crate::raw_upstream::{Exchange, Next, RawUpstream};

/// The key source of an issuer in the configuration.
pub enum Source {
    /// A JWKS file, relative to the configuration.
    File(String),
    /// A JWKS URL.
    Url(String),
    /// Discovery from the issuer's name.
    Discovery,
    /// A shared secret.
    Secret(String),
}

impl Source {
    /// The line for the issuer's table.
    pub fn toml(&self) -> String {
        match self {
            Self::File(path) => format!("jwks_file = {path:?}"),
            Self::Url(url) => format!("jwks_url = {url:?}"),
            Self::Discovery => "discovery = true".to_owned(),
            Self::Secret(secret) => format!("secret = {secret:?}"),
        }
    }
}

/// How the key server responds to a request for keys.
#[derive(Clone)]
pub enum Answer {
    /// 200 with this JSON.
    Keys(Value),
    /// These bytes as the whole response.
    Raw(Vec<u8>),
    /// No response: the connection stays open and silent until the client closes it.
    Silence,
    /// The connection is closed at once.
    HangUp,
}

/// An HTTP server for key sets, which counts requests.
pub struct KeyServer {
    upstream: RawUpstream,
    answer: Arc<Mutex<Answer>>,
}

impl KeyServer {
    /// Serves this key set at `/jwks`, and OpenID metadata that refers to it.
    pub fn start(keys: Value) -> Self {
        let answer = Arc::new(Mutex::new(Answer::Keys(keys)));
        let current = answer.clone();
        let upstream = RawUpstream::scripted(move |exchange| serve(exchange, &current, "http"));
        Self { upstream, answer }
    }

    /// Like [`Self::start`], over TLS.
    pub fn with_tls(keys: Value, identity: &Identity) -> Self {
        let answer = Arc::new(Mutex::new(Answer::Keys(keys)));
        let current = answer.clone();
        let tls = identity.server_config(&[], None);
        let upstream = RawUpstream::with_tls(tls, move |exchange| serve(exchange, &current, "https"));
        Self { upstream, answer }
    }

    /// Changes how it responds.
    pub fn set(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    /// Changes the key set.
    pub fn set_keys(&self, keys: Value) {
        self.set(Answer::Keys(keys));
    }

    /// The URL of the key set.
    pub fn jwks_url(&self) -> String {
        format!("{}/jwks", self.upstream.url())
    }

    /// The URL of the key set, with `localhost` instead of the address.
    pub fn named_jwks_url(&self) -> String {
        format!("{}/jwks", self.upstream.named_url())
    }

    /// The issuer's name, for discovery.
    pub fn issuer_url(&self) -> String {
        self.upstream.url()
    }

    /// How often the keys were requested.
    pub fn fetches(&self) -> usize {
        self.upstream.seen().iter().filter(|seen| seen.target() == "/jwks").count()
    }

    /// How often the metadata was requested.
    pub fn discoveries(&self) -> usize {
        self.upstream.seen().iter().filter(|seen| seen.target().contains("/.well-known/")).count()
    }
}

fn serve(exchange: &mut Exchange<'_>, answer: &Mutex<Answer>, scheme: &str) -> Next {
    const JSON: &str = "content-type: application/json\r\n";
    if exchange.request.target() == "/.well-known/openid-configuration" {
        let issuer = format!("{scheme}://{}", exchange.request.field("host").unwrap());
        let metadata = json!({"issuer": issuer, "jwks_uri": format!("{issuer}/jwks")});
        return exchange.answer("200 OK", JSON, &metadata.to_string());
    }
    if exchange.request.target() != "/jwks" {
        return exchange.answer("404 Not Found", "", "");
    }
    let current = answer.lock().unwrap().clone();
    match current {
        Answer::Keys(keys) => exchange.answer("200 OK", JSON, &keys.to_string()),
        Answer::Raw(bytes) => {
            exchange.send(bytes);
            Next::Close
        }
        Answer::Silence => exchange.wait_for_close(),
        Answer::HangUp => Next::Close,
    }
}
