//! Parses the input of the credential forms.

use std::time::Duration;

use super::super::form::Fields;
use crate::events::parse::parse_time;
use crate::time::Timestamp;

const DAY: Duration = Duration::from_secs(86_400);

/// The lifetime of a credential, as offered by its form.
pub(super) struct Expiry;

impl Expiry {
    /// The choice that leaves the expiry unchanged.
    pub(super) const KEPT: &'static str = "kept";
    /// The other choices with their labels.
    pub(super) const CHOICES: [(&'static str, &'static str); 4] =
        [("30d", "In 30 days"), ("90d", "In 90 days"), ("365d", "In a year"), ("none", "Never")];
    /// The choice to enter a date.
    pub(super) const DATE: &'static str = "date";

    /// Returns the chosen expiry; `None` if the credential does not expire.
    ///
    /// # Errors
    /// What is wrong with the choice.
    pub(super) fn read(fields: &Fields, now: Timestamp) -> Result<Option<Timestamp>, &'static str> {
        match fields.text("lifetime") {
            "30d" => Ok(Some(now.plus(DAY * 30))),
            "90d" => Ok(Some(now.plus(DAY * 90))),
            "365d" => Ok(Some(now.plus(DAY * 365))),
            "none" | Self::KEPT => Ok(None),
            Self::DATE => {
                // At the end of that day: the last day of a contract, for example, should still count.
                let end = parse_time(&format!("{}T23:59:59Z", fields.trimmed("expires_at")));
                match end {
                    Some(end) if end > now => Ok(Some(end)),
                    Some(_) => Err("This date is in the past."),
                    None => Err("Pick a date, or enter it as 2027-01-31."),
                }
            }
            _ => Err("Choose when the credential expires."),
        }
    }
}

/// How long the previous secret stays valid, as offered by its form.
pub(super) const OVERLAPS: [(&str, &str, Duration); 4] = [
    ("0", "The old secret stops working now", Duration::ZERO),
    ("1h", "The old secret works for one more hour", Duration::from_secs(3_600)),
    ("1d", "The old secret works for one more day", DAY),
    ("7d", "The old secret works for one more week", Duration::from_secs(7 * 86_400)),
];

/// Returns the chosen overlap.
pub(super) fn overlap(fields: &Fields) -> Option<Duration> {
    let chosen = fields.text("overlap");
    OVERLAPS.iter().find(|(value, _, _)| *value == chosen).map(|(_, _, overlap)| *overlap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_preset_or_the_end_of_a_day_to_come() {
        let now = Timestamp::from_secs(1_800_000_000); // 2027-01-15 08:00
        let read = |query: &str| Expiry::read(&Fields::parse(query.as_bytes()), now);
        for (query, days) in [("lifetime=30d", 30), ("lifetime=90d", 90), ("lifetime=365d", 365)] {
            assert_eq!(read(query), Ok(Some(now.plus(DAY * days))), "{query}");
        }
        assert_eq!(read("lifetime=none"), Ok(None));
        let of_day =
            |day| read(&format!("lifetime=date&expires_at={day}")).map(|end| end.unwrap().to_string());
        assert_eq!(of_day("2027-01-15").as_deref(), Ok("2027-01-15T23:59:59.000Z"), "today has not ended");
        assert_eq!(of_day("2028-02-29").as_deref(), Ok("2028-02-29T23:59:59.000Z"));
        for day in ["2027-01-14", "2027-02-29", "tomorrow", "", "2027-01-15T10:00:00Z"] {
            assert!(of_day(day).is_err(), "{day}");
        }
        assert!(read("").is_err() && read("lifetime=1d").is_err());
    }

    #[test]
    fn an_overlap_is_one_of_those_offered() {
        let read = |query: &str| overlap(&Fields::parse(query.as_bytes())).map(|overlap| overlap.as_secs());
        assert_eq!(
            ["0", "1h", "1d", "7d"].map(|of| read(&format!("overlap={of}"))),
            [Some(0), Some(3_600), Some(86_400), Some(604_800)]
        );
        assert_eq!([read(""), read("overlap=9d")], [None, None]);
    }
}
