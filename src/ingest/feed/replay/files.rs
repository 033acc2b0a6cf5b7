//! The files of a replay: what each of them is, by its first bytes.

use std::fs::File;
use std::sync::Arc;

use super::dbn::{self, DbnTrack};
use super::native::NativeTrack;
use super::params::Params;
use super::recording::{OpenError, open_regular};
use super::tardis::{self, TardisTrack};
use super::track::Track;
use crate::ingest::transport::file::head_of;
use tickcast_recording::FILE_MAGIC;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Messages of a venue, a line each.
    Messages,
    /// What `tickcast record` writes.
    PacketLog,
    /// Records of Databento.
    Dbn,
    /// Rows of Tardis.
    Tardis,
}

impl Kind {
    /// What it is called in messages.
    fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages of a venue",
            Self::PacketLog => "a packet log",
            Self::Dbn => "a DBN file",
            Self::Tardis => "a CSV file of Tardis",
        }
    }

    fn of(file: &Arc<File>) -> Self {
        let head = head_of(file);
        if head.starts_with(&FILE_MAGIC) {
            Self::PacketLog
        } else if head.starts_with(dbn::MAGIC) {
            Self::Dbn
        } else if head.starts_with(tardis::MAGIC) {
            Self::Tardis
        } else {
            Self::Messages
        }
    }
}

/// The tracks of a replay of records; `None` if the files are messages of venues.
///
/// # Errors
/// If a file cannot be opened, if the files are of both kinds, or if a parameter is for messages alone.
pub fn tracks_of(params: &Params) -> Result<Option<Vec<Box<dyn Track>>>, OpenError> {
    let mut tracks: Vec<Box<dyn Track>> = Vec::new();
    let mut messages = None;
    for path in &params.files {
        let file = open_regular(path)?;
        let name = path.display().to_string();
        let kind = Kind::of(&file);
        match kind {
            Kind::Messages => messages = Some(name.clone()),
            Kind::PacketLog => tracks.push(Box::new(NativeTrack::open(name.clone(), &file)?)),
            Kind::Dbn => tracks.push(Box::new(DbnTrack::open(name.clone(), &file)?)),
            Kind::Tardis => tracks.push(Box::new(TardisTrack::open(name.clone(), &file)?)),
        }
        if let (Some(messages), Some(track)) = (&messages, tracks.first()) {
            let (path, other) = (messages.clone(), track.name().to_owned());
            return Err(OpenError::SeveralKinds { path, other });
        }
        if kind != Kind::Messages
            && let Some(key) = params.key_for_messages()
        {
            return Err(OpenError::ForMessages { path: name, kind: kind.name(), key });
        }
    }
    if let (Some(from_ns), Some(track)) = (params.from_ns, tracks.first()) {
        let last_ns = tracks.iter().map(|track| track.last_ns()).try_fold(0, |last, next| Some(next?.max(last)));
        if let Some(last_ns) = last_ns.filter(|last_ns| *last_ns < from_ns) {
            return Err(OpenError::EndsBefore { path: track.name().to_owned(), last_ns, from_ns });
        }
    }
    Ok(messages.is_none().then_some(tracks))
}
