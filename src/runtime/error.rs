//! Why a server does not start.

use super::shard_thread::ShardStartError;
use crate::check::Unfit;
use crate::http::admin::AdminListenError;
use crate::http::listener::ListenError;
use crate::ingest::delay::SpoolError;
use crate::log::LogError;
use crate::tls::TlsError;

/// Why the server does not start, or has failed: what is wrong, the likely cause, the cure.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("cores: the system does not report which cores this process may use")]
    Cores,
    #[error(
        "address space: the reserve of {reserve_mib} MiB is not to be had: expected a limit of at least 1 GiB \
         ('ulimit -v 1048576', LimitAS=1G in a systemd unit), or none"
    )]
    Reserve { reserve_mib: usize },
    #[error(transparent)]
    Machine(#[from] Unfit),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    AdminListen(#[from] AdminListenError),
    #[error("tls: {0}")]
    Tls(#[from] TlsError),
    #[error("archive_dir: {0}")]
    Archive(String),
    #[error("spool_dir: {0}")]
    Spool(#[from] SpoolError),
    #[error("access: {0}")]
    Access(String),
    #[error("{0}")]
    Usage(String),
    #[error("feed {0}")]
    Feed(String),
    #[error("core {core}: {error}")]
    Core { core: usize, error: ShardStartError },
    #[error("a thread could not be started: {0}; the limit of processes may be too low: 'ulimit -u'")]
    Thread(std::io::Error),
    #[error("{0}; the log says why")]
    Failed(String),
    #[error("the kernel has no random numbers for the epoch: {0}")]
    Random(std::io::Error),
    #[error("signal handlers could not be installed: {0}")]
    Signals(std::io::Error),
}
