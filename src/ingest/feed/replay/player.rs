//! Plays recordings of records: packet logs, DBN, Tardis CSV. Several are merged by time.
//!
//! What always holds: the events of one file keep their order; what comes before `from=` is applied and not played
//! ([`Skipped`]); nothing at or after `to=` is played; a part of a file that cannot be read is a gap, and the rest is
//! played.
//!
//! Cost: that of the format, and a comparison of times for each event and file.

use super::params::{Params, Speed};
use super::recording::OpenError;
use super::skipped::Skipped;
use super::track::{Directory, Output, Track};
use super::{LINES_PER_POLL_MAX, LOOP_PAUSE_NS};
use crate::ingest::source::{Batch, Next, Report, SOURCE_BATCH_BYTES_MAX, Source, SourceError, Stream, Times};

/// A running replay of records.
pub struct Player {
    tracks: Vec<Box<dyn Track>>,
    speed: Speed,
    repeat: bool,
    from_ns: Option<u64>,
    to_ns: u64,
    /// What comes before `from=`, until that time has come.
    skipped: Option<Skipped>,
    scratch: Vec<u8>,
    directory: Directory,
    report: tickcast_venues::Report,
    /// The recording's time at which this pass begins, and the replay's own.
    pass: Pass,
    start_ns: Option<u64>,
    /// The time of the latest event, in the replay's own time.
    latest_at_ns: u64,
    /// The present pass had an event.
    has_played: bool,
}

/// One pass through the recordings.
#[derive(Clone, Copy, Debug)]
struct Pass {
    base_ns: u64,
    at_ns: u64,
}

impl Player {
    /// Begins to play these files.
    ///
    /// # Errors
    /// If one of them cannot be read.
    pub fn begin(tracks: Vec<Box<dyn Track>>, params: &Params) -> Result<Self, OpenError> {
        let mut player = Self {
            tracks,
            speed: params.speed,
            repeat: params.repeat,
            from_ns: params.from_ns,
            to_ns: params.to_ns.unwrap_or(u64::MAX),
            skipped: None,
            scratch: Vec::new(),
            directory: Directory::default(),
            report: tickcast_venues::Report::default(),
            pass: Pass { base_ns: 0, at_ns: 0 },
            start_ns: None,
            latest_at_ns: 0,
            has_played: false,
        };
        player.begin_pass(0)?;
        Ok(player)
    }

    fn begin_pass(&mut self, at_ns: u64) -> Result<(), OpenError> {
        for track in &mut self.tracks {
            track.begin(self.from_ns)?;
        }
        self.skipped = self.from_ns.map(|_| Skipped::default());
        let first_ns = self.tracks.iter_mut().filter_map(|track| track.next_ns()).filter(|ns| *ns > 0).min();
        self.pass = Pass { base_ns: self.from_ns.or(first_ns).unwrap_or(0), at_ns };
        self.latest_at_ns = at_ns;
        Ok(())
    }

    /// The track with the earliest event, and its time. Of several at one time, the file that was named first.
    fn next_track(&mut self) -> Option<(usize, u64)> {
        let times = self.tracks.iter_mut().enumerate().filter_map(|(nth, track)| Some((nth, track.next_ns()?)));
        times.min_by_key(|(nth, time_ns)| (*time_ns, *nth)).filter(|(_, time_ns)| *time_ns < self.to_ns)
    }

    /// Takes one event; what comes before `from=` goes to the scratch.
    fn take(&mut self, nth: usize, time_ns: u64, batch: &mut Vec<u8>) -> Result<(), SourceError> {
        let Self { tracks, skipped, scratch, directory, report, .. } = self;
        let is_before = self.from_ns.is_some_and(|from_ns| time_ns < from_ns);
        if let Some(skipped) = skipped.as_mut().filter(|_| is_before) {
            let records_before = report.records;
            let taken = tracks[nth].take(&mut Output { batch: scratch, report, directory });
            report.records = records_before;
            skipped.add(scratch);
            return taken.map_err(SourceError::Gap);
        }
        if let Some(mut skipped) = skipped.take() {
            report.records += skipped.publish(batch);
        }
        tracks[nth].take(&mut Output { batch, report, directory }).map_err(SourceError::Gap)
    }

    /// Begins again, or ends.
    fn end_pass(&mut self, batch: &mut Vec<u8>) -> Result<bool, SourceError> {
        if let Some(mut skipped) = self.skipped.take() {
            // All of it was before `from=`: what it came to is what there is.
            self.report.records += skipped.publish(batch);
            let name = self.tracks.first().map_or("", |track| track.name());
            tracing::warn!(file = name, "nothing was recorded from from= on: the state before it is published");
        }
        // Files without an event would begin again at once, for ever.
        if !self.repeat || !std::mem::take(&mut self.has_played) {
            return Ok(false);
        }
        let Self { directory, report, .. } = self;
        Output { batch, report, directory }.void_books();
        let at_ns = self.latest_at_ns.saturating_add(LOOP_PAUSE_NS);
        self.begin_pass(at_ns)?;
        Ok(true)
    }
}

impl Source for Player {
    fn receive(&mut self, Times { now_ns, .. }: Times, batch: &mut Batch) -> Result<Next, SourceError> {
        let batch = &mut batch.records;
        let start_ns = *self.start_ns.get_or_insert(now_ns);
        for _ in 0..LINES_PER_POLL_MAX {
            let Some((nth, time_ns)) = self.next_track() else {
                if self.end_pass(batch)? || !batch.is_empty() {
                    break;
                }
                return Ok(Next::Ended);
            };
            let at_ns = self.pass.at_ns.saturating_add(time_ns.saturating_sub(self.pass.base_ns));
            match self.speed.due_ns(start_ns, at_ns) {
                Some(due_ns) if due_ns > now_ns => return Ok(Next::At(due_ns)),
                _ => {}
            }
            if batch.len() >= SOURCE_BATCH_BYTES_MAX {
                break;
            }
            self.latest_at_ns = self.latest_at_ns.max(at_ns);
            self.has_played = true;
            self.take(nth, time_ns, batch)?;
        }
        Ok(if self.speed == Speed::Max { Next::Paced } else { Next::Now })
    }

    fn streams(&self) -> Vec<Stream> {
        let streams = self.tracks.iter();
        streams.map(|track| Stream { name: track.name().to_owned(), state: track.state() }).collect()
    }

    fn report(&self) -> Report {
        self.report
    }
}
