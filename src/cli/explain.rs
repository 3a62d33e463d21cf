//! `portcullis explain`: decides about a token without a running gate.
//!
//! Creates the same enforcer as the gate, with keys fetched once and the store opened for reading, and asks it.
//! Needs neither the gate's private keys nor the secrets of anybody except the token's issuer.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;
use tokio::runtime::Builder;

use super::explain_signal;
use super::table::columns;
use super::{BAD, Configured};
use crate::authority;
use crate::client::Client;
use crate::config::{self, Settings, StoreSettings};
use crate::enforce::decide::{Asked, Enforcer, InForce, TrustedIssuer};
use crate::enforce::explain::{Explanation, Question};
use crate::enforce::spiffe;
use crate::events::EventLog;
use crate::events::parse::parse_time;
use crate::jose::jws::Jws;
use crate::keys::store::KeyStore;
use crate::keys::{KeySource, source};
use crate::metrics::Metrics;
use crate::revocations::Revocations;
use crate::sessions::{self, Sessions};
use crate::state::{Store, StoreError};
use crate::time::{Monotonic, Now, Timestamp};
use crate::tls;

/// Longer than any token; the rest of standard input is not read.
const LONGEST_INPUT: u64 = 64 * 1024;

/// What `portcullis explain` takes.
#[derive(Args)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    configured: Configured,
    /// The method of the request.
    #[arg(long, value_name = "M", default_value = "GET")]
    method: Method,
    /// The path of the request; a query may follow.
    #[arg(long, value_name = "P", default_value = "/")]
    path: String,
    /// The host of the request; needed for routes that name hosts.
    #[arg(long, value_name = "H")]
    host: Option<String>,
    /// Another field of the request, such as 'Mcp-Method: tools/call'; may be repeated.
    #[arg(long, value_name = "NAME: VALUE", value_parser = field)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// The time to judge at, in RFC 3339 or seconds since 1970; now, if omitted.
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<Timestamp>,
    /// Print the result as JSON, as POST /v1/explain returns it.
    #[arg(long)]
    json: bool,
    /// Tell what the security event token or logout token in this file would do, instead of judging an access token. `-` reads
    /// standard input. Reads the whole configuration, as the gate does.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["token", "method", "path", "host", "header"])]
    signal: Option<PathBuf>,
    /// The sender to judge the signal as, by its name in the configuration; else the first whose issuer it names.
    #[arg(long, value_name = "NAME", requires = "signal")]
    transmitter: Option<String>,
    /// The token, without "Bearer"; `-` reads it from standard input. While the command runs, every user of the machine can
    /// see its arguments: prefer `-` for a token that is still good.
    // Several values are accepted so that we can report the error: the parser's own error would repeat the token.
    #[arg(value_name = "TOKEN|-", required_unless_present = "signal", num_args = 1..)]
    token: Vec<String>,
}

fn time(text: &str) -> Result<Timestamp, String> {
    parse_time(text).ok_or_else(|| "must be in RFC 3339 or seconds since 1970".to_owned())
}

fn field(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("must be a name, a colon and a value")?;
    let name = name.trim().parse().map_err(|_invalid| "the name is not a valid field name")?;
    if name == AUTHORIZATION {
        return Err("pass the token as the argument TOKEN".to_owned());
    }
    let value = value.trim().parse().map_err(|_invalid| "the value is not a valid field value")?;
    Ok((name, value))
}

/// Prints the checks and the verdict: returns 0 when the token is allowed, 1 when not, 2 when it cannot be judged.
pub(super) fn run(args: &ExplainArgs) -> ExitCode {
    if let Some(file) = &args.signal {
        return signal(args, file);
    }
    let explanation = match explain(args) {
        Ok(explanation) => explanation,
        Err(problem) => {
            say(&problem);
            return ExitCode::from(BAD);
        }
    };
    let text = if args.json { json(&explanation) } else { table(&explanation) };
    // A closed standard output is not an error; the exit code still tells the result.
    drop(io::stdout().write_all(text.as_bytes()));
    if explanation.allowed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints what a signal would do: returns 0 when it would end tokens, 1 when not, 2 when it cannot be judged.
fn signal(args: &ExplainArgs, file: &Path) -> ExitCode {
    let judged = read_signal(file).and_then(|token| {
        let (config, named) = (&args.configured.config, args.transmitter.as_deref());
        let now = args.at.unwrap_or_else(Timestamp::now);
        block_on(explain_signal::judge(config, &token, named, now))?
    });
    let verdict = match judged {
        Ok(verdict) => verdict,
        Err(problem) => {
            say(&problem);
            return ExitCode::from(BAD);
        }
    };
    let text = if args.json { verdict.json() } else { verdict.table() };
    drop(io::stdout().write_all(text.as_bytes()));
    if verdict.would_end_tokens() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn read_signal(file: &Path) -> Result<String, String> {
    let (mut text, mut input): (_, Box<dyn io::Read>) = match file.to_str() {
        Some("-") => (String::new(), Box::new(io::stdin())),
        _ => match File::open(file) {
            Ok(open) => (String::new(), Box::new(open)),
            Err(error) => return Err(format!("{} cannot be read: {error}", file.display())),
        },
    };
    let read = input.by_ref().take(LONGEST_INPUT).read_to_string(&mut text);
    read.map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
    Ok(text)
}

fn block_on<T>(work: impl Future<Output = T>) -> Result<T, String> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    Ok(runtime.block_on(work))
}

fn say(text: &str) {
    drop(writeln!(io::stderr(), "{text}"));
}

fn json(explanation: &Explanation) -> String {
    serde_json::to_string_pretty(explanation).map(|text| text + "\n").unwrap_or_default()
}

fn table(explanation: &Explanation) -> String {
    let rows = explanation.checks.iter().map(|made| {
        let mark = match made.ok {
            Some(true) => "ok",
            Some(false) => "FAIL",
            None => "-",
        };
        [mark.to_owned(), made.check.to_owned(), made.detail.clone()]
    });
    let rows = columns(&rows.collect::<Vec<_>>());
    let complete = explanation.checks.iter().all(|made| made.ok.is_some());
    match explanation.reason {
        Some(reason) => format!("{rows}denied: {}\n", reason.as_str()),
        None if complete => format!("{rows}allowed\n"),
        None => format!("{rows}allowed, as far as could be checked\n"),
    }
}

fn explain(args: &ExplainArgs) -> Result<Explanation, String> {
    let token = match args.token.as_slice() {
        [dash] if dash == "-" => from_stdin()?,
        [token] => token.clone(),
        _ => return Err("pass exactly one token, without \"Bearer\"".to_owned()),
    };
    let names = claimed_names(token.trim());
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let settings = config::load_to_judge(&args.configured.config, &names);
    let settings = settings.map_err(|problems| problems.to_string())?;
    block_on(judge(&settings, args, token.trim()))?
}

/// The token's issuer, and the SPIFFE trust domain of its subject. The files of other issuers are not needed.
fn claimed_names(token: &str) -> Vec<String> {
    let Ok(jws) = Jws::parse(token.as_bytes()) else { return Vec::new() };
    let issuer = jws.payload.get("iss").and_then(Value::as_str);
    let domain = spiffe::trust_domain(&jws.payload);
    issuer.into_iter().chain(domain).map(str::to_owned).collect()
}

fn from_stdin() -> Result<String, String> {
    let mut text = String::new();
    let read = io::stdin().take(LONGEST_INPUT).read_to_string(&mut text);
    read.map_err(|error| format!("the token cannot be read from standard input: {error}"))?;
    Ok(text)
}

async fn judge(settings: &Settings, args: &ExplainArgs, token: &str) -> Result<Explanation, String> {
    let now = moment(args.at);
    let metrics = Metrics::new().map_err(|error| error.to_string())?;
    let store = open(settings)?;
    let in_force = match &store {
        Ok(store) => replay(store, settings, now).await.map_err(|error| error.to_string())?,
        Err(_why) => InForce::unlimited(),
    };
    let mut issuers: Vec<TrustedIssuer> = Vec::new();
    for issuer in &settings.issuers {
        let shared = issuers.iter().find(|known| *known.keys.settings() == issuer.keys);
        let keys = shared.map(|known| Arc::clone(&known.keys));
        let keys = keys.unwrap_or_else(|| KeyStore::new(issuer.keys.clone(), metrics.clone()));
        issuers.push(TrustedIssuer { rules: issuer.rules.clone(), keys });
    }
    let enforcer = Enforcer::new(settings.enforce.clone(), issuers, in_force, &metrics);
    let enforcer =
        enforcer.map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    // The keys of other issuers are not fetched: one that is down would only cause a delay.
    if let Some(issuer) = enforcer.named_issuer(token) {
        if let (KeySource::Authority, Some(authority)) = (&issuer.keys.settings().source, &settings.authority)
        {
            load_own_keys(&issuer.keys, authority, now.wall).await?;
        } else {
            load_keys(&issuer.keys, store.as_ref().ok(), now.wall).await?;
        }
    }
    let mut headers = HeaderMap::new();
    for (name, value) in &args.header {
        headers.append(name, value.clone());
    }
    Ok(enforcer.explain(&Question {
        token,
        method: &args.method,
        path: &args.path,
        host: args.host.as_deref(),
        headers: &headers,
        now,
        stateless: store.as_ref().err().map(String::as_str),
        asked: Asked::NOTHING,
    }))
}

/// The current time of both clocks; another time is known only on the wall clock, so running time is unknown.
fn moment(at: Option<Timestamp>) -> Now {
    at.map_or_else(Now::read, |wall| Now { wall, monotonic: NEVER })
}

/// Before everything that happened.
const NEVER: Monotonic = Monotonic::from_millis(i64::MIN);

/// Opens the configured store; the inner error says why it cannot be read.
fn open(settings: &Settings) -> Result<Result<Store, String>, String> {
    match &settings.state.store {
        StoreSettings::Memory => {
            Ok(Err("revocations and last uses are only in the memory of the gate".to_owned()))
        }
        // Only a running gate follows the events of all replicas; reading them all for one token would load the server.
        StoreSettings::Redis(_) => {
            Ok(Err("revocations and last uses are in Redis; ask a running gate: POST /v1/explain".to_owned()))
        }
        StoreSettings::Embedded(path) => {
            let store = Store::open_read_only(path).map_err(|error| error.to_string())?;
            Ok(store.ok_or_else(|| format!("there is no store yet at {}", path.display())))
        }
    }
}

/// Replays the state in the store. Last uses are as of the last flush.
async fn replay(store: &Store, settings: &Settings, now: Now) -> Result<InForce, StoreError> {
    let not_before = settings.state.on_empty.not_before(store.not_before());
    let revocations = Arc::new(Revocations::new(not_before));
    EventLog::start(store.clone(), Arc::clone(&revocations)).await?;
    let leeway = settings.leeway();
    let sessions = Sessions::new(sessions::Settings {
        idle_timeouts: settings.sessions.idle_timeouts.clone(),
        max_tracked: usize::MAX,
        leeway,
        saved: false,
    });
    // With nothing idle yet, so that the verdict on an idle token names its last use.
    sessions.restore(store, Now { monotonic: NEVER, ..now }).await?;
    Ok(InForce {
        revocations,
        sessions: Arc::new(sessions),
        freshness: store.freshness(),
        ..InForce::unlimited()
    })
}

/// Reads the keys of the embedded authority from its file, which a gate may be using.
async fn load_own_keys(
    keys: &KeyStore,
    authority: &authority::Settings,
    now: Timestamp,
) -> Result<(), String> {
    let path = &authority.path;
    let store = Store::open_read_only(path).map_err(|error| error.to_string())?;
    let document = match &store {
        Some(store) => authority::stored_key_set(store).await.map_err(|error| error.to_string())?,
        None => None,
    };
    match document {
        Some(document) => keys
            .accept(document, Now { wall: now, monotonic: Monotonic::now() })
            .map(drop)
            .map_err(|error| error.to_string()),
        None => {
            say(&format!("issuer {}: there are no keys yet at {}", keys.settings().issuer, path.display()));
            Ok(())
        }
    }
}

/// Fetches the keys once. If that fails, uses the keys in the store, as a starting gate would.
pub(super) async fn load_keys(keys: &KeyStore, store: Option<&Store>, now: Timestamp) -> Result<(), String> {
    let settings = keys.settings();
    if matches!(settings.source, KeySource::Secret(_)) {
        return Ok(());
    }
    let trust = tls::client_config(settings.ca.as_deref(), None, &[b"http/1.1"])
        .map_err(|error| format!("issuer {}: {error}", settings.issuer))?;
    let fetched = match source::fetch(settings, &Client::new(trust)).await {
        Ok(document) => keys
            .accept(document, Now { wall: now, monotonic: Monotonic::now() })
            .map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let Err(problem) = fetched else { return Ok(()) };
    say(&format!("issuer {}: no keys: {problem}", settings.issuer));
    let Some(store) = store else { return Ok(()) };
    let kept =
        store.key_set((&settings.issuer, &settings.provenance())).await.map_err(|error| error.to_string())?;
    if let Some((document, fetched_at, running)) = kept {
        match keys.restore(&document, fetched_at, running) {
            Ok(()) => say(&format!("using the keys that were fetched at {fetched_at}")),
            Err(error) => say(&format!("the stored keys cannot be used: {error}")),
        }
    }
    Ok(())
}
