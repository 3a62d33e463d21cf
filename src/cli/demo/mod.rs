//! `portcullis demo`: the whole gate on loopback, with a sample upstream, a certificate and a signing key made for it.
//!
//! What is special about it is only where its files come from: the gate reads a configuration like any other.

use std::io::{self, Read as _, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use clap::Args;

use super::BAD;
use crate::time::Timestamp;

mod certificate;
mod folder;
mod issuer;
mod script;
mod upstream;

use folder::Folder;
use issuer::Issuer;
use script::{Addresses, Files};

/// How often the gate is asked whether it is ready, and how long it may take to answer.
const ASK: Duration = Duration::from_millis(20);

/// What `portcullis demo` takes.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Where the gate listens: a loopback address; a free port if none is given.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Where the admin listener is: a loopback address; a free port if none is given.
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
}

/// Sets the stage, lets `gate` run a gate with the configuration it is given, and clears the stage away.
///
/// Prints the addresses and what to try as soon as the gate says that it is ready.
pub fn run(args: &DemoArgs, gate: impl FnOnce(&Path) -> ExitCode) -> ExitCode {
    for (name, address) in [("--listen", args.listen), ("--admin", args.admin)] {
        if let Some(address) = address.filter(|address| !address.ip().is_loopback()) {
            say(&format!("{name}: {address} is not a loopback address, and the demo stays on this machine"));
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
    // With nowhere to print, the exit code still tells.
    drop(writeln!(io::stderr(), "{sentence}"));
}

fn play(
    args: &DemoArgs,
    gate: impl FnOnce(&Path) -> ExitCode,
    out: impl Write + Send + 'static,
) -> Result<ExitCode, io::Error> {
    let folder = Folder::create()?;
    let upstream = upstream::start()?;
    let addresses = addresses(args, upstream.address)?;
    let files = stage(folder.path(), addresses)?;
    let (ended, gate_ended) = sync_channel::<()>(0);
    let text = script::text(&addresses, &files);
    let announcer = thread::Builder::new()
        .name("announcer".to_owned())
        .spawn(move || announce(addresses.telemetry, &text, out, &gate_ended))?;
    let code = gate(&files.configuration);
    drop(ended);
    // A panic in there would be a line that was not printed; the gate itself has run.
    drop(announcer.join());
    Ok(code)
}

/// The addresses given, with a free port for each that has none.
fn addresses(args: &DemoArgs, upstream: SocketAddr) -> io::Result<Addresses> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    // Held together, so that no two get the same port; given back for the gate to bind.
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

/// Writes every file that the gate and the visitor need.
fn stage(folder: &Path, addresses: Addresses) -> io::Result<Files> {
    let (issuer, now) = (Issuer::generate()?, Timestamp::now());
    let files = Files::within(folder);
    let certificates = certificate::generate(addresses.gate.ip(), now).map_err(io::Error::other)?;
    for (name, content) in [
        ("ca.pem", certificates.authority),
        ("server.pem", certificates.chain),
        ("server.key", certificates.key),
        ("jwks.json", issuer.jwks()),
        ("token", format!("Authorization: Bearer {}\n", issuer.token(now)?)),
        ("portcullis.toml", script::configuration(&addresses, &issuer::secret()?)),
    ] {
        std::fs::write(folder.join(name), content)?;
    }
    Ok(files)
}

/// Prints `text` once the gate is ready, or nothing if it ends before.
fn announce(telemetry: SocketAddr, text: &str, mut out: impl Write, ended: &Receiver<()>) {
    while ended.recv_timeout(ASK) == Err(RecvTimeoutError::Timeout) {
        if is_ready(telemetry).unwrap_or(false) {
            // Whoever closed standard output does not want to know.
            drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
            return;
        }
    }
}

fn is_ready(telemetry: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&telemetry, ASK)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut status_line = [0; 12];
    stream.read_exact(&mut status_line)?;
    Ok(status_line.ends_with(b" 200"))
}

#[cfg(test)]
mod tests;
