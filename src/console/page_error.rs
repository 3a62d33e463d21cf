//! Error pages: what failed, and why.

use std::borrow::Cow;

use axum::response::{IntoResponse, Redirect, Response};
use http::{HeaderValue, StatusCode, header};
use maud::html;

use super::layout;
use crate::admin::Problem;

/// Why a page is not shown, or a form changed nothing.
#[derive(Debug)]
pub(super) enum PageError {
    /// Nobody is signed in; signing in leads back to this path.
    SignIn { back: String },
    /// A form was submitted, but nobody is signed in.
    Ended,
    /// The form does not come from a page of this visit.
    Foreign,
    /// The submitted data is not a valid form.
    Unreadable(Cow<'static, str>),
    /// The visitor does not have access.
    Forbidden(Cow<'static, str>),
    /// The page does not exist, or the record does not exist for this visitor.
    NoPage,
    /// Neither an admin token nor a password is configured.
    NobodyCanSignIn,
    /// Too many attempts; contains the seconds to wait.
    Slow(u64),
    /// The gate could not do what was asked.
    Gate { status: StatusCode, why: String },
}

impl From<Problem> for PageError {
    fn from(problem: Problem) -> Self {
        match problem.status() {
            StatusCode::NOT_FOUND => Self::NoPage,
            status => Self::Gate { status, why: problem.to_string() },
        }
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let (status, title, text): (_, _, Cow<'static, str>) = match self {
            Self::SignIn { back } => return to_sign_in(&back),
            Self::Ended => (
                StatusCode::UNAUTHORIZED,
                "Your session has ended",
                "You were signed out because you were inactive for too long, or your password or token was changed. \
                 No changes were made. Sign in and send the form again."
                    .into(),
            ),
            Self::Foreign => (
                StatusCode::FORBIDDEN,
                "This form was not sent from the console",
                "No changes were made. Go back to the page, reload it and send the form from there.".into(),
            ),
            Self::Unreadable(why) => (StatusCode::BAD_REQUEST, "The form is invalid", why),
            Self::Forbidden(why) => (StatusCode::FORBIDDEN, "You do not have access to this page", why),
            Self::NoPage => (
                StatusCode::NOT_FOUND,
                "Page not found",
                "It does not exist, or you do not have access to it.".into(),
            ),
            Self::NobodyCanSignIn => (
                StatusCode::NOT_FOUND,
                "Sign-in is not set up yet",
                "Add an admin token under [[admin.tokens]], or set a password for a user of the authority with \
                 `portcullis user password`."
                    .into(),
            ),
            Self::Slow(seconds) => {
                let text = format!("Wait {seconds} seconds, then try again.");
                let page = layout::bare("Too many attempts", html! { p { (text) } });
                let mut response = (StatusCode::TOO_MANY_REQUESTS, page).into_response();
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
                return response;
            }
            Self::Gate { status, why } => (status, "Something went wrong", why.into()),
        };
        let page = layout::bare(
            title,
            html! {
                p { (text) }
                p { a.button href=(super::ROOT) { "Back to the console" } }
            },
        );
        (status, page).into_response()
    }
}

fn to_sign_in(back: &str) -> Response {
    let query = form_urlencoded::Serializer::new(String::new()).append_pair("next", back).finish();
    Redirect::to(&format!("/console/sign-in?{query}")).into_response()
}
