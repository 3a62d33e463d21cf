//! One log line in either format, written directly into a byte buffer.
//!
//! Whatever a value contains, the line stays one line, its JSON stays JSON, and a terminal receives no
//! control characters.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use tracing::Level;

use super::Format;

/// A line being written.
pub(super) struct Line<'a> {
    out: &'a mut Vec<u8>,
    format: Format,
}

impl<'a> Line<'a> {
    /// Starts a line. `stamp` is RFC 3339 in UTC; the pretty format shows its time of day.
    pub(super) fn begin(
        out: &'a mut Vec<u8>,
        format: Format,
        stamp: &str,
        level: Level,
        target: &str,
    ) -> Self {
        let (stamp, level) = (stamp.as_bytes(), name(level, format));
        let parts: [&[u8]; 5] = match format {
            Format::Json => [b"{\"ts\":\"", stamp, b"\",\"level\":\"", level.as_bytes(), b"\",\"target\":\""],
            Format::Pretty => [stamp.get(11..23).unwrap_or(stamp), b" ", level.as_bytes(), b" ", b""],
        };
        for part in parts {
            out.extend_from_slice(part);
        }
        escape(out, target);
        out.extend_from_slice(if format == Format::Json { b"\"" } else { b":" });
        Self { out, format }
    }

    /// Writes the message: a member of its own in JSON, plain text otherwise.
    pub(super) fn message(&mut self, message: impl fmt::Display) {
        match self.format {
            Format::Json => self.display("message", message),
            Format::Pretty => {
                self.out.push(b' ');
                escape_display(self.out, message);
            }
        }
    }

    /// Writes a member with a text value.
    pub(super) fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        let quoted = self.format == Format::Json || needs_quotes(value);
        if quoted {
            self.out.push(b'"');
        }
        escape(self.out, value);
        if quoted {
            self.out.push(b'"');
        }
    }

    /// Writes a member with a text value that must be formatted first.
    pub(super) fn display(&mut self, name: &str, value: impl fmt::Display) {
        self.name(name);
        self.out.push(b'"');
        escape_display(self.out, value);
        self.out.push(b'"');
    }

    /// Writes a member with a list of texts, as JSON.
    pub(super) fn list(&mut self, name: &str, json: impl fmt::Display) {
        self.name(name);
        // Writing to a vector cannot fail.
        drop(write!(self.out, "{json}"));
    }

    /// Writes a member with an integer value.
    pub(super) fn integer(&mut self, name: &str, value: impl itoa::Integer) {
        self.name(name);
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    /// Writes a member with a floating-point value; `null` if JSON cannot represent it.
    pub(super) fn float(&mut self, name: &str, value: f64) {
        self.name(name);
        if value.is_finite() {
            // Writing to a vector cannot fail.
            drop(write!(self.out, "{value}"));
        } else {
            self.out.extend_from_slice(b"null");
        }
    }

    /// Writes a member with a Boolean value.
    pub(super) fn boolean(&mut self, name: &str, value: bool) {
        self.name(name);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// Ends the line.
    pub(super) fn end(self) {
        self.out.extend_from_slice(if self.format == Format::Json { b"}\n" } else { b"\n" });
    }

    fn name(&mut self, name: &str) {
        match self.format {
            Format::Json => {
                self.out.extend_from_slice(b",\"");
                escape(self.out, name);
                self.out.extend_from_slice(b"\":");
            }
            Format::Pretty => {
                self.out.push(b' ');
                escape(self.out, name);
                self.out.push(b'=');
            }
        }
    }
}

/// The name of the level, padded in the pretty format.
const fn name(level: Level, format: Format) -> &'static str {
    let (plain, padded) = match level {
        Level::ERROR => ("error", "ERROR"),
        Level::WARN => ("warn", "WARN "),
        Level::INFO => ("info", "INFO "),
        Level::DEBUG => ("debug", "DEBUG"),
        Level::TRACE => ("trace", "TRACE"),
    };
    match format {
        Format::Json => plain,
        Format::Pretty => padded,
    }
}

fn needs_quotes(value: &str) -> bool {
    value.is_empty() || value.bytes().any(|byte| byte <= b' ' || matches!(byte, b'"' | b'\\' | b'=' | 0x7f..))
}

/// Writes `text` escaped for a JSON string (RFC 8259 §7).
pub(super) fn escape(out: &mut Vec<u8>, text: &str) {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    if text.bytes().all(plain) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    for character in text.chars() {
        escape_char(out, character);
    }
}

fn escape_char(out: &mut Vec<u8>, character: char) {
    match character {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        // Escapes more than JSON requires: characters that move a terminal's cursor, end a line elsewhere, or
        // reorder text. All of them are in the basic plane, so four digits are enough.
        c if c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
            // Writing to a vector cannot fail.
            drop(write!(out, "\\u{:04x}", u32::from(c)));
        }
        c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

fn escape_display(out: &mut Vec<u8>, value: impl fmt::Display) {
    // A `Display` that fails leaves its text cut short, and the line whole.
    let _ = write!(Escaped(out), "{value}");
}

/// Escapes whatever is formatted into it.
struct Escaped<'a>(&'a mut Vec<u8>);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape(self.0, text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_text_reads_back_as_it_was() {
        for text in [
            "",
            "plain",
            "quote \" and backslash \\",
            "line\r\nbreak\ttab",
            "nul \0 bell \u{7} escape \u{1b}[31m delete \u{7f} c1 \u{9b}2J",
            "ümläut ☃ 𝄞 \u{10ffff}",
            "separators \u{2028}\u{2029} bidi \u{202e}\u{2066}",
            "\\u0000 \\\\ \\",
            "</script>\u{feff}",
        ] {
            let mut out = b"\"".to_vec();
            escape(&mut out, text);
            out.push(b'"');
            assert_eq!(serde_json::from_slice::<String>(&out).expect(text), text);
            let printed = String::from_utf8(out).expect("UTF-8");
            assert!(!printed.chars().any(char::is_control), "{printed:?}");
        }
    }

    #[test]
    fn pretty_values_are_quoted_when_a_reader_could_be_misled() {
        for (value, printed) in [
            ("abc", " k=abc"),
            ("", " k=\"\""),
            ("a b", " k=\"a b\""),
            ("a=b", " k=\"a=b\""),
            ("\n", " k=\"\\n\""),
        ] {
            let mut out = Vec::new();
            Line { out: &mut out, format: Format::Pretty }.text("k", value);
            assert_eq!(String::from_utf8(out).expect("UTF-8"), printed);
        }
    }
}
