//! The location of a claim in the payload of a token.

use serde_json::{Map, Value};

/// How a claim is found in the payload: a plain member name, or a JSON pointer (RFC 6901) when it starts with `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimName {
    /// A top-level member, compared literally (so `cognito:groups` and `https://example.com/roles` work).
    Member(String),
    /// The unescaped reference tokens of a JSON pointer.
    Pointer(Vec<String>),
}

impl std::fmt::Display for ClaimName {
    /// Writes the name as it is configured.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Member(name) => f.write_str(name),
            Self::Pointer(tokens) => tokens
                .iter()
                .try_for_each(|token| write!(f, "/{}", token.replace('~', "~0").replace('/', "~1"))),
        }
    }
}

impl ClaimName {
    /// The claim's value in a payload; `null` counts as absent.
    pub(in crate::enforce) fn find<'p>(&self, payload: &'p Map<String, Value>) -> Option<&'p Value> {
        let found = match self {
            Self::Member(name) => payload.get(name),
            Self::Pointer(tokens) => {
                let (first, rest) = tokens.split_first()?;
                rest.iter().try_fold(payload.get(first)?, |value, token| match value {
                    Value::Object(members) => members.get(token),
                    Value::Array(members) => members.get(token.parse::<usize>().ok()?),
                    Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
                })
            }
        };
        found.filter(|value| !value.is_null())
    }
}
