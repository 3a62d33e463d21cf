//! Search filters for events: subject, client, session or token.

use std::sync::Arc;

use super::list::{bad, filled, named_or_all};
use crate::admin::problem::Problem;
use crate::events::EventIssuer;
use crate::identity::{ClientKey, Key, SessionKey, SubjectKey, TokenKey};
use crate::state::record::{Event, EventKind};

/// At most one of subject, client, login session and token, of one issuer or of any.
#[derive(Debug, Default, Clone)]
pub(crate) struct WhomFilter {
    pub(crate) subject: Option<String>,
    pub(crate) client: Option<String>,
    pub(crate) session: Option<String>,
    pub(crate) jti: Option<String>,
    pub(crate) issuer: Option<String>,
}

/// The same as keys, one for each issuer that may be meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Whom {
    Anyone,
    Issuer(Arc<str>),
    Subject(Vec<Key>),
    Client(Vec<Key>),
    Session(Vec<Key>),
    Token(Vec<Key>),
}

impl WhomFilter {
    /// # Errors
    /// When a name is empty, there are several, or the issuer is none of these.
    pub(super) fn chosen(&self, issuers: &[EventIssuer]) -> Result<Whom, Problem> {
        let asked = named_or_all(self.issuer.as_deref(), issuers)?;
        let each =
            |key: &dyn Fn(&str) -> Key| asked.iter().map(|issuer| key(&issuer.issuer)).collect::<Vec<_>>();
        let subject = filled("subject", self.subject.as_ref())?;
        let (client, jti) = (filled("client", self.client.as_ref())?, filled("jti", self.jti.as_ref())?);
        let session = filled("session", self.session.as_ref())?;
        match (subject, client, session, jti) {
            (Some(subject), None, None, None) => {
                // Under whichever kind of name.
                let kinds: [fn(&str, &str) -> SubjectKey; 3] =
                    [SubjectKey::new, SubjectKey::email, SubjectKey::alias];
                let keys = kinds.into_iter().flat_map(|key| each(&|issuer| key(issuer, subject).0));
                Ok(Whom::Subject(keys.collect()))
            }
            (None, Some(client), None, None) => {
                Ok(Whom::Client(each(&|issuer| ClientKey::new(issuer, client).0)))
            }
            (None, None, Some(session), None) => {
                Ok(Whom::Session(each(&|issuer| SessionKey::new(issuer, session).0)))
            }
            (None, None, None, Some(jti)) => Ok(Whom::Token(each(&|issuer| TokenKey::new(issuer, jti).0))),
            (None, None, None, None) => match (&self.issuer, asked.as_slice()) {
                (Some(_), [issuer]) => Ok(Whom::Issuer(Arc::clone(&issuer.issuer))),
                _ => Ok(Whom::Anyone),
            },
            _ => Err(bad("give one of `subject`, `client`, `session` and `jti`".to_owned())),
        }
    }
}

impl Whom {
    /// The keys by which they can be looked up.
    pub(super) fn keys(&self) -> &[Key] {
        match self {
            Self::Anyone | Self::Issuer(_) => &[],
            Self::Subject(keys) | Self::Client(keys) | Self::Session(keys) | Self::Token(keys) => keys,
        }
    }

    /// The kinds of events that end them by name.
    pub(super) const fn kinds(&self) -> &'static [EventKind] {
        match self {
            Self::Anyone | Self::Issuer(_) => &[],
            Self::Subject(_) => &[EventKind::RoleChanged, EventKind::SubjectRevoked],
            Self::Client(_) => &[EventKind::ClientRevoked],
            Self::Session(_) => &[EventKind::SessionRevoked],
            Self::Token(_) => &[EventKind::TokenRevoked],
        }
    }

    /// Whether an event, or an undo event, names them.
    pub(super) fn is_named_by(&self, event: &Event) -> bool {
        match self {
            Self::Anyone => true,
            Self::Issuer(issuer) => *issuer == event.issuer,
            // A subject and a client of the same name may have the same key.
            Self::Subject(keys) => event.subject.is_some() && keys.contains(&event.key),
            Self::Client(keys) => event.client.is_some() && keys.contains(&event.key),
            Self::Session(keys) => event.session.is_some() && keys.contains(&event.key),
            Self::Token(keys) => {
                event.subject.is_none() && event.client.is_none() && keys.contains(&event.key)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::state::record::SubjectKind;
    use crate::time::Timestamp;

    const END: Timestamp = Timestamp::from_millis(9_000_000_000_000);

    fn issuers() -> Vec<EventIssuer> {
        let issuer = |name: &str| EventIssuer {
            issuer: name.into(),
            leeway: Duration::from_secs(30),
            max_lifetime: Duration::from_secs(3600),
        };
        vec![issuer("https://a/"), issuer("https://b/")]
    }

    fn filter(pairs: &[(&str, &str)]) -> WhomFilter {
        let of = |wanted: &str| {
            pairs.iter().find(|(name, _)| *name == wanted).map(|(_, value)| (*value).to_owned())
        };
        WhomFilter {
            subject: of("subject"),
            client: of("client"),
            session: of("session"),
            jti: of("jti"),
            issuer: of("issuer"),
        }
    }

    #[test]
    fn filters_find_the_events_that_name_whom_they_name() {
        let (a, b) = ("https://a/".into(), "https://b/".into());
        let events = [
            Event::subject(EventKind::SubjectRevoked, &a, "x", END, END),
            Event::subject(EventKind::RoleChanged, &b, "x", END, END),
            Event::client(&a, "x", END, END),
            Event::token(&a, "x", END, END),
            Event::issuer(&a, END, END),
            Event::session(&a, "x", None, END, END),
            Event::named(EventKind::SubjectRevoked, &a, (SubjectKind::Email, "x"), END, END),
        ];
        for (pairs, expected) in [
            (&[][..], &[0, 1, 2, 3, 4, 5, 6][..]),
            (&[("issuer", "https://a/")], &[0, 2, 3, 4, 5, 6]),
            (&[("issuer", "https://b/")], &[1]),
            (&[("subject", "x")], &[0, 1, 6]),
            (&[("session", "x")], &[5]),
            (&[("session", "y")], &[]),
            (&[("subject", "x"), ("issuer", "https://b/")], &[1]),
            (&[("subject", "y")], &[]),
            (&[("client", "x")], &[2]),
            (&[("client", "x"), ("issuer", "https://b/")], &[]),
            (&[("jti", "x")], &[3]),
        ] {
            let whom = filter(pairs).chosen(&issuers()).unwrap();
            for events in [events.clone(), events.clone().map(|event| event.undoing(END))] {
                let found = (0..events.len()).filter(|place| whom.is_named_by(&events[*place]));
                assert_eq!(found.collect::<Vec<_>>(), expected, "{pairs:?}");
            }
        }
    }

    #[test]
    fn filters_that_make_no_sense_are_rejected() {
        for (pairs, complaint) in [
            (&[("issuer", "https://c/")][..], "not a configured issuer"),
            (&[("subject", "")], "`subject` is empty"),
            (&[("client", "")], "`client` is empty"),
            (&[("session", "")], "`session` is empty"),
            (&[("jti", "")], "`jti` is empty"),
            (&[("subject", "x"), ("client", "x")], "give one of"),
            (&[("session", "x"), ("subject", "x")], "give one of"),
            (&[("client", "x"), ("jti", "x")], "give one of"),
            (&[("subject", "x"), ("client", "x"), ("jti", "x")], "give one of"),
        ] {
            let told = filter(pairs).chosen(&issuers()).unwrap_err().to_string();
            assert!(told.contains(complaint), "{pairs:?}: {told}");
        }
    }
}
