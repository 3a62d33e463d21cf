//! Fetches key sets from a file, a URL, or through the issuer's metadata. One attempt, without retries or
//! state.

use std::fmt;
use std::io;
use std::path::Path;

use bytes::Bytes;
use tokio::io::AsyncReadExt;

use super::json::JsonMembers;
use super::{KeySource, Settings, jwks};
use crate::client::{Client, GetError, Url, UrlError};

use http::HeaderValue;

/// Why no document could be fetched.
#[derive(Debug)]
pub enum KeySourceError {
    /// The file cannot be read.
    File(io::Error),
    /// The file is larger than a key set may be.
    FileTooLarge,
    /// This URL may not be fetched; the string is where it was configured or found.
    Url(String, UrlError),
    /// The issuer is not a URL under which metadata can be found.
    Issuer(String),
    /// The document at this URL could not be fetched.
    Get(String, GetError),
    /// Neither metadata location has a document (OpenID Connect Discovery 1.0 §4, RFC 8414 §3).
    NoMetadata(GetError, GetError),
    /// The metadata is not a JSON object with the strings `issuer` and `jwks_uri`.
    Metadata(String),
    /// The metadata names another issuer (RFC 8414 §3.3).
    OtherIssuer(String),
    /// The file with the credential for the fetch cannot be read.
    AuthorizationFile(io::Error),
    /// The credential for the fetch is not a bearer token.
    AuthorizationToken(&'static str),
}

/// Fetches documents, with a credential if one is configured.
struct AuthorizedFetcher<'a> {
    client: &'a Client,
    insecure_http: bool,
    /// The credential, and the URL to whose origin alone it is sent.
    authorization: Option<(Url, HeaderValue)>,
}

/// Fetches the document once.
///
/// # Errors
/// When no key set can be fetched or read. A [`KeySource::Secret`] and a [`KeySource::Authority`] have none.
pub async fn fetch(settings: &Settings, client: &Client) -> Result<Bytes, KeySourceError> {
    match &settings.source {
        KeySource::File(path) => read(path).await,
        KeySource::Url(url) => AuthorizedFetcher::new(settings, client, url).await?.get(url).await,
        KeySource::Discovery => {
            AuthorizedFetcher::new(settings, client, &settings.issuer).await?.discover(settings).await
        }
        KeySource::SignalsMetadata(issuer) => {
            let metadata = signals_metadata_url(issuer, settings.insecure_http)?;
            let fetcher = AuthorizedFetcher::new(settings, client, issuer).await?;
            let metadata = fetcher.get(&metadata).await?;
            fetcher.get(&jwks_uri(&metadata, issuer)?).await
        }
        KeySource::Secret(_) | KeySource::Authority => {
            Err(KeySourceError::File(io::ErrorKind::Unsupported.into()))
        }
    }
}

async fn read(path: &Path) -> Result<Bytes, KeySourceError> {
    let file = tokio::fs::File::open(path).await.map_err(KeySourceError::File)?;
    let mut document = Vec::new();
    // One byte more than allowed, to tell a file of maximum size from one that is too large.
    file.take(jwks::MAX_BYTES as u64 + 1).read_to_end(&mut document).await.map_err(KeySourceError::File)?;
    if document.len() > jwks::MAX_BYTES { Err(KeySourceError::FileTooLarge) } else { Ok(document.into()) }
}

impl<'a> AuthorizedFetcher<'a> {
    /// Creates a fetcher that sends its credential only to the origin of `configured`.
    async fn new(settings: &Settings, client: &'a Client, configured: &str) -> Result<Self, KeySourceError> {
        let insecure_http = settings.insecure_http;
        let authorization = match &settings.authorization {
            Some(authorization) => Some((parsed(configured, insecure_http)?, authorization.header().await?)),
            None => None,
        };
        Ok(Self { client, insecure_http, authorization })
    }

    async fn get(&self, url: &str) -> Result<Bytes, KeySourceError> {
        let to = parsed(url, self.insecure_http)?;
        let authorization =
            self.authorization.as_ref().filter(|(configured, _)| configured.is_same_origin(&to));
        let got = self.client.get_as(&to, authorization.map(|(_, field)| field)).await;
        got.map_err(|error| KeySourceError::Get(url.to_owned(), error))
    }

    async fn discover(&self, settings: &Settings) -> Result<Bytes, KeySourceError> {
        let [openid, oauth] = metadata_urls(&settings.issuer, self.insecure_http)?;
        let metadata = match self.get(&openid).await {
            // The issuer answered, so it is up; it may have its metadata at the other location.
            Err(KeySourceError::Get(_, first @ (GetError::Status(_) | GetError::Redirect(_)))) => {
                match self.get(&oauth).await {
                    Err(KeySourceError::Get(_, second)) => Err(KeySourceError::NoMetadata(first, second)),
                    other => other,
                }
            }
            other => other,
        }?;
        self.get(&jwks_uri(&metadata, &settings.issuer)?).await
    }
}

fn parsed(url: &str, insecure_http: bool) -> Result<Url, KeySourceError> {
    Url::parse(url, insecure_http).map_err(|error| KeySourceError::Url(url.to_owned(), error))
}

/// The two locations of an issuer's metadata: appended to the issuer for OpenID (Discovery 1.0 §4.1),
/// inserted between host and path for OAuth (RFC 8414 §3.1). A final slash of the issuer is removed in both.
///
/// # Errors
/// When the issuer is not a URL that may be fetched, or has a query or fragment.
pub fn metadata_urls(issuer: &str, insecure_http: bool) -> Result<[String; 2], KeySourceError> {
    let (origin, path) = origin_and_path(issuer, insecure_http)?;
    Ok([
        format!("{origin}{path}/.well-known/openid-configuration"),
        format!("{origin}/.well-known/oauth-authorization-server{path}"),
    ])
}

/// The location of a Shared Signals transmitter's metadata: inserted between host and path (SSF 1.0 §7.2).
///
/// # Errors
/// When the issuer is not a URL that may be fetched, or has a query or fragment.
pub fn signals_metadata_url(issuer: &str, insecure_http: bool) -> Result<String, KeySourceError> {
    let (origin, path) = origin_and_path(issuer, insecure_http)?;
    Ok(format!("{origin}/.well-known/ssf-configuration{path}"))
}

/// Splits an issuer into origin and path, between which metadata locations are inserted; removes a final
/// slash.
fn origin_and_path(issuer: &str, insecure_http: bool) -> Result<(&str, &str), KeySourceError> {
    Url::parse(issuer, insecure_http).map_err(|error| KeySourceError::Url(issuer.to_owned(), error))?;
    let no_place = || KeySourceError::Issuer(issuer.to_owned());
    if issuer.contains('?') {
        return Err(no_place());
    }
    let (_, after_scheme) = issuer.split_once("://").ok_or_else(no_place)?;
    let path_length = after_scheme.find('/').map_or(0, |at| after_scheme.len() - at);
    let (origin, path) = issuer.split_at(issuer.len() - path_length);
    Ok((origin, path.strip_suffix('/').unwrap_or(path)))
}

fn jwks_uri(metadata: &[u8], issuer: &str) -> Result<String, KeySourceError> {
    let unusable = |error: serde_json::Error| KeySourceError::Metadata(error.to_string());
    let members: JsonMembers<'_> = serde_json::from_slice(metadata).map_err(unusable)?;
    let text = |name: &str| {
        let value: Option<String> = members.get(name).map_err(unusable)?;
        value.ok_or_else(|| KeySourceError::Metadata(format!("`{name}` is missing")))
    };
    let named = text("issuer")?;
    if named != issuer {
        return Err(KeySourceError::OtherIssuer(named.chars().take(200).collect()));
    }
    text("jwks_uri")
}

impl fmt::Display for KeySourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => write!(f, "cannot read the file: {error}"),
            Self::FileTooLarge => f.write_str("the file is larger than 1 MiB"),
            Self::Url(url, error) => write!(f, "{url:?} {error}"),
            Self::Issuer(issuer) => write!(f, "{issuer:?} has a query, so its metadata cannot be located"),
            Self::Get(url, error) => write!(f, "{url}: {error}"),
            Self::NoMetadata(openid, oauth) => {
                write!(f, "no metadata: openid-configuration {openid}; oauth-authorization-server {oauth}")
            }
            Self::Metadata(error) => write!(f, "the metadata is invalid: {error}"),
            Self::AuthorizationFile(error) => {
                write!(f, "cannot read the token of jwks_authorization: {error}")
            }
            Self::AuthorizationToken(wrong) => write!(f, "the token of jwks_authorization {wrong}"),
            Self::OtherIssuer(found) => write!(f, "the metadata belongs to another issuer, {found:?}"),
        }
    }
}

impl std::error::Error for KeySourceError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_may_be_as_large_as_a_key_set_and_no_larger() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        for length in [0, jwks::MAX_BYTES - 1, jwks::MAX_BYTES, jwks::MAX_BYTES + 1, jwks::MAX_BYTES + 2] {
            std::fs::write(&path, vec![b' '; length]).unwrap();
            match read(&path).await {
                Ok(document) => assert!(document.len() == length && length <= jwks::MAX_BYTES, "{length}"),
                Err(KeySourceError::FileTooLarge) => assert!(length > jwks::MAX_BYTES, "{length}"),
                Err(other) => panic!("{length}: {other}"),
            }
        }
    }

    #[test]
    fn metadata_is_looked_for_in_the_two_standard_places() {
        for (issuer, openid, oauth) in [
            (
                "https://idp.example.com",
                "https://idp.example.com/.well-known/openid-configuration",
                "https://idp.example.com/.well-known/oauth-authorization-server",
            ),
            (
                "https://idp.example.com/",
                "https://idp.example.com/.well-known/openid-configuration",
                "https://idp.example.com/.well-known/oauth-authorization-server",
            ),
            (
                "https://idp.example.com:8443/realms/a/",
                "https://idp.example.com:8443/realms/a/.well-known/openid-configuration",
                "https://idp.example.com:8443/.well-known/oauth-authorization-server/realms/a",
            ),
        ] {
            assert_eq!(metadata_urls(issuer, false).unwrap(), [openid, oauth]);
            let signals = oauth.replace("oauth-authorization-server", "ssf-configuration");
            assert_eq!(signals_metadata_url(issuer, false).unwrap(), signals);
        }
        for issuer in
            ["", "idp", "http://idp.example.com/", "https://idp.example.com/?a=b", "urn:example:idp"]
        {
            assert!(metadata_urls(issuer, false).is_err(), "{issuer}");
            assert!(signals_metadata_url(issuer, false).is_err(), "{issuer}");
        }
    }

    #[test]
    fn metadata_must_name_the_issuer_exactly_and_once() {
        const ISSUER: &str = "https://idp.example.com/";
        let good = br#"{"issuer":"https://idp.example.com/","jwks_uri":"https://k.example.com/j","x":[1]}"#;
        assert_eq!(jwks_uri(good, ISSUER).unwrap(), "https://k.example.com/j");
        for bad in [
            r#"{"issuer":"https://idp.example.com","jwks_uri":"https://k.example.com/j"}"#,
            r#"{"issuer":"https://IDP.example.com/","jwks_uri":"https://k.example.com/j"}"#,
            r#"{"issuer":["https://idp.example.com/"],"jwks_uri":"https://k.example.com/j"}"#,
            r#"{"issuer":"https://evil.example.com/","issuer":"https://idp.example.com/","jwks_uri":"https://k"}"#,
            r#"{"issuer":"https://idp.example.com/","jwks_uri":"https://a","jwks_uri":"https://b"}"#,
            r#"{"issuer":"https://idp.example.com/","jwks_uri":null}"#,
            r#"{"issuer":"https://idp.example.com/"}"#,
            r#"{"jwks_uri":"https://k.example.com/j"}"#,
            "[]",
            "null",
            "",
            "<html>",
        ] {
            assert!(jwks_uri(bad.as_bytes(), ISSUER).is_err(), "{bad}");
        }
    }
}
