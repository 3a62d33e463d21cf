//! `portcullis probe`: asks the telemetry listener of a gate whether it is live or ready, for container probes.
//! Reads no configuration or certificates, so that it is cheap and works wherever the binary does.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};

use super::BAD;
use super::table::{cell, columns};
use crate::client::{Client, Url};
use crate::tls;

/// What to ask, and whom.
#[derive(Args)]
pub(super) struct ProbeArgs {
    /// What to ask.
    #[arg(value_name = "WHAT")]
    what: ProbeQuestion,
    /// The URL of the gate's telemetry listener.
    #[arg(
        long,
        value_name = "URL",
        env = "PORTCULLIS_TELEMETRY_URL",
        default_value = "http://127.0.0.1:9464"
    )]
    telemetry: String,
    /// How many seconds to wait for the response.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
    /// Print the response as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProbeQuestion {
    /// Whether the process serves.
    Live,
    /// Whether it can judge requests: keys, state and event log are usable, and it is not shutting down.
    Ready,
}

/// Runs the command: returns 0 when the gate says yes, 1 when it says no or does not respond, 2 when the URL is invalid.
pub(super) fn probe(args: &ProbeArgs) -> ExitCode {
    let path = match args.what {
        ProbeQuestion::Live => "/live",
        ProbeQuestion::Ready => "/ready",
    };
    let url = Url::parse(&args.telemetry, true).map_err(|error| error.to_string());
    let url = url.and_then(|url| url.at(path).ok_or_else(|| "must not have a query".to_owned()));
    let url = match url {
        Ok(url) => url,
        Err(why) => {
            drop(writeln!(std::io::stderr(), "--telemetry {}: {why}", args.telemetry));
            return ExitCode::from(BAD);
        }
    };
    let (passed, document, text) = match ask(&url, Duration::from_secs(args.timeout)) {
        Ok(response) => args.read(&response),
        Err(why) => {
            let why = format!("{}: {why}", args.telemetry);
            (false, json!({ "error": &why }), why)
        }
    };
    // If printing fails, the exit code still tells the result.
    if args.json {
        drop(writeln!(std::io::stdout(), "{document}"));
    } else if passed {
        drop(writeln!(std::io::stdout(), "{text}"));
    } else {
        drop(writeln!(std::io::stderr(), "{text}"));
    }
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn ask(url: &Url, patience: Duration) -> Result<Response<Bytes>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
    let trust = tls::without_roots().map_err(|error| error.to_string())?;
    let client = Client::new(trust);
    runtime.block_on(async {
        let asked = tokio::time::timeout(patience, client.send(url, Request::new(Bytes::new())));
        match asked.await {
            Ok(response) => response.map_err(|error| error.to_string()),
            Err(_elapsed) => Err(format!("did not respond within {} s", patience.as_secs())),
        }
    })
}

impl ProbeArgs {
    /// Evaluates the response: whether it says yes, and as JSON and text.
    fn read(&self, response: &Response<Bytes>) -> (bool, Value, String) {
        let status = response.status();
        let strange = || {
            let why = format!(
                "{}: responded with {status}, but is not a telemetry listener of Portcullis",
                self.telemetry
            );
            (false, json!({ "error": &why }), why)
        };
        match self.what {
            ProbeQuestion::Live if status == StatusCode::OK && &**response.body() == b"ok\n" => {
                (true, json!({ "live": true }), "live".to_owned())
            }
            ProbeQuestion::Live => strange(),
            ProbeQuestion::Ready => {
                let document = serde_json::from_slice::<Value>(response.body()).ok();
                let said = document.as_ref().and_then(|document| document["ready"].as_bool());
                match (document, said) {
                    (Some(document), Some(true)) if status == StatusCode::OK => {
                        (true, document, "ready".to_owned())
                    }
                    (Some(document), Some(false)) => {
                        let text = format!("not ready\n{}", failing(&document));
                        (false, document, text.trim_end().to_owned())
                    }
                    _ => strange(),
                }
            }
        }
    }
}

/// The components that are not ready, and why.
fn failing(document: &Value) -> String {
    let components = document["components"].as_object().into_iter().flatten();
    let failing = components.filter(|(_, condition)| *condition != "ok");
    columns(&failing.map(|(name, condition)| [name.clone(), cell(condition)]).collect::<Vec<_>>())
}
