//! Spare file descriptors for operators: `/live` still responds when clients and upstreams have used up all others.

use std::io;

use socket2::{Domain, Socket, Type};

/// How many of a listener's connections can always be accepted.
const COUNT: usize = 4;

/// Descriptors that are open for nothing but to be closed when one is needed.
#[derive(Debug)]
pub(super) struct Spares(Vec<Socket>);

impl Spares {
    pub(super) fn new() -> Self {
        let mut spares = Self(Vec::with_capacity(COUNT));
        spares.refill();
        spares
    }

    /// Reopens released descriptors, as far as the process has some again.
    pub(super) fn refill(&mut self) {
        while self.0.len() < COUNT
            && let Ok(spare) = Socket::new(Domain::IPV4, Type::DGRAM, None)
        {
            self.0.push(spare);
        }
    }

    /// Gives one up for a connection that could not be accepted because of `error`; whether trying again makes sense.
    pub(super) fn give_up(&mut self, error: &io::Error) -> bool {
        let exhausted = matches!(rustix::io::Errno::from_io_error(error), Some(rustix::io::Errno::MFILE));
        exhausted && self.0.pop().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spares_are_given_up_only_when_descriptors_have_run_out() {
        let mut spares = Spares::new();
        let exhausted = io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error());
        assert!(!spares.give_up(&io::ErrorKind::ConnectionAborted.into()));
        for _ in 0..COUNT {
            assert!(spares.give_up(&exhausted));
        }
        assert!(!spares.give_up(&exhausted), "there are none left");
        spares.refill();
        assert!(spares.give_up(&exhausted));
    }
}
