//! Filters (RFC 7644 §3.4.2.2): the part of the grammar that providers use, `eq` comparisons joined by `and`.
//!
//! Parses from left to right in one pass, without recursion, and rejects long filters up front.

use serde_json::Value;

use super::error::ScimError;

/// The longest filter, in bytes, and the most comparisons in it.
const LONGEST: usize = 4_096;
const MOST: usize = 10;

/// One comparison.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Comparison {
    /// The attribute in lower case, without the URN of a core schema, but with its sub-attribute: `emails.value`.
    pub(super) attribute: String,
    /// The comparisons in brackets after the attribute: `[type eq "work"]`.
    pub(super) within: Vec<Comparison>,
    /// The value that it must equal.
    pub(super) value: Value,
}

impl Comparison {
    /// Returns the value, which must be a string.
    pub(super) fn text(&self) -> Result<&str, ScimError> {
        let not_text = || ScimError::filter(format!("{:?} is compared with a string", self.attribute));
        self.value.as_str().ok_or_else(not_text)
    }
}

/// Parses all comparisons of a filter; all of them must match.
pub(super) fn parse(text: &str) -> Result<Vec<Comparison>, ScimError> {
    if text.len() > LONGEST {
        return Err(ScimError::filter(format!("the filter is longer than {LONGEST} bytes")));
    }
    let mut reader = FilterReader { rest: text.trim() };
    let comparisons = reader.comparisons(Extent::Whole)?;
    if !reader.rest.is_empty() {
        return Err(unsupported());
    }
    Ok(comparisons)
}

/// Parses the brackets in a PATCH path; returns their comparisons and what follows the closing one.
pub(super) fn bracketed(text: &str) -> Result<(Vec<Comparison>, &str), ScimError> {
    if text.len() > LONGEST {
        return Err(ScimError::filter(format!("the filter is longer than {LONGEST} bytes")));
    }
    let mut reader = FilterReader { rest: text };
    let comparisons = reader.comparisons(Extent::Bracket)?;
    Ok((comparisons, reader.rest))
}

/// Returns an attribute's name in lower case, without the URN of its core schema.
pub(super) fn bare(attribute: &str) -> String {
    const CORE: [&str; 2] =
        ["urn:ietf:params:scim:schemas:core:2.0:user:", "urn:ietf:params:scim:schemas:core:2.0:group:"];
    let lower = attribute.to_ascii_lowercase();
    match CORE.iter().find_map(|urn| lower.strip_prefix(urn)) {
        Some(bare) => bare.to_owned(),
        None => lower,
    }
}

fn unsupported() -> ScimError {
    ScimError::filter(
        "only eq comparisons joined by and are supported, such as userName eq \"ada@example.com\"",
    )
}

/// Whether a closing bracket ends the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    Whole,
    Bracket,
}

struct FilterReader<'a> {
    rest: &'a str,
}

impl<'a> FilterReader<'a> {
    fn comparisons(&mut self, extent: Extent) -> Result<Vec<Comparison>, ScimError> {
        let mut comparisons = Vec::new();
        loop {
            if comparisons.len() == MOST {
                return Err(ScimError::filter(format!("the filter has more than {MOST} comparisons")));
            }
            comparisons.push(self.comparison(extent)?);
            let is_apart = self.skip_spaces();
            if extent == Extent::Bracket
                && let Some(rest) = self.rest.strip_prefix(']')
            {
                self.rest = rest;
                return Ok(comparisons);
            }
            if self.rest.is_empty() && extent == Extent::Whole {
                return Ok(comparisons);
            }
            if !is_apart || !self.word().eq_ignore_ascii_case("and") || !self.skip_spaces() {
                return Err(unsupported());
            }
        }
    }

    fn comparison(&mut self, extent: Extent) -> Result<Comparison, ScimError> {
        self.skip_spaces();
        let is_name = |c: char| c.is_ascii_alphanumeric() || "._-:$".contains(c);
        let mut attribute = self.take_while(is_name).to_owned();
        let mut within = Vec::new();
        // Brackets cannot be nested.
        if extent == Extent::Whole
            && let Some(rest) = self.rest.strip_prefix('[')
        {
            let (inner, rest) = bracketed(rest)?;
            (within, self.rest) = (inner, rest);
            attribute.push_str(self.take_while(is_name));
        }
        if attribute.is_empty() || !attribute.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Err(unsupported());
        }
        if !self.skip_spaces() || !self.word().eq_ignore_ascii_case("eq") || !self.skip_spaces() {
            return Err(unsupported());
        }
        Ok(Comparison { attribute: bare(&attribute), within, value: self.value()? })
    }

    /// Parses a literal: a string in quotes, as in JSON, or a word.
    fn value(&mut self) -> Result<Value, ScimError> {
        if !self.rest.starts_with('"') {
            let word =
                self.take_while(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)).to_ascii_lowercase();
            return match word.as_str() {
                "true" => Ok(Value::Bool(true)),
                "false" => Ok(Value::Bool(false)),
                _ => Err(unsupported()),
            };
        }
        let mut escaped = false;
        let closing = self.rest.char_indices().skip(1).find_map(|(at, c)| {
            let closes = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            closes.then_some(at + 1)
        });
        let (literal, rest) =
            closing.and_then(|at| self.rest.split_at_checked(at)).ok_or_else(unsupported)?;
        self.rest = rest;
        let text = serde_json::from_str(literal).map_err(|_invalid| unsupported())?;
        Ok(Value::String(text))
    }

    fn word(&mut self) -> &'a str {
        self.take_while(|c| c.is_ascii_alphabetic())
    }

    fn take_while(&mut self, is_part: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    /// Skips spaces; returns whether there were any.
    fn skip_spaces(&mut self) -> bool {
        let rest = self.rest.trim_start_matches(' ');
        let skipped = rest.len() < self.rest.len();
        self.rest = rest;
        skipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<String, String> {
        fn one(comparison: &Comparison) -> String {
            let within: Vec<String> = comparison.within.iter().map(one).collect();
            format!("{}{within:?}={}", comparison.attribute, comparison.value).replace("[]", "")
        }
        match parse(text) {
            Ok(comparisons) => Ok(comparisons.iter().map(one).collect::<Vec<_>>().join("&")),
            Err(error) => Err(error.word().to_owned()),
        }
    }

    #[test]
    fn the_filters_that_providers_send_are_read() {
        for (text, expected) in [
            (r#"userName eq "ada@example.com""#, r#"username="ada@example.com""#),
            (r#"USERNAME EQ "Ada""#, r#"username="Ada""#),
            (r#"externalId eq "0b2c" and active eq true"#, r#"externalid="0b2c"&active=true"#),
            (r#"  displayName   Eq   "a b"  "#, r#"displayname="a b""#),
            (r#"id eq "1" AND members eq "2""#, r#"id="1"&members="2""#),
            (r#"members.value eq "2""#, r#"members.value="2""#),
            (r#"displayName eq "say \"hi\" \\ \u00e9""#, r#"displayname="say \"hi\" \\ é""#),
            (r#"displayName eq "x and y eq z ] ""#, r#"displayname="x and y eq z ] ""#),
            (r#"urn:ietf:params:scim:schemas:core:2.0:User:userName eq "ada""#, r#"username="ada""#),
            (r#"emails[type eq "work"].value eq "a@b""#, r#"emails.value["type=\"work\""]="a@b""#),
            (r#"active eq False"#, "active=false"),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn every_other_filter_is_refused() {
        let many = [r#"userName eq "a""#; 11].join(" and ");
        let bomb = "(".repeat(4_000);
        let long = format!(r#"userName eq "{}""#, "a".repeat(4_096));
        let nested = "emails[".repeat(500);
        for text in [
            "",
            " ",
            "userName",
            "userName eq",
            r#"userName eq "ada"#,
            r#"userName eq "ada\""#,
            r#"userName eq "ada" "#.trim_end_matches(['"', ' ']),
            r#"userName eq "ada" and"#,
            r#"userName eq "ada" and "#,
            r#"userName eq "ada" or userName eq "bob""#,
            r#"userName eq "ada"and userName eq "bob""#,
            r#"userName eq "ada" andid eq "1""#,
            r#"userName eq"ada""#,
            r#"userNameeq "ada""#,
            r#"userName co "ada""#,
            r#"userName sw "ada""#,
            r#"userName ne "ada""#,
            "userName pr",
            r#"not (userName eq "ada")"#,
            r#"(userName eq "ada")"#,
            r#"eq "ada""#,
            r#"1name eq "ada""#,
            r#"userName eq ada"#,
            r#"userName eq 'ada'"#,
            "userName eq null",
            "userName eq 12",
            r#"userName eq "ada" x"#,
            r#"userName eq "\x""#,
            r#"emails[type eq "work" eq "a""#,
            r#"emails[] eq "a""#,
            "\u{1f511} eq \"a\"",
            &many,
            &bomb,
            &long,
            &nested,
        ] {
            assert_eq!(shown(text), Err("invalidFilter".to_owned()), "{text:.80}");
        }
        let ten = [r#"userName eq "a""#; 10].join(" and ");
        assert!(shown(&ten).is_ok());
        let longest = format!(r#"userName eq "{}""#, "a".repeat(4_096 - 14));
        assert_eq!(longest.len(), 4_096);
        assert!(shown(&longest).is_ok());
    }

    #[test]
    fn brackets_end_at_their_own_end() {
        let (comparisons, rest) = bracketed(r#"value eq "a]b"].display"#).unwrap();
        assert_eq!((comparisons.len(), rest), (1, ".display"));
        assert_eq!(comparisons[0].text(), Ok("a]b"));
        for text in ["", "value eq \"a\"", "value eq \"a\" and ]", "a[b eq \"c\"] eq \"d\"]"] {
            assert!(bracketed(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_stands_in_brackets_has_a_length_as_well() {
        for (length, is_read) in [(LONGEST - 1, true), (LONGEST, true), (LONGEST + 1, false)] {
            let text = format!("value eq \"{}\"].x", "a".repeat(length - 14));
            assert_eq!(text.len(), length);
            let read = bracketed(&text);
            assert_eq!(
                read.as_ref().map(|(found, rest)| (found.len(), *rest)).ok(),
                is_read.then_some((1, ".x"))
            );
        }
    }
}
