//! Which tokens of an issuer must be bound to a key of their sender, and how the sender proves it.

use crate::enforce::token::Confirmation;

/// What an issuer's tokens must be bound to (`sender_constraint`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SenderConstraint {
    /// Nothing; but if a token is bound, the binding must be proven.
    #[default]
    WhenBound,
    /// A key, by DPoP.
    Dpop,
    /// A client certificate, by mutual TLS.
    Mtls,
    /// Either of the two.
    Either,
    /// Nothing; a key that a token is bound to is left to the upstream to check.
    IgnoreDpop,
}

impl SenderConstraint {
    /// Whether a token is bound as required, as far as DPoP is concerned.
    pub(in crate::enforce) fn is_met(self, bound_to: &Confirmation) -> bool {
        match self {
            Self::Dpop => bound_to.key.is_some(),
            Self::Either => bound_to.key.is_some() || bound_to.certificate.is_some(),
            Self::WhenBound | Self::Mtls | Self::IgnoreDpop => true,
        }
    }

    /// Whether a token must be bound to a client certificate.
    pub(in crate::enforce) fn needs_certificate(self) -> bool {
        self == Self::Mtls
    }

    /// The key that must be proven by DPoP, if any.
    pub(in crate::enforce) fn key_to_prove(self, bound_to: &Confirmation) -> Option<&[u8; 32]> {
        match self {
            Self::IgnoreDpop => None,
            Self::WhenBound | Self::Dpop | Self::Mtls | Self::Either => bound_to.key.as_ref(),
        }
    }

    /// Whether challenges offer DPoP. `announced`: whether the configuration has a `[dpop]` table.
    #[must_use]
    pub fn takes_dpop(self, announced: bool) -> bool {
        match self {
            Self::Dpop | Self::Either => true,
            Self::WhenBound => announced,
            Self::Mtls | Self::IgnoreDpop => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_constraint_asks_for_what_its_name_says() {
        use SenderConstraint::{Dpop, Either, IgnoreDpop, Mtls, WhenBound};
        let of = |key: bool, certificate: bool| Confirmation {
            key: key.then_some([1; 32]),
            certificate: certificate.then_some([2; 32]),
        };
        // Whether it is met without a key and a certificate, with a key, with a certificate; whether the key
        // must be proven.
        for (constraint, met, proven, mtls, announced) in [
            (WhenBound, [true, true, true], true, false, [false, true]),
            (Dpop, [false, true, false], true, false, [true, true]),
            (Mtls, [true, true, true], true, true, [false, false]),
            (Either, [false, true, true], true, false, [true, true]),
            (IgnoreDpop, [true, true, true], false, false, [false, false]),
        ] {
            let found = [of(false, false), of(true, false), of(false, true)].map(|it| constraint.is_met(&it));
            assert_eq!(found, met, "{constraint:?}");
            assert_eq!(constraint.key_to_prove(&of(true, true)).is_some(), proven, "{constraint:?}");
            assert_eq!(constraint.key_to_prove(&of(false, true)), None, "{constraint:?}");
            assert_eq!(constraint.needs_certificate(), mtls, "{constraint:?}");
            assert_eq!([false, true].map(|it| constraint.takes_dpop(it)), announced, "{constraint:?}");
        }
    }
}
