//! Why `tickcast load`, `tap` or `floor` failed. Each message says what happened and, where there is one, the cure.

use tickcast_client::Error;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Client(#[from] Error),
    #[error("{0}")]
    Arguments(String),
    #[error("the server refused the connection: {0}")]
    Refused(String),
    #[error("GET /v1/instruments: {0}")]
    Directory(String),
    #[error(
        "{need} open files are needed, and this process may have {have}; raise the limit of this shell with \
         `sudo prlimit --pid $$ --nofile={need}:{need}` and start again"
    )]
    Descriptors { need: u64, have: u64 },
    #[error(
        "{connections} connections need more than the {ports} local ports of their source addresses; give {sources} \
         source addresses, such as --source 127.0.0.1,127.0.0.2,…"
    )]
    Ports { connections: u64, ports: u64, sources: u64 },
    #[error("the publisher failed: {0}")]
    Publish(String),
    #[error("starting a server: {0}")]
    Serve(String),
    #[error("{0}")]
    Probe(#[from] super::observe::process::ProbeError),
    #[error("a load process failed: {0}")]
    Worker(String),
    #[error("the process of the attack failed")]
    Attack,
    #[error("interrupted before there was anything to report")]
    Interrupted,
    #[error("{path}: the recording has ended, and what was written before is whole: {error}")]
    Recording { path: String, error: String },
    #[error("cannot write the output: {0}")]
    Output(std::io::Error),
    #[error("{what}: {error}")]
    System { what: &'static str, error: std::io::Error },
}
