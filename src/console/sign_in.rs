//! Sign-in and sign-out.

use std::net::IpAddr;
use std::num::NonZeroU32;

use aws_lc_rs::digest::{SHA256, digest};
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use http::{HeaderMap, StatusCode, Uri, header};
use maud::{Markup, html};
use zeroize::Zeroizing;

use super::form::{self, Fields, SentForm};
use super::layout::{self, FormField};
use super::page_error::PageError;
use super::visitor::Visitor;
use super::visits::SignedIn;
use super::{Console, ROOT, Shared};
use crate::admin::Peer;
use crate::authority::throttle::{AddressThrottle, GuessLimit, network};
use crate::identity::Key;
use crate::time::Monotonic;

/// How many passwords may be tried per minute: for one user from one address, for one user, and from one address.
const FOR_USER_FROM_ADDRESS: NonZeroU32 = NonZeroU32::MIN.saturating_add(4);
const FOR_USER: NonZeroU32 = NonZeroU32::MIN.saturating_add(59);
const FROM_ADDRESS: NonZeroU32 = NonZeroU32::MIN.saturating_add(29);

/// The limits on guessing passwords. Passwords that people remember can be guessed, so attempts over a
/// limit are not even checked.
pub(super) struct Guesses {
    pairs: GuessLimit<(Key, IpAddr)>,
    users: GuessLimit<Key>,
    addresses: AddressThrottle,
}

impl Default for Guesses {
    fn default() -> Self {
        Self {
            pairs: GuessLimit::new(FOR_USER_FROM_ADDRESS),
            users: GuessLimit::new(FOR_USER),
            addresses: AddressThrottle::new(FROM_ADDRESS),
        }
    }
}

impl Guesses {
    /// Counts an attempt.
    ///
    /// # Errors
    /// When there were too many attempts.
    fn attempt(&self, user: &str, address: IpAddr, now: Monotonic) -> Result<(), PageError> {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, user.as_bytes()).as_ref());
        let user = Key::from_digest(&hash);
        let outcome = self
            .addresses
            .fail(address, now)
            .and_then(|()| self.pairs.fail((user, network(address)), now))
            .and_then(|()| self.users.fail(user, now));
        outcome.map_err(|wait| PageError::Slow(u64::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(60)))
    }
}

pub(super) fn routes() -> Router<Console> {
    Router::new()
        .route("/console/sign-in", get(show).post(sign_in))
        .route("/console/sign-out", post(sign_out))
}

async fn show(State(console): State<Console>, visitor: Option<Visitor>, uri: Uri) -> Response {
    let next = next(&Fields::parse(uri.query().unwrap_or_default().as_bytes()));
    if visitor.is_some() {
        return Redirect::to(&next).into_response();
    }
    page(&console, &Fields::default(), &next, None).into_response()
}

/// The page to open after signing in; always a page of the console.
fn next(fields: &Fields) -> String {
    let wanted = fields.text("next");
    let is_page =
        wanted.starts_with(ROOT) && !wanted.contains(['\\', '\r', '\n']) && !wanted.contains("/sign-");
    if is_page { wanted.to_owned() } else { ROOT.to_owned() }
}

fn page(console: &Shared, typed: &Fields, next: &str, problem: Option<(&str, &str)>) -> Markup {
    let of = |name: &str| problem.filter(|(field, _)| *field == name).map(|(_, why)| why);
    let takes_users = console.api.authority().is_some_and(|authority| authority.has_password_users());
    layout::bare(
        "Sign in",
        html! {
            @if takes_users {
                form.card method="post" action="/console/sign-in" {
                    h2 { "As a user" }
                    input type="hidden" name="next" value=(next);
                    (FormField { label: "User", name: "user", value: typed.text("user"), required: true, autocomplete: "username", ..FormField::default() }.render())
                    (FormField { label: "Password", name: "password", kind: "password", required: true, autocomplete: "current-password", problem: of("password"), ..FormField::default() }.render())
                    button type="submit" { "Sign in" }
                }
            }
            @if console.access.has_tokens() {
                form.card method="post" action="/console/sign-in" {
                    h2 { "With an admin token" }
                    p.hint { "For operators. What you see depends on the permissions of the token." }
                    input type="hidden" name="next" value=(next);
                    // Password managers need a user name.
                    input type="text" value="admin token" autocomplete="username" readonly hidden;
                    (FormField { label: "Admin token", name: "token", kind: "password", required: true, problem: of("token"), ..FormField::default() }.render())
                    button type="submit" { "Sign in with the token" }
                }
            }
        },
    )
}

async fn sign_in(
    State(console): State<Console>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, PageError> {
    let fields = form::read(&headers, body, &console).await?;
    let (now, address, next) = (Monotonic::now(), peer.ip(), next(&fields));
    let token = fields.trimmed("token");
    let (who, field, why) = if token.is_empty() {
        let who = as_user(&console, &fields, address, now).await?;
        (who, "password", "The user or password is incorrect.")
    } else {
        let who = console.access.identify(token.as_bytes(), address, now);
        let who = who
            .map_err(|wait| PageError::Slow(u64::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(60)))?;
        (who.map(SignedIn::Token), "token", "This is not an admin token of this gate.")
    };
    let Some(who) = who else {
        let page = page(&console, &fields, &next, Some((field, why)));
        return Ok((StatusCode::UNAUTHORIZED, page).into_response());
    };
    // Ends the previous visit, so that nobody can continue it.
    console.cookie(&headers).into_iter().for_each(|cookie| console.visits.end(&cookie));
    let cookie = console.visits.begin(who, now).map_err(|_unspecified| PageError::Gate {
        status: StatusCode::SERVICE_UNAVAILABLE,
        why: "The random number generator failed.".to_owned(),
    })?;
    Ok(([(header::SET_COOKIE, console.set_cookie(Some(&cookie)))], Redirect::to(&next)).into_response())
}

async fn as_user(
    console: &Shared,
    fields: &Fields,
    address: IpAddr,
    now: Monotonic,
) -> Result<Option<SignedIn>, PageError> {
    let Some(authority) = console.api.authority() else { return Ok(None) };
    let name = fields.trimmed("user");
    console.guesses.attempt(name, address, now)?;
    let password = Zeroizing::new(fields.text("password").to_owned());
    let user = authority.sign_in(name, password).await;
    Ok(user.and_then(|user| Some(SignedIn::User { id: user.id.clone(), stamp: user.password_stamp()? })))
}

async fn sign_out(State(console): State<Console>, sent: SentForm) -> Response {
    console.visits.end(&sent.visitor.cookie);
    ([(header::SET_COOKIE, console.set_cookie(None))], Redirect::to("/console/sign-in")).into_response()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_visitor_is_only_led_to_pages_of_the_console() {
        for (wanted, led) in [
            ("/console/credentials?after=x", "/console/credentials?after=x"),
            ("", ROOT),
            ("https://evil.example/", ROOT),
            ("//evil.example/console/", ROOT),
            ("/console/\\evil", ROOT),
            ("/v1/users", ROOT),
            ("/console/sign-out", ROOT),
        ] {
            let query = layout::query(&[("next", wanted)]);
            assert_eq!(next(&Fields::parse(query.as_bytes())), led, "{wanted}");
        }
    }

    #[test]
    fn guessing_is_limited_for_a_user_from_an_address_and_from_everywhere() {
        let guesses = Guesses::default();
        let at = |seconds| Monotonic::from_millis(0).plus(Duration::from_secs(seconds));
        let address = |last| IpAddr::from([192, 0, 2, last]);
        let passes = |user: &str, last, seconds| guesses.attempt(user, address(last), at(seconds)).is_ok();
        assert!((0..5).all(|_| passes("alice", 1, 0)));
        assert!(!passes("alice", 1, 0) && passes("bob", 1, 0) && passes("alice", 2, 0), "by the pair");
        assert!(passes("alice", 1, 13), "one more after a fifth of a minute");
        let everywhere = (10..80).filter(|last| passes("carol", *last, 20)).count();
        assert_eq!(everywhere, 60, "by the user");
        let from_one = (0..40).filter(|user| passes(&format!("user-{user}"), 99, 20)).count();
        assert_eq!(from_one, 30, "by the address");
    }
}
