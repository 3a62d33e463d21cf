//! A gate and its specification, side by side: every step is done to both, and their answers are compared.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use http::HeaderMap;
use portcullis::enforce::again::Grounds;
use portcullis::time::{Clock, Now};
use serde_json::json;

use crate::gate::{self, AUDIENCE, Gate, NAMES};
use crate::random::Random;
use crate::search::{Disagreement, Tally, World};
use crate::specification::{Specification, Token, Why};
use crate::steps::{self, Kind, Settings, Step, from_newest};

/// Where time begins: no second that anything else begins at.
const BEGIN: i64 = 1_800_000_000_123;

/// One gate with a store of its own.
pub(crate) struct Alone {
    folder: tempfile::TempDir,
    path: PathBuf,
    copies: usize,
    gate: Option<Gate>,
    specification: Specification,
    /// When this gate's monotonic clock was zero; and what it says.
    booted: i64,
    clock: Arc<AtomicI64>,
    presented: Vec<HeaderMap>,
    /// Sequence of each event, as the gate told it.
    sequences: Vec<u64>,
    sent: Vec<(String, usize)>,
    streams: Vec<(Grounds, usize)>,
    tally: Tally,
}

/// The first settings, and how wrong the wall clock is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beginning {
    settings: Settings,
    error: i64,
}

impl World for Alone {
    type Beginning = Beginning;
    type Step = Step;

    fn beginning(random: &mut Random) -> Beginning {
        Beginning { settings: steps::settings(random), error: steps::error(random) }
    }

    async fn new(Beginning { settings, error }: Beginning) -> Self {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let folder = folder.expect("a folder");
        let path = folder.path().join("gate.db");
        let clock = Arc::new(AtomicI64::new(0));
        let specification = Specification::new(BEGIN, error, settings);
        let gate = Gate::start(
            &path,
            settings,
            gate::moment(BEGIN + error, 0),
            Clock::Simulated(Arc::clone(&clock)),
        )
        .await;
        Self {
            folder,
            path,
            copies: 0,
            clock,
            gate: Some(gate),
            specification,
            booted: BEGIN,
            presented: Vec::new(),
            sequences: Vec::new(),
            sent: Vec::new(),
            streams: Vec::new(),
            tally: Tally::new(),
        }
    }

    fn step(&self, random: &mut Random) -> Step {
        steps::step(random, self.specification.settings, &self.specification.alive())
    }

    fn tally(&self) -> &Tally {
        &self.tally
    }

    async fn take(&mut self, step: Step) -> Result<(), Disagreement> {
        match step {
            Step::Issue { issuer, subject, client, lifetime, skew, version } => {
                let index = self.presented.len();
                let token = self.specification.issued(issuer, subject, client, lifetime, skew, version);
                self.presented.push(gate::presented(&claims(index, token)));
            }
            Step::Request { token, forwarded } => {
                if let Some(token) = from_newest(&self.presented, token) {
                    self.request(token, forwarded).map(drop)?;
                }
            }
            Step::Open { token } => {
                if let Some(token) = from_newest(&self.presented, token)
                    && let Some(grounds) = self.request(token, Some(0))?
                {
                    self.streams.push((grounds, token));
                }
            }
            Step::Stream { stream, bytes } => self.stream(stream, bytes)?,
            Step::Happen { kind, issuer, whose, ago } => self.happen(kind, issuer, whose, ago).await?,
            Step::Repeat(event) => {
                if let Some(event) = from_newest(&self.sent, event) {
                    let (json, place) = self.sent[event].clone();
                    let sent = self.gate().publish(&json, self.now()).await;
                    _ = self.acknowledged(sent, |specification| specification.again(place));
                }
            }
            Step::Undo(event) => {
                if let Some(event) = from_newest(&self.sequences, event) {
                    let undone = self.gate().undo(self.sequences[event], self.now()).await;
                    self.specification.undone(event, undone);
                }
            }
            Step::Wait(time) => self.passes(time),
            Step::Clock(error) => self.specification.error = error,
            Step::Save => {
                self.gate().save(self.now()).await;
                self.specification.saved();
            }
            Step::Sweep => {
                self.gate().sweep(self.now());
                self.specification.swept();
            }
            Step::Trim => {
                self.gate().trim(self.now()).await;
                self.specification.counted();
            }
            Step::Reload(settings) => {
                let now = self.now();
                self.gate.as_mut().expect("a gate runs").reload(settings, now).await;
                self.specification.reloaded(settings);
            }
            Step::Restart { killed, down, clock } => self.restart(killed, down, clock).await,
        }
        Ok(())
    }
}

impl Alone {
    fn now(&self) -> Now {
        gate::moment(self.specification.wall(), self.specification.now - self.booted)
    }

    /// Tells the store's clock what time it is.
    fn tell(&self) {
        self.clock.store(self.specification.now - self.booted, Ordering::SeqCst);
    }

    fn gate(&self) -> &Gate {
        self.gate.as_ref().expect("a gate runs between two steps")
    }

    fn passes(&mut self, time: i64) {
        self.specification.passes(time);
        self.tell();
    }

    /// Asks the gate, and compares; what it lets through, and how.
    fn request(&mut self, token: usize, forwarded: Option<i64>) -> Result<Option<Grounds>, Disagreement> {
        let answer = self.gate().decide(&self.presented[token], self.now());
        self.specification.seen(token);
        self.compare(token, "a request", answer.as_ref().map(drop).map_err(|why| *why))?;
        let (Ok(permit), Some(late)) = (answer, forwarded) else { return Ok(None) };
        self.passes(late);
        match self.gate().begin(&permit, self.now()) {
            Ok(()) if self.specification.is_over(token) => {
                Err(self.disagree(token, "forwarded, and the token was idle for good"))
            }
            Ok(()) => {
                self.specification.used(token);
                Ok(Some(self.gate().grounds(&permit)))
            }
            Err(why) if self.specification.may_deny(token, why) => Ok(None),
            Err(why) => Err(self.disagree(token, &format!("not forwarded for {why:?}"))),
        }
    }

    fn stream(&mut self, stream: usize, bytes: bool) -> Result<(), Disagreement> {
        let Some(stream) = from_newest(&self.streams, stream) else { return Ok(()) };
        let (mut grounds, token) = self.streams.remove(stream);
        let answer = self.gate().judge_again(&mut grounds, &self.presented[token], self.now());
        self.compare(token, "a stream", answer)?;
        if answer.is_err() {
            return Ok(());
        }
        if bytes {
            grounds.keep_alive(self.now());
            self.specification.used(token);
        }
        self.streams.insert(stream, (grounds, token));
        Ok(())
    }

    fn compare(&mut self, token: usize, what: &str, answer: Result<(), Why>) -> Result<(), Disagreement> {
        let said = answer.map_or_else(|why| format!("{why:?}"), |()| "passes".to_owned());
        *self.tally.entry(said).or_default() += 1;
        match (answer, self.specification.must_deny(token)) {
            (Ok(()), Some(why)) => Err(self.disagree(token, &format!("{what} passes, and must not: {why}"))),
            (Err(why), _) if !self.specification.may_deny(token, why) => {
                Err(self.disagree(token, &format!("{what} is denied for {why:?}, and must not be")))
            }
            _ => Ok(()),
        }
    }

    fn disagree(&self, token: usize, what: &str) -> Disagreement {
        Disagreement(format!("{what}: token {token}\n{}", self.specification.describe(token)))
    }

    async fn happen(
        &mut self,
        kind: Kind,
        issuer: usize,
        whose: usize,
        ago: Option<i64>,
    ) -> Result<(), Disagreement> {
        let (whose, issuer) = match kind {
            Kind::Token => {
                let Some(token) = from_newest(&self.presented, whose) else { return Ok(()) };
                (token, self.specification.tokens[token].issuer)
            }
            Kind::Roles { .. } | Kind::Subject => (whose % 3, issuer),
            Kind::Client => (whose % 2, issuer),
            Kind::Issuer => (0, issuer),
        };
        let (word, name) = match kind {
            Kind::Roles { .. } => ("role-changed", "subject"),
            Kind::Subject => ("subject-revoked", "subject"),
            Kind::Client => ("client-revoked", "client"),
            Kind::Issuer => ("issuer-revoked", ""),
            Kind::Token => ("token-revoked", "jti"),
        };
        let at = ago.map_or(self.specification.wall(), |ago| self.specification.now - ago);
        let mut event = json!({"type": word, "issuer": NAMES[issuer]});
        if !name.is_empty() {
            event[name] = json!(whose.to_string());
        }
        if let Kind::Roles { version: Some(version) } = kind {
            event["role_version"] = json!(version);
        }
        if ago.is_some() {
            event["at"] = json!(at as f64 / 1_000.0);
        }
        let json = event.to_string();
        let sent = self.gate().publish(&json, self.now()).await;
        let is_ahead = at > self.specification.wall() + self.specification.settings.leeway[issuer];
        if sent.is_err() && !is_ahead {
            return Err(Disagreement(format!("{json} is refused at {:?}: {sent:?}", self.now())));
        }
        let place = self.acknowledged(sent, |specification| specification.happened(kind, issuer, whose, at));
        // What is sent again without a time happens again.
        if let Some(place) = place.filter(|_| ago.is_some()) {
            self.sent.push((json, place));
        }
        Ok(())
    }

    /// The place of an event that was acknowledged. One whose sequence is known is the same event, and whether it was
    /// taken back stands.
    fn acknowledged(
        &mut self,
        sent: Result<u64, String>,
        put: impl FnOnce(&mut Specification),
    ) -> Option<usize> {
        let sequence = sent.ok()?;
        self.specification.counted();
        let known = self.sequences.iter().position(|known| *known == sequence);
        known.or_else(|| {
            put(&mut self.specification);
            self.sequences.push(sequence);
            Some(self.sequences.len() - 1)
        })
    }

    async fn restart(&mut self, killed: bool, down: i64, error: i64) {
        self.streams.clear();
        if killed {
            // What is on the disk at this moment is all that the next one finds.
            self.copies += 1;
            let copy = self.folder.path().join(self.copies.to_string());
            self.path = copy_beside(&self.path, &copy);
            drop(self.gate.take());
        } else {
            self.gate().save(self.now()).await;
            drop(self.gate.take());
        }
        self.specification.restarted(killed, down, error);
        self.booted = self.specification.now;
        self.tell();
        let clock = Clock::Simulated(Arc::clone(&self.clock));
        self.gate = Some(Gate::start(&self.path, self.specification.settings, self.now(), clock).await);
    }
}

/// Copies the database and its companions as they are now into another folder; where the database is there.
fn copy_beside(database: &Path, folder: &Path) -> PathBuf {
    std::fs::create_dir(folder).expect("a folder");
    for file in std::fs::read_dir(database.parent().expect("a folder")).expect("a folder") {
        let file = file.expect("a file");
        if file.file_type().is_ok_and(|kind| kind.is_file()) {
            std::fs::copy(file.path(), folder.join(file.file_name())).expect("room for a copy");
        }
    }
    folder.join("gate.db")
}

fn claims(index: usize, token: &Token) -> serde_json::Value {
    let mut claims = json!({
        "iss": NAMES[token.issuer], "aud": AUDIENCE, "sub": token.subject.to_string(),
        "client_id": token.client.to_string(), "jti": index.to_string(),
        "iat": token.issued / 1_000, "exp": token.expires / 1_000,
    });
    if let Some(version) = token.version {
        claims["role_version"] = json!(version);
    }
    claims
}
