//! What a trace says of the call to an upstream. Nothing is noted for requests whose spans are not recorded.

use std::cell::{Cell, OnceCell, RefCell};

use http::StatusCode;

use super::upstream::{Address, Scheme};

/// Notes about one call to an upstream.
#[derive(Debug, Default)]
pub struct UpstreamCall {
    /// Where it went last.
    address: RefCell<Option<Address>>,
    scheme: OnceCell<Scheme>,
    resends: Cell<u32>,
    status: Cell<Option<StatusCode>>,
}

impl UpstreamCall {
    /// It goes to this address.
    pub(crate) fn goes_to(&self, address: &Address, scheme: Scheme) {
        self.address.replace(Some(address.clone()));
        // The same for all addresses of an upstream.
        let _ = self.scheme.set(scheme);
    }

    /// It is sent once more.
    pub(crate) fn is_sent_again(&self) {
        self.resends.set(self.resends.get() + 1);
    }

    /// The upstream has answered.
    pub(crate) fn answered(&self, status: StatusCode) {
        self.status.set(Some(status));
    }

    /// Where it went, and the TCP port there; `None` for a request that was answered before it went anywhere.
    #[must_use]
    pub fn server(&self) -> Option<(String, Option<u16>)> {
        match self.address.borrow().as_ref()? {
            Address::Tcp { host, port } => Some((host.clone(), Some(*port))),
            Address::Unix(path) => Some((path.display().to_string(), None)),
        }
    }

    /// Whether it went over TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.scheme.get() == Some(&Scheme::Https)
    }

    /// How often it was sent again.
    #[must_use]
    pub fn resends(&self) -> u32 {
        self.resends.get()
    }

    /// What the upstream answered, if it did.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.status.get()
    }
}
