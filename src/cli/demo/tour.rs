//! `portcullis demo --tour`: demonstrates the gate's two main uses step by step, with one line and a tick for each step.

use std::io::{self, Write};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use super::script::{Addresses, DemoStory, TokenSource, configuration};
use super::visitor::{DemoVisitor, VisitorAnswer};

/// The idle timeout in the tour: long enough not to expire between two steps.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3);
/// The settings at the start of the tour. It prints what happens, so nothing is logged.
pub(super) const PLAY: DemoStory<'_> = DemoStory { idle_timeout: IDLE_TIMEOUT, ..DemoStory::VISIT };
/// The token lifetime in the second part.
const SHORT_LIFE: Duration = Duration::from_secs(2);
/// The form field that names the tenant in the second part.
const TENANT_FIELD: &str = "dealtrack_registration_id";

/// Runs the steps in order, and records whether all of them succeeded.
pub(super) struct Tour<'a, W> {
    pub(super) visitor: &'a DemoVisitor,
    pub(super) addresses: &'a Addresses,
    pub(super) admin_secret: &'a str,
    /// The password of ada, for the console.
    pub(super) password: &'a str,
    pub(super) configuration: &'a Path,
    pub(super) out: W,
}

/// An application credential, as its owner keeps it.
struct DemoApp {
    client_id: String,
    secret: String,
}

impl DemoApp {
    fn fields<'f>(&'f self, more: &[(&'f str, &'f str)]) -> Vec<(&'f str, &'f str)> {
        let own = [
            ("grant_type", "client_credentials"),
            ("client_id", self.client_id.as_str()),
            ("client_secret", self.secret.as_str()),
        ];
        own.into_iter().chain(more.iter().copied()).collect()
    }
}

impl<W: Write> Tour<'_, W> {
    /// Runs all steps; returns an error if a step did not end as its line says.
    pub(super) fn play(mut self) -> io::Result<()> {
        let began = Instant::now();
        self.say("An application acts for a user, with some of the user's roles")?;
        self.roles()?;
        self.console()?;
        self.say("\nA tenant's client asks for scopes, and each opens its own endpoints")?;
        self.scopes()?;
        let seconds = began.elapsed().as_secs();
        self.say(&format!("\nEvery step succeeded, in {seconds} seconds."))
    }

    fn roles(&mut self) -> io::Result<()> {
        let ada = json!({ "id": "ada", "name": "Ada", "roles": ["case-reader", "case-writer"] });
        self.administer("an administrator creates the user ada, with two roles", "/v1/users", &ada)?;
        let robot = self.credential(
            "ada makes the application credential \"Invoice robot\" with both",
            &json!({ "name": "Invoice robot", "owner": "ada", "roles": ["case-reader", "case-writer"] }),
        )?;
        let first = self.token("the robot gets a token", &robot.fields(&[]))?;
        let second = self.token("and another, which lives beside it", &robot.fields(&[]))?;
        self.api("without a token: 401", "GET /cases/7", None, (401, "missing_token"))?;
        self.api("with a token: 200", "GET /cases/7", Some(&first), (200, ""))?;
        self.api("writing with the other: 200", "POST /cases", Some(&second), (200, ""))?;
        self.api(
            "an endpoint whose scope it lacks: 403",
            "GET /users",
            Some(&first),
            (403, "insufficient_scope"),
        )?;

        self.set_roles("ada loses the role case-writer", &["case-reader"])?;
        self.api("tokens from before the change: 401", "GET /cases/7", Some(&first), (401, "invalid_token"))?;
        self.api("every one of them", "POST /cases", Some(&second), (401, "invalid_token"))?;
        let third = self.token("the robot authenticates again", &robot.fields(&[]))?;
        self.api("the new token reads: 200", "GET /cases/7", Some(&third), (200, ""))?;
        self.api(
            "and does not carry the revoked role: 403",
            "POST /cases",
            Some(&third),
            (403, "insufficient_scope"),
        )?;
        self.set_roles("ada loses the other role too", &[])?;
        self.refused_token(
            "no role is left for the robot",
            &robot.fields(&[]),
            (400, "unauthorized_client"),
        )?;
        self.set_roles("ada gets a role back", &["case-reader"])?;

        let unused = self.token("the robot gets a token", &robot.fields(&[]))?;
        self.api("and uses it: 200", "GET /cases/7", Some(&unused), (200, ""))?;
        sleep(IDLE_TIMEOUT + Duration::from_millis(200));
        let idle = format!("{} seconds without use, and it is idle: 401", IDLE_TIMEOUT.as_secs());
        self.api(&idle, "GET /cases/7", Some(&unused), (401, "invalid_token"))?;
        let fresh = self.token("authenticating again helps", &robot.fields(&[]))?;
        self.api("200", "GET /cases/7", Some(&fresh), (200, ""))
    }

    fn console(&mut self) -> io::Result<()> {
        let password = json!({ "password": self.password });
        let set = self.visitor.administer(Method::PUT, "/v1/users/ada/password", &password);
        self.tick("ada gets a password for the console", set.map(drop))?;
        let sign_in = self.visitor.page(
            "/console/sign-in",
            None,
            Some(&[("user", "ada"), ("password", self.password)]),
        );
        let cookie = sign_in.and_then(|page| match (page.status, page.cookie) {
            (303, Some(cookie)) => Ok(cookie),
            (status, _) => Err(io::Error::other(format!("the console responded with {status}"))),
        });
        let cookie = self.tick("she signs in with it", cookie)?;
        let page = self.visitor.page("/console/credentials", Some(&cookie), None);
        let seen = page.and_then(|page| {
            let is_hers = page.status == 200 && page.text.contains("Invoice robot");
            is_hers.then_some(()).ok_or_else(|| io::Error::other("her application is not on the page"))
        });
        self.tick("and sees her application among her credentials", seen)
    }

    fn scopes(&mut self) -> io::Result<()> {
        let tokens = TokenSource::Authority { tenant_field: Some(TENANT_FIELD), token_lifetime: SHORT_LIFE };
        let play = DemoStory { tokens, ..PLAY };
        std::fs::write(self.configuration, configuration(self.addresses, self.admin_secret, &play))?;
        self.administer(
            "the gate takes another configuration without a restart",
            "/v1/reload",
            &Value::Null,
        )?;
        let desk = self.credential(
            "the tenant acme gets a credential with two scopes",
            &json!({ "name": "Deal desk", "owner": "ada", "tenant": "acme", "scopes": ["read:deals", "read:activity"] }),
        )?;
        let acme = (TENANT_FIELD, "acme");
        let fields = desk.fields(&[acme, ("scope", "read:deals read:activity")]);
        let token = self.token("its client asks for both", &fields)?;
        self.api("read:deals opens the deals: 200", "GET /deals/7", Some(&token), (200, ""))?;
        self.api("read:activity the activity log: 200", "GET /activity", Some(&token), (200, ""))?;
        self.api("the users stay closed: 403", "GET /users", Some(&token), (403, "insufficient_scope"))?;
        let fields = desk.fields(&[acme, ("scope", "read:users")]);
        self.refused_token("a scope it does not have: invalid_scope", &fields, (400, "invalid_scope"))?;
        let fields = desk.fields(&[(TENANT_FIELD, "other")]);
        self.refused_token("another tenant: invalid_client", &fields, (401, "invalid_client"))?;
        let fields = [("grant_type", "password"), acme];
        self.refused_token(
            "another grant: unsupported_grant_type",
            &fields,
            (400, "unsupported_grant_type"),
        )?;
        let fields = desk.fields(&[acme]);
        let token = self.token(&format!("a token lives for {} seconds", SHORT_LIFE.as_secs()), &fields)?;
        sleep(SHORT_LIFE + Duration::from_millis(200));
        self.api("then it has expired: 401", "GET /deals/7", Some(&token), (401, "invalid_token"))
    }

    fn credential(&mut self, step: &str, document: &Value) -> io::Result<DemoApp> {
        let made = self.administer(step, "/v1/credentials", document)?;
        let member = |name: &str| made.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(DemoApp { client_id: member("client_id"), secret: member("client_secret") })
    }

    fn set_roles(&mut self, step: &str, roles: &[&str]) -> io::Result<()> {
        let outcome = self.visitor.administer(Method::PUT, "/v1/users/ada/roles", &json!({ "roles": roles }));
        self.tick(step, outcome.map(drop))
    }

    fn administer(&mut self, step: &str, path: &str, document: &Value) -> io::Result<Value> {
        let outcome = self.visitor.administer(Method::POST, path, document);
        self.tick(step, outcome)
    }

    fn token(&mut self, step: &str, fields: &[(&str, &str)]) -> io::Result<String> {
        let outcome =
            self.visitor.token(fields).and_then(|answer| expect(&answer, (200, "")).map(|()| answer));
        self.tick(step, outcome.map(|answer| answer.text("access_token").to_owned()))
    }

    fn refused_token(&mut self, step: &str, fields: &[(&str, &str)], wanted: (u16, &str)) -> io::Result<()> {
        let outcome = self.visitor.token(fields).and_then(|answer| expect(&answer, wanted));
        self.tick(step, outcome)
    }

    /// `call` is a method and a path.
    fn api(&mut self, step: &str, call: &str, token: Option<&str>, wanted: (u16, &str)) -> io::Result<()> {
        let (method, path) = call.split_once(' ').unwrap_or(("GET", call));
        let method = if method == "POST" { Method::POST } else { Method::GET };
        let outcome = self.visitor.api(method, path, token).and_then(|answer| expect(&answer, wanted));
        self.tick(&format!("{step:<62} {call}"), outcome)
    }

    /// Prints the line of a step, ticked or crossed.
    fn tick<T>(&mut self, step: &str, outcome: io::Result<T>) -> io::Result<T> {
        match &outcome {
            Ok(_) => self.say(&format!("  ✓ {step}"))?,
            Err(error) => self.say(&format!("  ✗ {step}\n    {error}"))?,
        }
        outcome
    }

    fn say(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "{line}")?;
        self.out.flush()
    }
}

/// Checks that a response has this status and error.
fn expect(answer: &VisitorAnswer, (status, error): (u16, &str)) -> io::Result<()> {
    if answer.status == status && answer.text("error") == error {
        return Ok(());
    }
    let (found, named) = (answer.status, answer.text("error"));
    Err(io::Error::other(format!("expected {status} {error}, and got {found} {named}")))
}
