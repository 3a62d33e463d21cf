//! `[dpop]`.

use std::time::Duration;

use crate::config::section::Section;
use crate::config::values::Zero;
use crate::enforce::dpop::uri::UriOrigin;
use crate::enforce::dpop::{DEFAULT_TRACKED, DpopSettings};

/// The longest age of a proof. A proof is made for one request; a longer age would only mean remembering more.
const LONGEST: Duration = Duration::from_secs(3_600);

/// The rules for DPoP proofs.
pub(super) fn dpop(s: &mut Section<'_>) -> DpopSettings {
    let announced = s.has("dpop");
    s.table("dpop", |s| {
        let max_age = s.duration("max_age", "60s", Zero::Refused);
        if max_age > LONGEST || max_age.subsec_nanos() > 0 {
            s.problem("max_age", "must be whole seconds, at most \"1h\"");
        }
        let default = i64::try_from(DEFAULT_TRACKED).unwrap_or(i64::MAX);
        DpopSettings {
            public_url: s.parsed("public_url", "", public_url).flatten(),
            max_age,
            nonce: s.word("nonce", ("off", false), &[("required", true)]),
            max_tracked: s.count("max_tracked", default, 1..=100_000_000),
            announced,
        }
    })
}

/// `https://api.example.com`, or `""` for the requested host.
fn public_url(text: &str) -> Result<Option<UriOrigin>, String> {
    match UriOrigin::parse(text) {
        None if text.is_empty() => Ok(None),
        None => Err(format!(
            "{text:?} is not an origin; write scheme, host and port as clients see them, such as \"https://api.example.com\""
        )),
        origin => Ok(origin),
    }
}
