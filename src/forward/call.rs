//! Data about the call to an upstream for a trace. Nothing is recorded for requests that are not sampled.

use std::cell::{Cell, OnceCell, RefCell};

use http::StatusCode;

use super::upstream::{Address, Scheme};

/// Data about one call to an upstream.
#[derive(Debug, Default)]
pub struct UpstreamCall {
    /// The address of the last attempt.
    address: RefCell<Option<Address>>,
    scheme: OnceCell<Scheme>,
    resends: Cell<u32>,
    status: Cell<Option<StatusCode>>,
}

impl UpstreamCall {
    /// Records the address of an attempt.
    pub(crate) fn goes_to(&self, address: &Address, scheme: Scheme) {
        self.address.replace(Some(address.clone()));
        // The same for all addresses of an upstream.
        let _ = self.scheme.set(scheme);
    }

    /// Records that the request is sent again.
    pub(crate) fn is_sent_again(&self) {
        self.resends.set(self.resends.get() + 1);
    }

    /// Records the upstream's response.
    pub(crate) fn answered(&self, status: StatusCode) {
        self.status.set(Some(status));
    }

    /// The server and TCP port of the call; `None` if the request was answered before it was sent anywhere.
    #[must_use]
    pub fn server(&self) -> Option<(String, Option<u16>)> {
        match self.address.borrow().as_ref()? {
            Address::Tcp { host, port } => Some((host.clone(), Some(*port))),
            Address::Unix(path) => Some((path.display().to_string(), None)),
        }
    }

    /// Whether the call used TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.scheme.get() == Some(&Scheme::Https)
    }

    /// How often the request was sent again.
    #[must_use]
    pub fn resends(&self) -> u32 {
        self.resends.get()
    }

    /// The upstream's status, if it responded.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.status.get()
    }
}
