//! The credential for fetching keys from a server that requires one, such as the API server of a Kubernetes cluster.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use http::HeaderValue;
use tokio::io::AsyncReadExt;

use super::source::KeySourceError;

/// Maximum size of a token file in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// The bearer token sent with a fetch of keys.
#[derive(Clone, PartialEq, Eq)]
pub enum KeyAuthorization {
    /// A fixed token.
    Token(String),
    /// The token in this file, which is read at every fetch because it may be replaced.
    File(PathBuf),
}

impl KeyAuthorization {
    /// The value of the `Authorization` field for a fetch that begins now.
    pub(super) async fn header(&self) -> Result<HeaderValue, KeySourceError> {
        match self {
            Self::Token(token) => field(token),
            Self::File(path) => {
                let content = read(path).await.map_err(KeySourceError::AuthorizationFile)?;
                field(content.trim_ascii())
            }
        }
    }
}

/// Checks that a text can be sent as a bearer token.
///
/// # Errors
/// What is wrong with it, without repeating any of it.
pub fn check_token(token: &str) -> Result<(), &'static str> {
    match token {
        "" => Err("is empty"),
        token if token.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer ")) => {
            Err("must not begin with \"Bearer\", which is added automatically")
        }
        token if !token.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err("has a character that is not allowed in a bearer token")
        }
        _ => Ok(()),
    }
}

fn field(token: &str) -> Result<HeaderValue, KeySourceError> {
    check_token(token).map_err(KeySourceError::AuthorizationToken)?;
    let value = HeaderValue::from_str(&format!("Bearer {token}"));
    let mut value =
        value.map_err(|_unsendable| KeySourceError::AuthorizationToken("cannot be sent in a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

async fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    tokio::fs::File::open(path).await?.take(MAX_FILE).read_to_string(&mut text).await?;
    Ok(text)
}

impl fmt::Debug for KeyAuthorization {
    /// Never prints a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(_) => f.write_str("Token(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_field_is_the_token_as_it_is_now() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let from_file = KeyAuthorization::File(path.clone());
        assert!(matches!(from_file.header().await, Err(KeySourceError::AuthorizationFile(_))));
        for (content, sent) in
            [("one\n", "Bearer one"), ("two", "Bearer two"), (" three \r\n", "Bearer three")]
        {
            std::fs::write(&path, content).unwrap();
            let field = from_file.header().await.unwrap();
            assert_eq!(field, sent);
            assert!(field.is_sensitive());
        }
        for content in ["", "\n", "a b", "Bearer x", "bearer x", "é", "a\u{0}"] {
            std::fs::write(&path, content).unwrap();
            assert!(
                matches!(from_file.header().await, Err(KeySourceError::AuthorizationToken(_))),
                "{content:?}"
            );
        }
        assert_eq!(KeyAuthorization::Token("abc".to_owned()).header().await.unwrap(), "Bearer abc");
        assert!(KeyAuthorization::Token("a b".to_owned()).header().await.is_err());
    }

    #[test]
    fn what_is_wrong_with_a_token_is_said() {
        let scheme = Err("must not begin with \"Bearer\", which is added automatically");
        let character = Err("has a character that is not allowed in a bearer token");
        for (token, expected) in [
            ("", Err("is empty")),
            ("Bearer x", scheme),
            ("bEARER x", scheme),
            ("Bearer ", scheme),
            ("Bearer", Ok(())),
            ("Bearerx", Ok(())),
            ("a", Ok(())),
            ("!~", Ok(())),
            ("a b", character),
            ("Basic xy z", character),
            ("a\u{7f}", character),
            ("ééééé", character),
        ] {
            assert_eq!(check_token(token), expected, "{token:?}");
        }
    }

    #[test]
    fn a_token_is_never_shown() {
        let shown = format!("{:?}", KeyAuthorization::Token("hunter2".to_owned()));
        assert_eq!(shown, "Token(…)");
        let error = field("hunter2 hunter2").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
