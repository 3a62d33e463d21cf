//! The operation of a request: its path, method and preconditions.

use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, Method};
use percent_encoding::percent_decode_str;

use super::error::ScimError;
use super::version;
use crate::signals::Concealed;

/// The resource that a path below a provider's names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ScimPath {
    Config,
    ResourceTypes(Option<String>),
    Schemas(Option<String>),
    Users(Option<String>),
    Groups(Option<String>),
    /// A part of the protocol that is not supported.
    Unsupported(&'static str),
}

impl ScimPath {
    /// Parses `/v2/Users/{id}` and similar paths; `None` if the path does not exist.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let path = path.strip_suffix('/').unwrap_or(path);
        let mut segments = path.strip_prefix("/v2/")?.split('/');
        let kind = segments.next()?;
        let id =
            segments.next().map(|id| percent_decode_str(id).decode_utf8().map(|id| id.into_owned()).ok());
        if segments.next().is_some() {
            return None;
        }
        let id = match id {
            Some(None) => return None,
            Some(Some(id)) if id == ".search" => return Some(Self::Unsupported("search with POST")),
            Some(id) => id,
            None => None,
        };
        match (kind, id) {
            ("Users", id) => Some(Self::Users(id)),
            ("Groups", id) => Some(Self::Groups(id)),
            ("Schemas", id) => Some(Self::Schemas(id)),
            ("ResourceTypes", id) => Some(Self::ResourceTypes(id)),
            ("ServiceProviderConfig", None) => Some(Self::Config),
            ("Bulk", None) => Some(Self::Unsupported("bulk")),
            ("Me", None) => Some(Self::Unsupported("/Me")),
            (".search", None) => Some(Self::Unsupported("search with POST")),
            _ => None,
        }
    }

    /// The supported methods, as listed in `Allow`.
    pub(super) fn methods(&self) -> &'static str {
        match self {
            Self::Users(None) | Self::Groups(None) => "GET, POST",
            Self::Users(Some(_)) | Self::Groups(Some(_)) => "GET, PUT, PATCH, DELETE",
            _ => "GET",
        }
    }

    /// # Errors
    /// When it does not support the method.
    pub(super) fn check(&self, method: &Method) -> Result<(), ScimError> {
        if let Self::Unsupported(what) = self {
            return Err(ScimError::not_implemented(what));
        }
        let methods = self.methods();
        let is_taken = methods.split(", ").any(|known| method.as_str() == known);
        if is_taken { Ok(()) } else { Err(ScimError::method(methods)) }
    }
}

/// Whether the request carries one of the tokens. All are compared, so that the time reveals nothing.
pub(super) fn is_authorized(headers: &HeaderMap, tokens: &[Concealed]) -> bool {
    let Some((scheme, token)) =
        only(headers, AUTHORIZATION).and_then(|field| field.as_bytes().split_at_checked(7))
    else {
        return false;
    };
    let is_right = tokens.iter().fold(false, |so_far, known| known.matches(token.trim_ascii()) | so_far);
    scheme.eq_ignore_ascii_case(b"bearer ") && is_right
}

/// Checks the media type of the body; a missing one is accepted.
pub(super) fn check_content_type(headers: &HeaderMap) -> Result<(), ScimError> {
    if !headers.contains_key(CONTENT_TYPE) {
        return Ok(());
    }
    let field = only(headers, CONTENT_TYPE).and_then(|field| field.to_str().ok()).unwrap_or_default();
    let essence = field.split(';').next().unwrap_or_default().trim();
    let known = ["application/scim+json", "application/json"];
    let is_known = known.iter().any(|known| essence.eq_ignore_ascii_case(known));
    if is_known { Ok(()) } else { Err(ScimError::media_type()) }
}

/// The revisions that a precondition allows (RFC 7232 §3.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ExpectedVersion {
    Any,
    /// One of these entity tags.
    OneOf(Vec<String>),
}

impl ExpectedVersion {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let tags = tags(headers, IF_MATCH);
        if tags.is_empty() || tags.iter().any(|listed| listed == "*") { Self::Any } else { Self::OneOf(tags) }
    }

    pub(super) fn allows(&self, revision: u64) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(tags) => tags.iter().any(|tag| is_version(tag, revision)),
        }
    }
}

/// Whether the client already has this revision (RFC 7232 §3.2).
pub(super) fn holds(headers: &HeaderMap, revision: u64) -> bool {
    tags(headers, IF_NONE_MATCH).iter().any(|tag| is_version(tag, revision))
}

fn tags(headers: &HeaderMap, name: HeaderName) -> Vec<String> {
    let fields = headers.get_all(name).iter().filter_map(|field| field.to_str().ok());
    fields
        .flat_map(|field| field.split(','))
        .map(|tag| tag.trim().to_owned())
        .filter(|tag| !tag.is_empty())
        .collect()
}

/// Compares weakly: some clients omit `W/`.
fn is_version(tag: &str, revision: u64) -> bool {
    let wanted = version(revision);
    let (listed, wanted) = (tag.trim_start_matches("W/"), wanted.trim_start_matches("W/"));
    listed == wanted
}

/// The field of this name, if there is exactly one.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&HeaderValue> {
    let mut fields = headers.get_all(name).iter();
    fields.next().filter(|_| fields.next().is_none())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn each_token_of_a_provider_is_right_however_often_it_is_listed() {
        for (field, listed, expected) in [
            ("Bearer one", &["one"][..], true),
            ("bearer two", &["one", "two"], true),
            ("Bearer one", &["one", "one"], true),
            ("Bearer three", &["one", "two"], false),
            ("Bearer one", &[], false),
            ("Basic: one", &["one"], false),
        ] {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(field))]);
            let tokens: Vec<_> = listed.iter().map(|token| Concealed::new((*token).to_owned())).collect();
            assert_eq!(is_authorized(&headers, &tokens), expected, "{field} of {listed:?}");
        }
    }
}
