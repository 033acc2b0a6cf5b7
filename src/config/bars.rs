//! Bars: their memory, the archive, and the sessions of venues.

use std::sync::Arc;

use super::describe::mib;
use super::range::within;
use super::{BARS_RING_BYTES, Config, ConfigError, Layer};
use crate::archive::ArchiveSettings;
use crate::bars::{Session, capacity};

fn value(setting: &'static str, problem: String) -> ConfigError {
    ConfigError::Value { setting, problem }
}

/// The bytes of bars or of newest trades.
pub(super) fn resolve_bytes(name: &'static str, given: Option<usize>, default: usize) -> Result<usize, ConfigError> {
    const BOUNDS: std::ops::RangeInclusive<usize> = 1 << 20..=64 << 30;
    match given {
        None => Ok(default),
        Some(bytes) if bytes == 0 || BOUNDS.contains(&bytes) => Ok(bytes),
        Some(bytes) => {
            let (least, most) = (BOUNDS.start(), BOUNDS.end());
            Err(value(name, format!("{bytes} is out of range: expected 0, or {least} to {most}")))
        }
    }
}

pub(super) fn resolve_sessions(layer: &Layer) -> Result<Vec<Arc<Session>>, ConfigError> {
    let mut sessions: Vec<Arc<Session>> = Vec::new();
    for entry in &layer.session {
        let days = entry.days.as_deref().unwrap_or("mon-fri");
        let session = Session::parse(&entry.venue, &entry.timezone, &entry.open, &entry.close, days)
            .map_err(|problem| value("session", problem))?;
        if sessions.iter().any(|other| other.venue == session.venue) {
            return Err(value("session", format!("venue {:?} is given twice: expected one session", session.venue)));
        }
        sessions.push(Arc::new(session));
    }
    Ok(sessions)
}

pub(super) fn resolve_archive(layer: &Layer) -> Result<Option<ArchiveSettings>, ConfigError> {
    let bytes_max = within("archive_bytes_max", layer.archive_bytes_max, 4 << 30, 1 << 20, 1 << 44)?;
    match &layer.archive_dir {
        None if layer.archive_bytes_max.is_some() => {
            Err(value("archive_bytes_max", "given without archive_dir: expected the folder of the archive".to_owned()))
        }
        None => Ok(None),
        Some(folder) if folder.as_os_str().is_empty() => {
            Err(value("archive_dir", "empty: expected a folder".to_owned()))
        }
        Some(_) if layer.bars_bytes == Some(0) => {
            Err(value("archive_dir", "given with bars_bytes 0: expected memory for the bars that are kept".to_owned()))
        }
        Some(folder) => Ok(Some(ArchiveSettings { folder: folder.clone(), bytes_max })),
    }
}

impl Config {
    /// For the start of the server.
    pub(super) fn describe_bar_settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("bars_bytes", self.describe_bars()),
            ("trades_bytes", self.describe_trades()),
            ("archive_dir", self.describe_archive()),
            ("session", self.describe_sessions()),
        ]
    }

    fn describe_bars(&self) -> String {
        let bars = |instruments, level| capacity(self.bars_bytes, instruments, level);
        match self.bars_bytes {
            0 => "0: no bars".to_owned(),
            bytes => format!(
                "{}, {} for computed tickers, and a ring of {}: {} bars of a second, {} of a minute, {} of an hour and {} of a day for each of 200 \
                 instruments; {} of a second for each of instruments_max",
                mib(bytes),
                mib(bytes / super::TICKERS_PART),
                mib(BARS_RING_BYTES),
                bars(200, 0),
                bars(200, 1),
                bars(200, 2),
                bars(200, 3),
                bars(self.instruments_max, 0)
            ),
        }
    }

    fn describe_trades(&self) -> String {
        let trades = |instruments| crate::recent_trades::capacity(self.trades_bytes, instruments);
        match self.trades_bytes {
            0 => "0: no newest trades".to_owned(),
            bytes => format!(
                "{}: the newest {} trades of each of 200 instruments, {} of each of instruments_max",
                mib(bytes),
                trades(200),
                trades(self.instruments_max)
            ),
        }
    }

    fn describe_sessions(&self) -> String {
        let sessions: Vec<String> =
            self.sessions.iter().map(|session| format!("{}: {session}", session.venue)).collect();
        if sessions.is_empty() { "none".to_owned() } else { sessions.join("; ") }
    }

    fn describe_archive(&self) -> String {
        match &self.archive {
            None => "none: bars begin with the server".to_owned(),
            Some(archive) => {
                format!("{}, at most {} a market", archive.folder.display(), mib(archive.bytes_max as usize))
            }
        }
    }
}
