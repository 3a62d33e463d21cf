//! The fields of submitted forms, by name; a name may occur several times.

use std::collections::BTreeSet;

use axum::extract::{FromRequest, Request};
use http::{HeaderMap, header};

use super::page_error::PageError;
use super::visitor::Visitor;
use super::{Console, Shared};
use crate::admin::{AdminLimits, read_body};

/// The field with the visit's CSRF token.
pub(super) const CSRF: &str = "csrf";
/// The field with a value that is unique to each rendered form, so that a form that is sent again is recognized.
pub(super) const ONCE: &str = "once";

/// The largest form, in bytes. Anybody can send one without signing in.
const LARGEST: usize = 64 * 1024;

/// A submitted form, and the visitor who sent it.
pub(super) struct SentForm {
    pub(super) visitor: Visitor,
    pub(super) fields: Fields,
}

/// The fields of a form, with the values as typed.
#[derive(Debug, Default, Clone)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Creates fields from these names and values.
    pub(super) const fn of(pairs: Vec<(String, String)>) -> Self {
        Self(pairs)
    }

    pub(super) fn parse(body: &[u8]) -> Self {
        Self(form_urlencoded::parse(body).into_owned().collect())
    }

    /// The first value of a field; empty if it is missing.
    pub(super) fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// The first value of a field without surrounding spaces.
    pub(super) fn trimmed(&self, name: &str) -> &str {
        self.text(name).trim()
    }

    /// All non-empty values of a field.
    pub(super) fn all(&self, name: &str) -> Vec<String> {
        let values = self.0.iter().filter(|(known, value)| known == name && !value.is_empty());
        values.map(|(_, value)| value.clone()).collect()
    }

    /// The lines of a multi-line field, without duplicates.
    pub(super) fn lines(&self, name: &str) -> Vec<String> {
        let lines = self.text(name).lines().map(str::trim).filter(|line| !line.is_empty());
        let mut known = BTreeSet::new();
        lines.filter(|line| known.insert(*line)).map(str::to_owned).collect()
    }

    /// Whether a checkbox is checked.
    pub(super) fn is_ticked(&self, name: &str) -> bool {
        !self.text(name).is_empty()
    }
}

impl FromRequest<Console> for SentForm {
    type Rejection = PageError;

    async fn from_request(request: Request, console: &Console) -> Result<Self, PageError> {
        let (mut parts, body) = request.into_parts();
        let visitor = Visitor::of(&mut parts, console)?;
        let fields = read(&parts.headers, body, console).await?;
        if !visitor.visit.is_own(fields.text(CSRF)) {
            return Err(PageError::Foreign);
        }
        Ok(Self { visitor, fields })
    }
}

/// Reads a form that a page of this origin sent.
///
/// # Errors
/// When another origin sent it, or it is not a form.
pub(super) async fn read(
    headers: &HeaderMap,
    body: axum::body::Body,
    console: &Shared,
) -> Result<Fields, PageError> {
    if !is_from_here(headers) {
        return Err(PageError::Foreign);
    }
    let is_form = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/x-www-form-urlencoded"));
    if !is_form {
        return Err(PageError::Unreadable("The form was not sent as form data.".into()));
    }
    let limits = AdminLimits { body_bytes: LARGEST, ..*console.api.limits() };
    let body = read_body(body, &limits).await;
    let body = body.map_err(|problem| PageError::Unreadable(problem.to_string().into()))?;
    Ok(Fields::parse(&body))
}

/// Whether a page of the console sent the request, according to the browser. Other programs do not send these headers.
fn is_from_here(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if let Some(origin) = text(header::ORIGIN) {
        let host = text(header::HOST).unwrap_or_default();
        return origin
            .split_once("://")
            .is_some_and(|(_, of)| !of.is_empty() && of.eq_ignore_ascii_case(host));
    }
    text(header::HeaderName::from_static("sec-fetch-site")).is_none_or(|site| site == "same-origin")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn fields_are_read_as_they_were_typed() {
        let fields = Fields::parse(b"name=+My%20app+&role=a&role=b&role=&roles=Deal+reader%0D%0A%0D%0A+admin%0D%0ADeal+reader&empty=");
        assert_eq!((fields.text("name"), fields.trimmed("name")), (" My app ", "My app"));
        assert_eq!(fields.all("role"), ["a", "b"]);
        assert_eq!(fields.lines("roles"), ["Deal reader", "admin"]);
        assert!(fields.is_ticked("name") && !fields.is_ticked("empty") && !fields.is_ticked("absent"));
        assert_eq!(fields.text("absent"), "");
    }

    #[test]
    fn only_pages_of_the_same_origin_send_forms() {
        for (headers, expected) in [
            (&[("host", "gate:9443"), ("origin", "https://gate:9443")][..], true),
            (&[("host", "GATE"), ("origin", "http://gate")], true),
            (&[("host", "gate"), ("origin", "https://gate:9443")], false),
            (&[("host", "gate"), ("origin", "https://evil.example")], false),
            (&[("host", "gate"), ("origin", "null")], false),
            (&[("host", ""), ("origin", "https://")], false),
            (&[("host", "gate"), ("sec-fetch-site", "same-origin")], true),
            (&[("host", "gate"), ("sec-fetch-site", "same-site")], false),
            (&[("host", "gate"), ("sec-fetch-site", "cross-site")], false),
            (&[("host", "gate")], true),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.insert(*name, HeaderValue::from_static(value));
            }
            assert_eq!(is_from_here(&map), expected, "{headers:?}");
        }
    }
}
