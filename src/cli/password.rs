//! Reads passwords from a terminal or from standard input. They are never arguments and never shown.

use std::io::{BufRead, Read as _};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use zeroize::Zeroizing;

use super::remote::Failure;
use crate::authority::{Refused, check_password};

/// The longest line that is read: far longer than any password, and small enough to keep in memory.
const LONGEST_LINE: u64 = 16 << 10;

/// The source of a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PasswordSource {
    /// The terminal, which asks for it twice.
    Terminal,
    /// The first line of standard input.
    StandardInput,
}

impl PasswordSource {
    /// Reads a new password that a gate will accept.
    pub(super) fn read(self, id: &str) -> Result<Zeroizing<String>, Failure> {
        let password = match self {
            Self::Terminal => asked_twice(id)?,
            Self::StandardInput => line(&mut std::io::stdin().lock())?,
        };
        check(&password)?;
        Ok(password)
    }
}

fn asked_twice(id: &str) -> Result<Zeroizing<String>, Failure> {
    let password = asked(&format!("New password of {id}: "))?;
    // Checked before asking again: an invalid password need not be typed twice.
    check(&password)?;
    let again = asked("Repeat the password: ")?;
    if verify_slices_are_equal(again.as_bytes(), password.as_bytes()).is_ok() {
        Ok(password)
    } else {
        Err(Failure::Other("the two passwords differ; nothing was changed".to_owned()))
    }
}

fn asked(prompt: &str) -> Result<Zeroizing<String>, Failure> {
    rpassword::prompt_password(prompt).map(Zeroizing::new).map_err(|error| {
        Failure::Other(format!(
            "no terminal to ask for the password ({error}); --stdin reads it from standard input"
        ))
    })
}

/// Reads the first line, without its line end.
fn line(input: &mut impl BufRead) -> Result<Zeroizing<String>, Failure> {
    let mut bytes = Zeroizing::new(Vec::new());
    let read = input.take(LONGEST_LINE).read_until(b'\n', &mut bytes);
    read.map_err(|error| Failure::Other(format!("standard input cannot be read: {error}")))?;
    if bytes.is_empty() {
        return Err(Failure::Other("standard input is empty: --stdin reads the password from it".to_owned()));
    }
    let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    let text = std::str::from_utf8(text)
        .map_err(|_invalid| Failure::Other("the password on standard input is not UTF-8".to_owned()))?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn check(password: &str) -> Result<(), Failure> {
    check_password(password).map_err(|refused| match refused {
        Refused::Invalid { why, .. } => Failure::Other(format!("the password {why}")),
        other => Failure::Other(other.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_password_without_its_end_and_nothing_else_is_cut_off() {
        let long = "x".repeat(1 << 20);
        for (input, password) in [
            ("12345678", "12345678"),
            ("12345678\n", "12345678"),
            ("12345678\r\n", "12345678"),
            ("12345678\r", "12345678"),
            ("12345678\n\n", "12345678"),
            ("12345678\nsecond line\n", "12345678"),
            (" \t12345678 \u{a0} \n", " \t12345678 \u{a0} "),
            ("12\r345678\r\r\n", "12\r345678\r"),
            ("", "standard input is empty"),
            ("\n", ""),
            (&long, &long[..LONGEST_LINE as usize]),
        ] {
            let found = line(&mut input.as_bytes()).map(|text| text.to_string());
            let found =
                found.unwrap_or_else(|failure| failure.to_string().split(':').next().unwrap().to_owned());
            assert_eq!(found, password, "{:?}", &input[..input.len().min(40)]);
        }
        let failure = line(&mut b"\xff\xfe12345678\n".as_slice()).unwrap_err();
        assert_eq!(failure.to_string(), "the password on standard input is not UTF-8");
    }
}
