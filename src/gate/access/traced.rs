//! The trace of a request: decided when its head is complete, exported with its record.

use std::rc::Rc;

use http::{HeaderMap, StatusCode};

use super::Record;
use crate::forward::{OutgoingTrace, UpstreamCall};
use crate::traces::{FinishedCall, FinishedRequest, RequestTrace};

/// The trace of a request.
pub(super) struct Traced {
    trace: RequestTrace,
    /// Data on the call to the upstream, if the request's spans are recorded.
    call: Option<Rc<UpstreamCall>>,
}

impl Traced {
    pub(super) fn id(&self) -> u128 {
        self.trace.id()
    }
}

impl Record {
    /// Decides whether the request is traced. `is_trusted`: the peer is a trusted proxy.
    pub(in crate::gate) fn begin_trace(&mut self, headers: &HeaderMap, is_trusted: bool) {
        if let Some(tracing) = &self.generation.live.tracing {
            let trace = tracing.begin(headers, is_trusted, &self.worker.trace_ids);
            self.traced = Some(Traced { trace, call: trace.is_sampled().then(Rc::default) });
        }
    }

    /// The trace context to send to the upstream.
    pub(in crate::gate) fn outgoing_trace(&self) -> Option<OutgoingTrace> {
        let Traced { trace, call } = self.traced.as_ref()?;
        Some(OutgoingTrace { context: trace.sent(), call: call.clone() })
    }

    /// Hands the request to the exporter, if its spans are recorded.
    pub(super) fn export(&self, status: u16) {
        let (Some(Traced { trace, call: Some(call) }), Some(decided), Some(tracing)) =
            (&self.traced, self.decision, &self.generation.live.tracing)
        else {
            return;
        };
        let answered = self.status.as_ref().map(StatusCode::as_u16);
        let duration = self.answered_after.unwrap_or_default();
        let trace = (*trace, tracing.has_paths());
        self.describe((status, duration), decided, |record| {
            let call = self.finished_call(call, record.upstream.unwrap_or_default());
            tracing.ended(FinishedRequest::new(trace, record, answered, call));
        });
    }

    /// The completed call to the upstream; `None` if the request went to no upstream.
    fn finished_call(&self, call: &UpstreamCall, upstream: &str) -> Option<FinishedCall> {
        let (address, port) = call.server()?;
        let began = self.forwarded_at?.elapsed();
        // Without a response, the call ended when the gate answered in the upstream's place.
        let lasted = if call.status().is_some() { began } else { self.upstream_time.unwrap_or(began) };
        Some(FinishedCall {
            upstream: upstream.into(),
            address: address.into(),
            port,
            is_tls: call.is_tls(),
            status: call.status().map(|status| status.as_u16()),
            resends: call.resends(),
            began,
            lasted,
        })
    }
}
