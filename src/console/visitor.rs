//! The visitor who requests a page, and what that visitor may see.

use std::sync::Arc;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use http::request::Parts;
use http::{HeaderMap, Method, header};

use super::page_error::PageError;
use super::visits::{SignedIn, Visit};
use super::{Console, Shared};
use crate::admin::{Caller, Permission};
use crate::authority::User;
use crate::time::Monotonic;

/// The cookie with TLS: bound to this host and path, and sent only over TLS (RFC 6265bis §4.1.3.2).
const SECURE_COOKIE: &str = "__Host-portcullis-console";
/// The cookie without TLS, which the configuration allows only on loopback.
const PLAIN_COOKIE: &str = "portcullis-console";

/// A visitor who is signed in.
#[derive(Clone)]
pub(super) struct Visitor {
    pub(super) who: Who,
    pub(super) visit: Visit,
    /// The value of the cookie.
    pub(super) cookie: String,
}

/// The identity of a visitor.
#[derive(Clone)]
pub(super) enum Who {
    /// The holder of an admin token.
    Operator(Caller),
    /// A user of the authority.
    User(Arc<User>),
}

/// A page of the menu.
pub(super) struct Tab {
    pub(super) path: &'static str,
    pub(super) name: &'static str,
    /// The permission that operators need to see it; `None` if users see it, too.
    needs: Option<Permission>,
}

/// The menu entries, in order.
const TABS: [Tab; 8] = [
    Tab { path: "/console/credentials", name: "Application credentials", needs: None },
    Tab { path: "/console/users", name: "Users", needs: Some(Permission::Authority) },
    Tab { path: "/console/live", name: "Live", needs: Some(Permission::Config) },
    Tab { path: "/console/explain", name: "Explain", needs: Some(Permission::Sessions) },
    Tab { path: "/console/events", name: "Events", needs: Some(Permission::Events) },
    Tab { path: "/console/revocations", name: "Revocations", needs: Some(Permission::Events) },
    Tab { path: "/console/sessions", name: "Sessions", needs: Some(Permission::Sessions) },
    Tab { path: "/console/usage", name: "Usage", needs: Some(Permission::Sessions) },
];

impl Visitor {
    /// Identifies the visitor of a request.
    ///
    /// # Errors
    /// When nobody is signed in.
    pub(super) fn of(parts: &mut Parts, console: &Console) -> Result<Self, PageError> {
        let now = Monotonic::now();
        let missing = || match parts.method {
            Method::GET | Method::HEAD => PageError::SignIn {
                back: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
            },
            _ => PageError::Ended,
        };
        let cookie = console.cookie(&parts.headers).ok_or_else(missing)?;
        let visit = console.visits.find(&cookie, now).ok_or_else(missing)?;
        match console.who(&visit) {
            Some(who) => Ok(Self { who, visit, cookie }),
            None => {
                console.visits.end(&cookie);
                Err(missing())
            }
        }
    }

    /// The pages that this visitor may see.
    pub(super) fn tabs(&self) -> impl Iterator<Item = &'static Tab> {
        TABS.iter().filter(|tab| match (tab.needs, &self.who) {
            (None, Who::User(_)) => true,
            (None, Who::Operator(_)) => self.may(Permission::Authority),
            (Some(needs), _) => self.may(needs),
        })
    }

    /// Whether the visitor has a permission. A user of the authority has none.
    pub(super) fn may(&self, permission: Permission) -> bool {
        self.who.may(permission)
    }

    /// Returns an error unless the visitor has this permission.
    ///
    /// # Errors
    /// When the permission is missing.
    pub(super) fn require(&self, permission: Permission) -> Result<(), PageError> {
        if self.may(permission) {
            return Ok(());
        }
        Err(PageError::Forbidden(match self.who {
            Who::Operator(_) => format!("Your token lacks the permission {:?}.", permission.as_str()).into(),
            Who::User(_) => "This page is for operators with an admin token.".into(),
        }))
    }

    /// The user who is signed in; `None` for an operator.
    pub(super) fn user(&self) -> Option<&Arc<User>> {
        match &self.who {
            Who::User(user) => Some(user),
            Who::Operator(_) => None,
        }
    }

    /// The name of the visitor on pages.
    pub(super) fn name(&self) -> &str {
        match &self.who {
            Who::Operator(caller) => &caller.name,
            Who::User(user) => &user.name,
        }
    }
}

impl Who {
    /// Whether this visitor has a permission. A user of the authority has none.
    fn may(&self, permission: Permission) -> bool {
        match self {
            Self::Operator(caller) => caller.may(permission),
            Self::User(_) => false,
        }
    }
}

impl Shared {
    /// Whether the visitor with this cookie may currently see a page that requires this permission.
    /// Does not extend the visit.
    pub(super) fn may_see(&self, cookie: &str, permission: Permission) -> bool {
        let visit = self.visits.look(cookie, Monotonic::now()).filter(|_| self.is_enabled());
        visit.and_then(|visit| self.who(&visit)).is_some_and(|who| who.may(permission))
    }

    /// The value of the browser's cookie.
    pub(super) fn cookie(&self, headers: &HeaderMap) -> Option<String> {
        let wanted = self.cookie_name();
        let fields = headers.get_all(header::COOKIE).iter().filter_map(|field| field.to_str().ok());
        let mut pairs =
            fields.flat_map(|field| field.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(name, _)| *name == wanted).map(|(_, value)| value.to_owned())
    }

    /// The name of the visitor in log lines, which do not name users.
    pub(super) fn logged_name(&self, headers: &HeaderMap) -> String {
        let cookie = self.cookie(headers);
        let visit = cookie.and_then(|cookie| self.visits.look(&cookie, Monotonic::now()));
        match visit.and_then(|visit| self.who(&visit)) {
            Some(Who::Operator(caller)) => caller.name.to_string(),
            Some(Who::User(_)) => "a user".to_owned(),
            None => "nobody".to_owned(),
        }
    }

    fn cookie_name(&self) -> &'static str {
        if self.access.is_encrypted() { SECURE_COOKIE } else { PLAIN_COOKIE }
    }

    /// A `Set-Cookie` field that sets this value, or deletes the cookie.
    pub(super) fn set_cookie(&self, value: Option<&str>) -> String {
        let name = self.cookie_name();
        let (secure, path) = if self.access.is_encrypted() { ("; Secure", "/") } else { ("", "/console") };
        match value {
            Some(value) => format!("{name}={value}; Path={path}; HttpOnly; SameSite=Strict{secure}"),
            None => format!("{name}=; Path={path}; HttpOnly; SameSite=Strict; Max-Age=0{secure}"),
        }
    }

    /// Looks up who a visit belongs to: in the meantime a token may have been removed from the configuration, a
    /// password changed, or a user deleted.
    pub(super) fn who(&self, visit: &Visit) -> Option<Who> {
        match &visit.who {
            SignedIn::Token(digest) => self.access.caller(digest).map(Who::Operator),
            SignedIn::User { id, stamp } => {
                let user = self.api.authority()?.user(id)?;
                (user.password_stamp() == Some(*stamp)).then_some(Who::User(user))
            }
        }
    }
}

impl FromRequestParts<Console> for Visitor {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, console: &Console) -> Result<Self, PageError> {
        Self::of(parts, console)
    }
}

impl OptionalFromRequestParts<Console> for Visitor {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, console: &Console) -> Result<Option<Self>, PageError> {
        Ok(Self::of(parts, console).ok())
    }
}
