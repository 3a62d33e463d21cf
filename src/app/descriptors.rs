//! File descriptors: the limit of the process, and how many of them client connections may use.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Reserved for everything but clients and upstreams: state files, the log, runtimes, DNS lookups, fetching
/// keys and events, and connections of operators (which have some to spare beyond that).
const RESERVED: usize = 96;
/// Reserved for each worker: its runtime and its listeners.
const PER_WORKER: usize = 4;
/// A client whose request is forwarded needs a second descriptor for the upstream.
const PER_CONNECTION: usize = 2;
/// Clients that are served even if the limit is too low.
const LEAST: usize = 8;

/// Raises the soft limit to the hard one and returns it; `None` for unlimited.
pub(super) fn raise_limit() -> Option<usize> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: maximum, maximum };
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(error) => {
            warn!(%error, soft = current, hard = maximum, "cannot raise the limit on open files");
            current
        }
    };
    limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Returns how many clients may be connected, and how many upstream connections open, under a limit, so that
/// requests can be forwarded and operators are served whatever clients do.
pub(super) fn connections_within(limit: Option<usize>, workers: usize) -> usize {
    let kept = RESERVED.saturating_add(workers.saturating_mul(PER_WORKER));
    limit.map_or(usize::MAX, |limit| (limit.saturating_sub(kept) / PER_CONNECTION).max(LEAST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_descriptors_for_their_requests_and_for_operators() {
        for (limit, workers, most) in [
            (None, 1, usize::MAX),
            (Some(1024), 1, 462),
            (Some(1024), 8, 448),
            (Some(1_048_576), 2, 524_236),
            (Some(64), 1, LEAST),
            (Some(0), 64, LEAST),
        ] {
            assert_eq!(connections_within(limit, workers), most, "{limit:?} {workers}");
        }
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let hard = getrlimit(Resource::Nofile).maximum;
        assert_eq!(raise_limit(), hard.map(|hard| usize::try_from(hard).unwrap()));
        assert_eq!(getrlimit(Resource::Nofile).current, hard);
    }
}
