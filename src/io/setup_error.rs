//! Why a shard's ring could not be set up.

use std::io;

use super::errno;

/// Why a ring could not be set up, and what fixes it.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The system or a container's seccomp profile forbids it.
    #[error(
        "io_uring is not permitted here ({0}); restore it with 'sysctl -w kernel.io_uring_disabled=0', or, in a container, \
         allow io_uring_setup, io_uring_enter and io_uring_register in its seccomp profile"
    )]
    Forbidden(io::Error),
    /// The kernel has no io_uring, or hides it.
    #[error(
        "this kernel has no io_uring ({0}), or a seccomp profile hides it; Linux 6.1 or newer is needed, see 'uname -r'"
    )]
    Missing(io::Error),
    /// The kernel's io_uring lacks a feature.
    #[error("this kernel's io_uring is too old ({0}); Linux 6.1 or newer is needed, see 'uname -r'")]
    TooOld(io::Error),
    /// Locked memory ran out.
    #[error(
        "io_uring got no memory ({0}); the locked-memory limit may be too low: 'ulimit -l unlimited', or LimitMEMLOCK= in \
         the unit"
    )]
    Memory(io::Error),
    /// The descriptor limit is below the number of slots.
    #[error(
        "{slots} connections need as many descriptors ({error}); raise the limit with 'ulimit -n {slots}', or lower \
         connections_max"
    )]
    Descriptors { slots: u32, error: io::Error },
    /// Anything else.
    #[error("io_uring could not be set up: {0}")]
    Other(io::Error),
}

impl SetupError {
    pub(super) fn of_ring(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno::EPERM | errno::EACCES) => Self::Forbidden(error),
            Some(errno::ENOSYS) => Self::Missing(error),
            Some(errno::EINVAL) => Self::TooOld(error),
            Some(errno::ENOMEM) => Self::Memory(error),
            _ => Self::Other(error),
        }
    }
}
