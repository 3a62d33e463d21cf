//! W3C Trace Context: what a client sends about its trace, the sampling decision, and what the upstream receives.
//!
//! Knows the format of the field and the sampling rule, but not spans.

use http::{HeaderMap, HeaderName};

use super::SampleRatio;
use super::ids::TraceIds;

/// The caller's place in a trace.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The flag of a trace that its caller records.
const SAMPLED: u8 = 1;
/// The flag of a trace id whose last 56 bits are random (Trace Context level 2), which is passed on unchanged.
const RANDOM: u8 = 2;

/// The parts of a valid `traceparent`, in hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceParent<'a> {
    /// 32 digits, not all zero.
    pub(crate) trace_id: &'a [u8],
    /// 16 digits, not all zero.
    pub(crate) parent_id: &'a [u8],
    /// Two digits.
    pub(crate) flags: &'a [u8],
}

impl<'a> TraceParent<'a> {
    /// Parses version, 32 and 16 lower-case hexadecimal digits that are not all zero, and flags. A later
    /// version may have more fields at the end.
    pub(crate) fn parse(value: &'a [u8]) -> Option<Self> {
        let hex = |from: usize, to: usize| {
            value
                .get(from..to)
                .filter(|part| part.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b)))
        };
        let dash = |at: usize| value.get(at) == Some(&b'-');
        let (version, trace_id, parent_id, flags) = (hex(0, 2)?, hex(3, 35)?, hex(36, 52)?, hex(53, 55)?);
        let ends_well = value.len() == 55 || (version != b"00" && dash(55));
        let zero = |part: &[u8]| part.iter().all(|b| *b == b'0');
        let dashes = dash(2) && dash(35) && dash(52);
        let valid = dashes && ends_well && version != b"ff" && !zero(trace_id) && !zero(parent_id);
        valid.then_some(Self { trace_id, parent_id, flags })
    }

    /// Returns the one that the client sent; if it sent several, none.
    fn of(headers: &'a HeaderMap) -> Option<Self> {
        let mut sent = headers.get_all(&TRACEPARENT).iter();
        match (sent.next(), sent.next()) {
            (Some(value), None) => Self::parse(value.as_bytes()),
            _ => None,
        }
    }
}

/// The tracing decision about one request.
#[derive(Debug, Clone, Copy)]
pub struct RequestTrace {
    pub(super) trace_id: u128,
    /// The caller's span.
    pub(super) parent: Option<u64>,
    /// The gate's span of the request.
    pub(super) server: u64,
    /// The gate's span of the call to the upstream.
    pub(super) client: u64,
    flags: u8,
}

/// The trace context that the upstream receives.
#[derive(Debug, Clone, Copy)]
pub struct SentContext {
    pub(crate) trace_id: u128,
    pub(crate) span_id: u64,
    pub(crate) flags: u8,
    /// Whether the trace did not start here, so that `tracestate` still applies.
    pub(crate) goes_on: bool,
}

impl RequestTrace {
    pub(super) fn begin(headers: &HeaderMap, is_trusted: bool, ratio: SampleRatio, ids: &TraceIds) -> Self {
        let sent = TraceParent::of(headers);
        let flags = sent.map_or(0, |sent| number(sent.flags) as u8);
        let is_sampled = match sent {
            Some(_) if is_trusted => flags & SAMPLED != 0,
            _ => ratio.takes(ids.number()),
        };
        let trace_id = |digits: &[u8]| {
            let (high, low) = digits.split_at(digits.len() / 2);
            u128::from(number(high)) << 64 | u128::from(number(low))
        };
        Self {
            trace_id: sent.map_or_else(|| ids.trace(), |sent| trace_id(sent.trace_id)),
            parent: sent.map(|sent| number(sent.parent_id)),
            server: ids.number(),
            client: ids.number(),
            flags: flags & RANDOM | u8::from(is_sampled),
        }
    }

    /// Whether its spans are recorded.
    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The trace id, for the log.
    #[must_use]
    pub const fn id(&self) -> u128 {
        self.trace_id
    }

    /// The context for the upstream, whose parent is the span of the call to it.
    #[must_use]
    pub const fn sent(&self) -> SentContext {
        SentContext {
            trace_id: self.trace_id,
            span_id: self.client,
            flags: self.flags,
            goes_on: self.parent.is_some(),
        }
    }
}

/// Parses at most sixteen lower-case hexadecimal digits.
fn number(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |number, digit| {
        let value = if digit.is_ascii_digit() { digit - b'0' } else { digit.wrapping_sub(b'a' - 10) };
        number << 4 | u64::from(value & 0xf)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-";

    fn begun(sent: &[&str], is_trusted: bool, ratio: f64) -> RequestTrace {
        let mut headers = HeaderMap::new();
        for value in sent {
            headers.append(TRACEPARENT, value.parse().unwrap());
        }
        RequestTrace::begin(&headers, is_trusted, SampleRatio::new(ratio), &TraceIds::default())
    }

    #[test]
    fn a_trace_goes_on_from_trusted_and_other_peers() {
        for is_trusted in [true, false] {
            let trace = begun(&[&format!("{SENT}01")], is_trusted, 1.0);
            assert_eq!(trace.trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
            assert_eq!(trace.parent, Some(0xb7ad_6b71_6920_3331));
            let sent = trace.sent();
            assert_eq!((sent.trace_id, sent.span_id, sent.goes_on), (trace.trace_id, trace.client, true));
        }
    }

    #[test]
    fn only_a_trusted_proxy_decides_in_place_of_the_gate() {
        for (flags, is_trusted, ratio, sampled, passed_on) in [
            ("01", true, 0.0, true, 1),
            ("00", true, 1.0, false, 0),
            ("03", true, 0.0, true, 3),
            ("fe", true, 1.0, false, 2),
            ("01", false, 0.0, false, 0),
            ("00", false, 1.0, true, 1),
            ("03", false, 0.0, false, 2),
        ] {
            let trace = begun(&[&format!("{SENT}{flags}")], is_trusted, ratio);
            assert_eq!(
                (trace.is_sampled(), trace.sent().flags),
                (sampled, passed_on),
                "{flags} {is_trusted}"
            );
        }
    }

    #[test]
    fn what_is_not_valid_starts_a_trace_that_the_gate_decides_about() {
        let good = format!("{SENT}01");
        for sent in [&[][..], &["garbage"], &[&good, &good]] {
            for (is_trusted, ratio) in [(true, 0.0), (false, 1.0)] {
                let trace = begun(sent, is_trusted, ratio);
                assert_eq!((trace.parent, trace.is_sampled()), (None, ratio > 0.5), "{sent:?}");
                assert!(!trace.sent().goes_on && trace.trace_id != 0);
            }
        }
    }

    #[test]
    fn digits_are_read_as_the_standard_library_reads_them() {
        for text in ["0", "9", "a", "f", "00ff", "0123456789abcdef", "ffffffffffffffff"] {
            assert_eq!(number(text.as_bytes()), u64::from_str_radix(text, 16).unwrap());
        }
    }
}
