//! The file of a recording: a new one, or one that is continued.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Seek, SeekFrom};
use std::path::Path;

use tickcast_recording::{Reader, ResumeAt, Writer};

/// An opened file.
pub(super) struct Opened {
    pub(super) writer: Writer<File>,
    /// What was found of a file that is continued.
    pub(super) found: Option<Found>,
}

/// What a file had that is continued.
pub(super) struct Found {
    /// Bytes of its last block that were cut off.
    pub(super) torn_bytes: u64,
    /// To continue the stream with.
    pub(super) token: Option<tickcast_client::Token>,
}

/// Opens the file. One that exists is continued with `append`, and refused without.
///
/// # Errors
/// What is wrong with it, and what to do.
pub(super) fn open(path: &Path, append: bool) -> Result<Opened, String> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    let name = path.display();
    let opened =
        if append { options.create(true).truncate(false).open(path) } else { options.create_new(true).open(path) };
    let file = opened.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => format!("{name} exists: give another --out, or --append to continue it"),
        _ => format!("{name}: {error}"),
    })?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(format!("{name} is being recorded by another process")),
        // A file system without locks.
        Err(TryLockError::Error(_)) => {}
    }
    let failed = |error: std::io::Error| format!("{name}: {error}");
    if file.metadata().map_err(failed)?.len() == 0 {
        return Ok(Opened { writer: Writer::create(file).map_err(failed)?, found: None });
    }
    let mut reader = Reader::open(&file).map_err(|error| format!("{name} {error}; it is left as it is"))?;
    let at = ResumeAt::end_of(&mut reader).ok_or_else(|| {
        format!("{name} is damaged behind its last checkpoint, so it is not continued: give another --out")
    })?;
    let found = Found { torn_bytes: reader.torn_bytes(), token: at.token() };
    file.set_len(reader.intact_bytes()).map_err(failed)?;
    (&file).seek(SeekFrom::End(0)).map_err(failed)?;
    Ok(Opened { writer: Writer::resume(file, at).map_err(failed)?, found: Some(found) })
}
