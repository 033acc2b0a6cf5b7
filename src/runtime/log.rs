//! The log on stderr, whose filter can change while the server runs.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::reload;

use super::StartError;

/// The installed log.
pub struct Log(Box<dyn Fn(EnvFilter) -> Result<(), reload::Error>>);

impl Log {
    /// Replaces the filter.
    pub(super) fn set_filter(&self, filter: EnvFilter) -> Result<(), reload::Error> {
        (self.0)(filter)
    }
}

/// Logs to stderr what passes the filter.
pub fn log_to_stderr(filter: &str) -> Result<Log, StartError> {
    let parsed = parse_filter(filter)?;
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let builder = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(std::io::stderr).with_ansi(ansi);
    let builder = builder.with_filter_reloading();
    let handle = builder.reload_handle();
    // Fails if the process has a subscriber already, as in a test: then that one stays.
    let _ = builder.try_init();
    Ok(Log(Box::new(move |filter| handle.reload(filter))))
}

pub(super) fn parse_filter(filter: &str) -> Result<EnvFilter, StartError> {
    EnvFilter::try_new(filter).map_err(|_| StartError::Log(filter.to_owned()))
}
