//! `portcullis demo`: runs a complete gate on loopback with a sample upstream and a temporary certificate.
//! Tokens come from an authority with one user and one application, or from the visitor's own identity provider.
//!
//! Only the origin of its files is special: the gate reads a configuration like any other.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use http::Method;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::BAD;
use crate::time::Timestamp;

mod certificate;
mod folder;
mod readiness;
mod script;
mod text;
mod tour;
mod upstream;
mod visitor;

use folder::Folder;
use readiness::Readiness;
use script::{Addresses, DemoFiles, DemoProvider, DemoStory};
use text::DemoText;
use tour::Tour;
use visitor::{DemoVisitor, form};

/// How often to ask the gate whether it is ready.
const ASK: Duration = Duration::from_millis(20);

/// What `portcullis demo` takes.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Where the gate listens: a loopback address; a free port if none is given.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Where the admin listener is: a loopback address; a free port if none is given.
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// Play a tour instead, step by step, and exit: with 0 if every step succeeded, else with 1.
    #[arg(long)]
    tour: bool,
    #[command(flatten)]
    provider: ProviderArgs,
}

/// The identity provider that the visitor has already.
#[derive(Debug, Args)]
struct ProviderArgs {
    /// Accept the tokens of this identity provider (its `iss` claim) in place of the demo's own; its keys are discovered.
    #[arg(long, value_name = "URL", requires = "audience", conflicts_with = "tour")]
    issuer: Option<String>,
    /// The audience that its tokens must be for (`aud`).
    #[arg(long, value_name = "AUDIENCE", requires = "issuer")]
    audience: Option<String>,
    /// Root certificates (PEM) for an identity provider with a private CA.
    #[arg(long, value_name = "FILE", requires = "issuer")]
    ca: Option<PathBuf>,
    /// The API to stand in front of, in place of the sample.
    #[arg(long, value_name = "URL", requires = "issuer")]
    upstream: Option<String>,
}

impl ProviderArgs {
    fn provider(&self) -> io::Result<Option<DemoProvider>> {
        let Self { issuer: Some(issuer), audience: Some(audience), ca, upstream } = self else {
            return Ok(None);
        };
        // Paths in the configuration are relative to its folder, not to the visitor's.
        let ca = ca.as_ref().map(std::path::absolute).transpose()?;
        let (issuer, audience, upstream) = (issuer.clone(), audience.clone(), upstream.clone());
        Ok(Some(DemoProvider { issuer, audience, ca, upstream }))
    }
}

/// Stops the gate when a message is sent, or when the sender is dropped.
pub(super) type DemoStop = oneshot::Receiver<()>;

/// Prepares the files, runs `gate` with the configuration and the stop signal, and removes the files afterwards.
///
/// As soon as the gate is ready, prints the addresses and what to try, or plays the tour and stops the gate.
pub(super) fn run(args: &DemoArgs, gate: impl FnOnce(&Path, DemoStop) -> ExitCode) -> ExitCode {
    for (name, address) in [("--listen", args.listen), ("--admin", args.admin)] {
        if let Some(address) = address.filter(|address| !address.ip().is_loopback()) {
            say(&format!("{name}: {address} is not a loopback address; the demo serves this machine only"));
            return ExitCode::from(BAD);
        }
    }
    match play(args, gate, io::stdout()) {
        Ok(code) => code,
        Err(error) => {
            say(&format!("the demo cannot be set up: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn say(sentence: &str) {
    // If printing fails, the exit code still tells the result.
    drop(writeln!(io::stderr(), "{sentence}"));
}

fn play(
    args: &DemoArgs,
    gate: impl FnOnce(&Path, DemoStop) -> ExitCode,
    out: impl Write + Send + 'static,
) -> Result<ExitCode, io::Error> {
    let folder = Folder::create()?;
    let upstream = upstream::start()?;
    let addresses = addresses(args, upstream.address)?;
    let files = DemoFiles::within(folder.path());
    let provider = args.provider.provider()?;
    let stage = DemoSetup { addresses, files, admin_secret: secret()?, password: secret()?, provider };
    stage.set(folder.path(), if args.tour { tour::PLAY } else { stage.visit() })?;
    let configuration = stage.files.configuration.clone();
    let (ended, gate_ended) = sync_channel::<()>(0);
    let (stop, stopped) = oneshot::channel();
    let tour = args.tour;
    let performer = thread::Builder::new().name("performer".to_owned()).spawn(move || {
        let outcome = stage.perform(tour, out, &gate_ended);
        if tour || outcome.is_err() {
            // The gate may have ended by itself.
            let _ = stop.send(());
        } else {
            // Kept until the gate ends by a signal, because dropping it would end the gate.
            drop((gate_ended.recv(), stop));
        }
        outcome
    })?;
    let code = gate(&configuration, stopped);
    drop(ended);
    match performer.join() {
        Ok(Ok(())) => Ok(code),
        Ok(Err(error)) if code == ExitCode::SUCCESS => {
            say(&error.to_string());
            Ok(ExitCode::FAILURE)
        }
        // The gate has logged why it ended; a panic was reported by its thread.
        Ok(Err(_)) => Ok(code),
        Err(_panic) => Ok(ExitCode::FAILURE),
    }
}

/// The addresses, secrets and settings of one demo.
struct DemoSetup {
    addresses: Addresses,
    files: DemoFiles,
    admin_secret: String,
    /// The user's password, for the console.
    password: String,
    /// The identity provider whose tokens are accepted in place of the authority's.
    provider: Option<DemoProvider>,
}

impl DemoSetup {
    fn visit(&self) -> DemoStory<'_> {
        self.provider.as_ref().map_or(DemoStory::VISIT, DemoStory::with_provider)
    }

    /// Writes every file that the gate needs.
    fn set(&self, folder: &Path, play: DemoStory<'_>) -> io::Result<()> {
        let certificates =
            certificate::generate(self.addresses.gate.ip(), Timestamp::now()).map_err(io::Error::other)?;
        for (name, content) in [
            ("ca.pem", certificates.authority),
            ("server.pem", certificates.chain),
            ("server.key", certificates.key),
        ] {
            std::fs::write(folder.join(name), content)?;
        }
        self.configure(play)
    }

    fn configure(&self, play: DemoStory<'_>) -> io::Result<()> {
        let configuration = script::configuration(&self.addresses, &self.admin_secret, &play);
        std::fs::write(&self.files.configuration, configuration)
    }

    /// Once the gate is ready, plays the tour, or creates what a visitor needs and prints the instructions.
    /// Does nothing if the gate ends before.
    fn perform(&self, tour: bool, mut out: impl Write, ended: &Receiver<()>) -> io::Result<()> {
        let mut readiness = Readiness::of(self.addresses.telemetry);
        while !readiness.is_ready() {
            if ended.recv_timeout(ASK) != Err(RecvTimeoutError::Timeout) {
                return Ok(());
            }
            if let Some(why) = readiness.news() {
                say(&format!("waiting for the gate to become ready: {why} (Ctrl-C ends the demo)"));
            }
        }
        let Addresses { gate, admin, .. } = self.addresses;
        let visitor = DemoVisitor::new(gate, admin, self.admin_secret.clone(), &self.files.authority)?;
        if tour {
            let (addresses, configuration) = (&self.addresses, &self.files.configuration);
            let (admin_secret, password) = (&self.admin_secret, &self.password);
            return Tour { visitor: &visitor, addresses, admin_secret, password, configuration, out }.play();
        }
        if self.provider.is_none() {
            self.create_user(&visitor)?;
        }
        // A closed standard output is not an error.
        drop(out.write_all(self.text()?.as_bytes()).and_then(|()| out.flush()));
        self.configure(self.visit().with_requests_logged())?;
        // An error means that the visitor has already stopped the gate.
        drop(visitor.administer(Method::POST, "/v1/reload", &Value::Null));
        Ok(())
    }

    fn text(&self) -> io::Result<String> {
        let program = text::program(&std::env::current_exe()?, std::env::var_os("PATH").as_deref());
        let (addresses, files, admin_secret) = (&self.addresses, &self.files, self.admin_secret.as_str());
        let text = DemoText { addresses, files, admin_secret, program: &program };
        Ok(match &self.provider {
            None => text.with_authority(&self.password),
            Some(provider) => text.with_provider(provider),
        })
    }

    /// Creates the user and its application, and requests a token for it.
    fn create_user(&self, visitor: &DemoVisitor) -> io::Result<()> {
        let user = json!({ "id": "ada", "name": "Ada", "roles": ["case-reader", "case-writer"] });
        visitor.administer(Method::POST, "/v1/users", &user)?;
        let password = json!({ "password": self.password });
        visitor.administer(Method::PUT, "/v1/users/ada/password", &password)?;
        let credential = json!({
            "name": "Invoice robot", "owner": "ada", "roles": ["case-reader"], "scopes": ["read:deals"],
        });
        let made = visitor.administer(Method::POST, "/v1/credentials", &credential)?;
        let member = |name: &str| made.get(name).and_then(Value::as_str).unwrap_or_default();
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_id", member("client_id")),
            ("client_secret", member("client_secret")),
        ];
        std::fs::write(&self.files.client, form(&fields))?;
        let answer = visitor.token(&fields)?;
        let token = format!("Authorization: Bearer {}\n", answer.text("access_token"));
        std::fs::write(&self.files.token, token)
    }
}

/// Generates a value that cannot be guessed.
fn secret() -> io::Result<String> {
    let mut random = [0; 24];
    rand::fill(&mut random).map_err(|_unspecified| io::Error::other("no random numbers"))?;
    Ok(URL_SAFE_NO_PAD.encode(random))
}

/// The given addresses, and a free port for each that was not given.
fn addresses(args: &DemoArgs, upstream: SocketAddr) -> io::Result<Addresses> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    // Bound at the same time, so that no two get the same port; released for the gate to bind.
    let mut held = Vec::new();
    let mut free = |address: SocketAddr| {
        if address.port() != 0 {
            return Ok(address);
        }
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        held.push(listener);
        Ok::<_, io::Error>(address)
    };
    Ok(Addresses {
        gate: free(args.listen.unwrap_or(any))?,
        admin: free(args.admin.unwrap_or(any))?,
        telemetry: free(any)?,
        upstream,
    })
}

#[cfg(test)]
mod tests;
