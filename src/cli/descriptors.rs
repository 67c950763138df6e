//! The limit on open files and connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard limit. The usual soft limit of 1,024 exists for programs that call select(2), which kladder does not;
/// 64 ladders with a connection to each of 10 brokers reach it.
pub fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // `None` means unlimited.
    if current.is_none() || current == maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => tracing::debug!(from = current, to = maximum, "soft limit of open files raised"),
        Err(error) => tracing::debug!(current, maximum, %error, "cannot raise the soft limit of open files"),
    }
}
