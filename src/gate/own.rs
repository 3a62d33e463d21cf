//! Requests that the gate answers itself because their path is its own; these paths take precedence over routes.

use std::sync::Arc;

use http::Response;

use super::access::Record;
use super::body::{AnswerBody, ClientBody, Serving};
use super::http::Head;
use super::resources::ResourceAnswer;
use super::{Live, authority, signals};
use crate::authority::{Authority, AuthorityEndpoint};
use crate::signals::intake::{Endpoint, Intake};

/// The part of the gate that answers a request itself.
pub(super) enum OwnRoom {
    /// The embedded authority.
    Authority(Arc<Authority>, AuthorityEndpoint),
    /// The endpoints for signals.
    Signals(Arc<Intake>, Endpoint),
    /// The metadata of a protected resource.
    Resource(ResourceAnswer),
}

impl OwnRoom {
    /// The one for a request, if its path is one of the gate's own.
    pub(super) fn of(live: &Live, head: &Head) -> Option<Self> {
        if let Some(authority) = &live.authority
            && let Some(endpoint) = authority::endpoint(authority, &head.method, &head.target)
        {
            return Some(Self::Authority(Arc::clone(authority), endpoint));
        }
        if let Some(answer) = ResourceAnswer::to(&live.resources, head) {
            return Some(Self::Resource(answer));
        }
        let intake = live.intake.as_ref()?;
        let endpoint = signals::endpoint(intake, &head.method, &head.target)?;
        Some(Self::Signals(Arc::clone(intake), endpoint))
    }

    /// Serves the request; `certificate` is the SHA-256 of its client certificate, if it has one.
    pub(super) async fn serve(
        self,
        head: &Head,
        (body, certificate): (ClientBody, Option<[u8; 32]>),
        record: Box<Record>,
        serving: Option<Serving>,
    ) -> Response<AnswerBody> {
        match self {
            Self::Authority(authority, endpoint) => {
                authority::serve(&authority, endpoint, head, (body, certificate), record, serving).await
            }
            Self::Signals(intake, endpoint) => {
                signals::serve(&intake, &endpoint, head, body, record, serving).await
            }
            Self::Resource(answer) => answer.serve(head, body, record, serving).await,
        }
    }
}
