//! The demo's own requests: those of an administrator, an application and a caller of the API.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, SET_COOKIE};
use http::{Method, Request, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use crate::client::{Client, Url};
use crate::tls;

/// Calls the gate over TLS and its admin listener, one request at a time.
pub(super) struct DemoVisitor {
    runtime: Runtime,
    client: Client,
    gate: String,
    admin: String,
    admin_secret: String,
}

/// A page of the console, as a browser receives it.
pub(super) struct DemoPage {
    pub(super) status: u16,
    pub(super) text: String,
    /// The cookie that the browser sends from then on.
    pub(super) cookie: Option<String>,
}

/// A response: its status and its document.
pub(super) struct VisitorAnswer {
    pub(super) status: u16,
    pub(super) body: Value,
}

impl VisitorAnswer {
    /// A member of the document, as text.
    pub(super) fn text(&self, member: &str) -> &str {
        self.body.get(member).and_then(Value::as_str).unwrap_or_default()
    }
}

impl DemoVisitor {
    /// Creates a visitor that trusts `root`.
    pub(super) fn new(
        gate: SocketAddr,
        admin: SocketAddr,
        admin_secret: String,
        root: &Path,
    ) -> io::Result<Self> {
        let trust = tls::client_config(Some(root), None, &[b"http/1.1"]).map_err(io::Error::other)?;
        Ok(Self {
            runtime: Builder::new_current_thread().enable_all().build()?,
            client: Client::new(trust),
            gate: format!("https://{gate}"),
            admin: format!("http://{admin}"),
            admin_secret,
        })
    }

    /// Calls the admin API.
    pub(super) fn admin(&self, method: Method, path: &str, body: &Value) -> io::Result<VisitorAnswer> {
        let authorization = format!("Bearer {}", self.admin_secret);
        let request = Request::builder()
            .method(method)
            .header(AUTHORIZATION, authorization)
            .header(CONTENT_TYPE, "application/json");
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        self.send(&format!("{}{path}", self.admin), request, body)
    }

    /// Calls the admin API, and fails unless the call succeeds.
    pub(super) fn administer(&self, method: Method, path: &str, body: &Value) -> io::Result<Value> {
        let answer = self.admin(method, path, body)?;
        if (200..300).contains(&answer.status) {
            return Ok(answer.body);
        }
        Err(io::Error::other(format!("{path} responded with {}: {}", answer.status, answer.text("detail"))))
    }

    /// Requests a token with these form fields.
    pub(super) fn token(&self, fields: &[(&str, &str)]) -> io::Result<VisitorAnswer> {
        let request =
            Request::builder().method(Method::POST).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        self.send(&format!("{}/oauth/token", self.gate), request, form(fields).into())
    }

    /// Calls the API, with or without a token.
    pub(super) fn api(&self, method: Method, path: &str, token: Option<&str>) -> io::Result<VisitorAnswer> {
        let mut request = Request::builder().method(method);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        self.send(&format!("{}{path}", self.gate), request, Bytes::new())
    }

    /// Requests a page of the console; with `fields`, submits a form.
    pub(super) fn page(
        &self,
        path: &str,
        cookie: Option<&str>,
        fields: Option<&[(&str, &str)]>,
    ) -> io::Result<DemoPage> {
        let method = if fields.is_some() { Method::POST } else { Method::GET };
        let mut request =
            Request::builder().method(method).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some(cookie) = cookie {
            request = request.header(COOKIE, cookie);
        }
        let body = fields.map_or_else(Bytes::new, |fields| form(fields).into());
        let response = self.exchange(&format!("{}{path}", self.admin), request, body)?;
        let cookie = response.headers().get(SET_COOKIE).and_then(|cookie| cookie.to_str().ok());
        let cookie = cookie.and_then(|cookie| cookie.split(';').next()).map(str::to_owned);
        let text = String::from_utf8_lossy(response.body()).into_owned();
        Ok(DemoPage { status: response.status().as_u16(), text, cookie })
    }

    fn exchange(
        &self,
        url: &str,
        request: http::request::Builder,
        body: Bytes,
    ) -> io::Result<Response<Bytes>> {
        let url = Url::parse(url, false).map_err(io::Error::other)?;
        let request = request.body(body).map_err(io::Error::other)?;
        self.runtime.block_on(self.client.send(&url, request)).map_err(io::Error::other)
    }

    fn send(&self, url: &str, request: http::request::Builder, body: Bytes) -> io::Result<VisitorAnswer> {
        let response = self.exchange(url, request, body)?;
        let body = serde_json::from_slice(response.body()).unwrap_or_default();
        Ok(VisitorAnswer { status: response.status().as_u16(), body })
    }
}

/// Encodes fields as `application/x-www-form-urlencoded`.
pub(super) fn form(fields: &[(&str, &str)]) -> String {
    let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
    let fields: Vec<String> =
        fields.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
    fields.join("&")
}
