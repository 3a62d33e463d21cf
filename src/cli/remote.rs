//! Calls of commands to the admin listener of a running gate: its address, the admin token, lists read page by
//! page, and errors that say what to do. Does not know what a call is for.

use std::fmt;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use bytes::Bytes;
use clap::Args;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde_json::Value;

use crate::client::{Client, GetError, Url};
use crate::tls;

/// The environment variable with the admin token.
const TOKEN: &str = "PORTCULLIS_ADMIN_TOKEN";
/// How many items of a list one call requests; fewer if the response is too large.
const PAGE: usize = 1_000;

/// The gate to call, and the credentials for it. The token is never an argument: every user of the machine can read those.
#[derive(Debug, Args)]
pub(super) struct Remote {
    /// The URL of the gate's admin listener.
    #[arg(
        long,
        value_name = "URL",
        env = "PORTCULLIS_ADMIN_URL",
        default_value = "http://127.0.0.1:9443",
        global = true
    )]
    admin: String,
    /// Read the admin token from this file instead of the environment variable PORTCULLIS_ADMIN_TOKEN.
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
    /// Trust the certificates in this PEM file instead of the system's, for an https address.
    #[arg(long, value_name = "FILE", global = true)]
    ca: Option<PathBuf>,
    /// Print the response as JSON.
    #[arg(long, global = true)]
    json: bool,
}

/// Encodes text as a path segment or query value.
pub(super) fn encoded(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, NON_ALPHANUMERIC)
}

/// An endpoint with the parameters that are present.
pub(super) fn query(endpoint: &str, parameters: &[(&str, &Option<String>)]) -> String {
    let given = parameters.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    let pairs: Vec<String> = given.map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    if pairs.is_empty() { endpoint.to_owned() } else { format!("{endpoint}?{}", pairs.join("&")) }
}

/// Prints the outcome and returns the exit code: 0 on success, 1 on failure. A closed standard output is not an
/// error; the exit code still tells the result.
pub(super) fn report(outcome: Result<String, Failure>) -> ExitCode {
    match outcome {
        Ok(text) => {
            drop(writeln!(std::io::stdout(), "{text}"));
            ExitCode::SUCCESS
        }
        Err(failure) => {
            drop(writeln!(std::io::stderr(), "{failure}"));
            ExitCode::FAILURE
        }
    }
}

/// Why a call failed, in words for people.
#[derive(Debug)]
pub(super) enum Failure {
    /// The response is larger than the client accepts.
    TooLarge(String),
    /// The gate rejected the call and listed these problems.
    Problems(String, Vec<String>),
    /// Anything else.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::TooLarge(words) | Self::Problems(words, _) | Self::Other(words)) = self;
        f.write_str(words)?;
        if let Self::Problems(_, problems) = self {
            problems.iter().try_for_each(|problem| write!(f, "\n{problem}"))?;
        }
        Ok(())
    }
}

impl Remote {
    /// Formats a response: as JSON with `--json`, otherwise with `tell`.
    pub(super) fn text(&self, answer: &Value, tell: impl FnOnce(&Value) -> String) -> String {
        if self.json { answer.to_string() } else { tell(answer) }
    }

    /// Whether `--json` was given.
    pub(super) const fn is_json(&self) -> bool {
        self.json
    }

    /// Reads a whole list, following `next` from page to page.
    pub(super) fn list(&self, endpoint: &str) -> Result<Value, Failure> {
        self.list_from(endpoint, None, usize::MAX)
    }

    /// Reads a limited number of items from the beginning of a list, or after a place. `next` of the result is
    /// where to continue, or `null`; other members are those of the last page.
    pub(super) fn list_from(
        &self,
        endpoint: &str,
        after: Option<&str>,
        most: usize,
    ) -> Result<Value, Failure> {
        let separator = if endpoint.contains('?') { '&' } else { '?' };
        let (mut items, mut page_size) = (Vec::new(), PAGE);
        let mut after = after.map(|after| format!("&after={}", encoded(after))).unwrap_or_default();
        loop {
            let limit = page_size.min(most - items.len());
            let endpoint = format!("{endpoint}{separator}limit={limit}{after}");
            let mut page = match self.call(Method::GET, &endpoint, None) {
                Err(Failure::TooLarge(_)) if limit > 1 => {
                    page_size = limit / 2;
                    continue;
                }
                page => page?,
            };
            match page.get_mut("items").map(Value::take) {
                Some(Value::Array(more)) => items.extend(more),
                _ => return Err(Failure::Other(format!("{}: the response is not a list", self.admin))),
            }
            let next = match &page["next"] {
                Value::String(cursor) if items.len() < most => encoded(cursor).to_string(),
                Value::Number(cursor) if items.len() < most => cursor.to_string(),
                _end => {
                    page["items"] = items.into();
                    return Ok(page);
                }
            };
            after = format!("&after={next}");
        }
    }

    /// Calls an endpoint and returns the document of its response; `null` if the response has no body.
    pub(super) fn call(
        &self,
        method: Method,
        endpoint: &str,
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let url = Url::parse(&self.admin, false)
            .ok()
            .and_then(|url| url.at(endpoint))
            .ok_or_else(|| Failure::Other(self.unusable()))?;
        let mut authorization =
            HeaderValue::try_from(format!("Bearer {}", self.token()?)).map_err(|_invalid| {
                Failure::Other(format!("{} must hold the token on one line", self.token_place()))
            })?;
        authorization.set_sensitive(true);
        let mut request = Request::builder().method(method).header(AUTHORIZATION, authorization);
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(body.map(|body| Bytes::from(body.to_string())).unwrap_or_default())
            .map_err(|error| Failure::Other(error.to_string()))?;
        let response = self.send(&url, request)?;
        self.read(&response)
    }

    fn send(&self, url: &Url, request: Request<Bytes>) -> Result<Response<Bytes>, Failure> {
        let trust = tls::client_config(self.ca.as_deref(), None, &[b"http/1.1"])
            .map_err(|error| Failure::Other(error.to_string()))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::Other(format!("cannot start: {error}")))?;
        runtime.block_on(Client::new(trust).send(url, request)).map_err(|error| {
            let advice = match error {
                GetError::Resolve(_) | GetError::Connect(_) => {
                    "; is the gate running? --admin or $PORTCULLIS_ADMIN_URL sets the URL of its admin listener"
                }
                GetError::Tls(_) => "; --ca FILE sets the certificates to trust",
                _ => "",
            };
            let words = format!("{}: {error}{advice}", self.admin);
            if matches!(error, GetError::TooLarge) { Failure::TooLarge(words) } else { Failure::Other(words) }
        })
    }

    fn read(&self, response: &Response<Bytes>) -> Result<Value, Failure> {
        let (status, body) = (response.status(), response.body());
        let document: Option<Value> =
            if body.is_empty() { Some(Value::Null) } else { serde_json::from_slice(body).ok() };
        let strange = || {
            Failure::Other(format!(
                "{}: responded with {status}, but is not an admin listener of Portcullis",
                self.admin
            ))
        };
        let document = document.ok_or_else(strange)?;
        if status.is_success() {
            return Ok(document);
        }
        let detail = document.get("detail").and_then(Value::as_str).ok_or_else(strange)?;
        let words = match status {
            StatusCode::UNAUTHORIZED => {
                format!("{}: {detail}; the token came from {}", self.admin, self.token_place())
            }
            StatusCode::BAD_REQUEST
            | StatusCode::FORBIDDEN
            | StatusCode::NOT_FOUND
            | StatusCode::CONFLICT
            | StatusCode::UNPROCESSABLE_ENTITY => format!("{}: {detail}", self.admin),
            status => format!("{}: responded with {status}: {detail}", self.admin),
        };
        let problems = document.get("problems").and_then(Value::as_array);
        let problems: Vec<String> =
            problems.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        Err(if problems.is_empty() { Failure::Other(words) } else { Failure::Problems(words, problems) })
    }

    fn token(&self) -> Result<String, Failure> {
        let text = match &self.token_file {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| Failure::Other(format!("{}: cannot be read: {error}", path.display())))?,
            None => std::env::var(TOKEN).unwrap_or_default(),
        };
        match text.trim() {
            "" if self.token_file.is_some() => {
                Err(Failure::Other(format!("{} is empty", self.token_place())))
            }
            "" => Err(Failure::Other(format!("no admin token: set ${TOKEN}, or pass --token-file FILE"))),
            token => Ok(token.to_owned()),
        }
    }

    /// The source of the token.
    fn token_place(&self) -> String {
        self.token_file.as_ref().map_or_else(|| format!("${TOKEN}"), |path| path.display().to_string())
    }

    fn unusable(&self) -> String {
        match Url::parse(&self.admin, false) {
            Err(error) => format!("--admin {}: {error}", self.admin),
            Ok(_) => format!("--admin {}: must not have a query", self.admin),
        }
    }
}
