//! Calls to the admin listener of a running gate, for the commands: where it is, who we are, and what went wrong in
//! words that say what to do.

use std::fmt;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use bytes::Bytes;
use clap::Args;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde_json::{Value, json};

use crate::client::{Client, GetError, Url};
use crate::tls;

/// The environment variable with the admin token.
const TOKEN: &str = "PORTCULLIS_ADMIN_TOKEN";
/// Entries of a list in one call; fewer when they make too large an answer.
const PAGE: usize = 1_000;

/// Which gate, and who asks. The token is never an argument: everybody on the machine can read those.
#[derive(Debug, Args)]
pub(super) struct Remote {
    /// The admin listener of the gate.
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
    /// Print the answer as JSON.
    #[arg(long, global = true)]
    json: bool,
}

/// Text as a segment of a path or a value of a query.
pub(super) fn encoded(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, NON_ALPHANUMERIC)
}

/// Prints how it went: 0 when it is done, 1 when it is not. A closed standard output is no error; the
/// exit code still tells.
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

/// Why a call came to nothing, for a person.
#[derive(Debug)]
pub(super) enum Failure {
    /// The answer holds more than is taken.
    TooLarge(String),
    /// Anything else.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::TooLarge(words) | Self::Other(words)) = self;
        f.write_str(words)
    }
}

impl Remote {
    /// An answer as it was asked for: as JSON, or in the words that `tell` finds.
    pub(super) fn text(&self, answer: &Value, tell: impl FnOnce(&Value) -> String) -> String {
        if self.json { answer.to_string() } else { tell(answer) }
    }

    /// The whole of a list as one page.
    pub(super) fn list(&self, endpoint: &str) -> Result<Value, Failure> {
        let separator = if endpoint.contains('?') { '&' } else { '?' };
        let (mut items, mut after, mut limit) = (Vec::new(), String::new(), PAGE);
        loop {
            let endpoint = format!("{endpoint}{separator}limit={limit}{after}");
            let mut page = match self.call(Method::GET, &endpoint, None) {
                Err(Failure::TooLarge(_)) if limit > 1 => {
                    limit /= 2;
                    continue;
                }
                page => page?,
            };
            match page.get_mut("items").map(Value::take) {
                Some(Value::Array(more)) => items.extend(more),
                _ => {
                    return Err(Failure::Other(format!(
                        "{}: answered with something else than a list",
                        self.admin
                    )));
                }
            }
            match page["next"].as_str() {
                Some(next) => after = format!("&after={}", encoded(next)),
                None => return Ok(json!({ "items": items, "next": null })),
            }
        }
    }

    /// Calls an endpoint and answers with the document it gives; `null` when it gives none.
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
                Failure::Other(format!("{} holds more than one line of text", self.token_place()))
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
                    "; is the gate running there? --admin or $PORTCULLIS_ADMIN_URL names its admin listener"
                }
                GetError::Tls(_) => "; --ca FILE names the certificates to trust",
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
        let strange =
            || Failure::Other(format!("{}: answered {status}, not as an admin listener does", self.admin));
        let document = document.ok_or_else(strange)?;
        if status.is_success() {
            return Ok(document);
        }
        let detail = document.get("detail").and_then(Value::as_str).ok_or_else(strange)?;
        Err(Failure::Other(match status {
            StatusCode::UNAUTHORIZED => {
                format!("{}: {detail}; it came from {}", self.admin, self.token_place())
            }
            StatusCode::BAD_REQUEST
            | StatusCode::FORBIDDEN
            | StatusCode::NOT_FOUND
            | StatusCode::CONFLICT => format!("{}: {detail}", self.admin),
            status => format!("{}: answered {status}: {detail}", self.admin),
        }))
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
            "" => Err(Failure::Other(format!(
                "there is no admin token: set ${TOKEN}, or give --token-file FILE"
            ))),
            token => Ok(token.to_owned()),
        }
    }

    /// Where the token comes from.
    fn token_place(&self) -> String {
        self.token_file.as_ref().map_or_else(|| format!("${TOKEN}"), |path| path.display().to_string())
    }

    fn unusable(&self) -> String {
        match Url::parse(&self.admin, false) {
            Err(error) => format!("--admin {}: {error}", self.admin),
            Ok(_) => format!("--admin {}: must end with the host, the port or a path", self.admin),
        }
    }
}
