//! Recordings: a file with any content, messages of a venue, a packet log, DBN or CSV, plain or gzip, is refused when it is
//! opened or replayed to its end, and the sequencer accepts every record of the replay.
//!
//! Input: a byte for the parameters of the replay and for compression, then the file.

use std::collections::HashMap;
use std::io::{Seek, Write};
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::NamedTempFile;
use tickcast::ingest::feed::replay::{self, Params, Speed};
use tickcast::ingest::source::{self, Next, Source, SourceError, Times};
use tickcast::ring::{Batch, ring};
use tickcast::sequencer::Sequencer;
use tickcast_protocol::record::{self, records};
use tickcast_protocol::{Instrument, RecordKind};
use tickcast_venues::{NameStyle, Venue};

use super::Script;

const NOW_NS: u64 = 1_763_700_000_000_000_000;
const RING_BYTES: usize = 1 << 20;
const INSTRUMENTS_MAX: usize = 10_000;
/// A repeated recording has no end.
const POLLS_MAX: usize = 3;
const FILE_BYTES_MAX: usize = 1 << 16;

/// One input.
pub fn run(data: &[u8]) {
    let mut script = Script::new(&data[..data.len().min(FILE_BYTES_MAX)]);
    let shape = script.byte();
    let file = file_of(script.rest, shape & 1 == 1);
    let params = Params {
        files: vec![PathBuf::from(file.path())],
        speed: if shape & 2 == 2 { Speed::Times(1000.0) } else { Speed::Max },
        repeat: shape & 4 == 4,
        copies: 1 + u32::from(shape >> 3 & 1),
        // Half of the inputs are of a given venue, the others are of the one that their messages show.
        venue: (shape & 16 == 16).then(|| Venue::ALL[1 + usize::from(shape >> 5)]),
        names: if shape & 8 == 8 { NameStyle::Common } else { NameStyle::Venue },
        from_ns: None,
        to_ns: None,
    };
    if let Ok(replay) = replay::open(&params) {
        play(replay);
    }
}

fn file_of(text: &[u8], compress: bool) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("room for a small file");
    if compress {
        let mut gzip = GzEncoder::new(&mut file, Compression::fast());
        gzip.write_all(text).expect("room for a small file");
        gzip.finish().expect("room for a small file");
    } else {
        file.write_all(text).expect("room for a small file");
    }
    file.rewind().expect("a file that was just written");
    file
}

fn play(mut replay: Box<dyn Source>) {
    let (writer, mut reader) = ring(RING_BYTES);
    let mut sequencer = Sequencer::new(vec![writer], INSTRUMENTS_MAX);
    let (mut now_ns, mut defined, mut counted) = (NOW_NS, HashMap::new(), 0);
    let mut read = Batch::default();
    for _ in 0..POLLS_MAX {
        let mut received = source::Batch::default();
        let next = match replay.receive(Times::at(now_ns), &mut received) {
            Err(SourceError::Gap(_)) => Next::Now,
            next => next.expect("no other error"),
        };
        let mut batch = received.records;
        counted += check(&batch, &mut defined);
        assert_eq!(replay.report().records, counted);
        let outcomes = sequencer.accept(0, &mut batch, now_ns);
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        assert_eq!(sequencer.counters().undefined, 0);
        read.clear();
        // An overrun is no error here: a poll may return more than this ring holds.
        let _ = reader.read(RING_BYTES, &mut read);
        match next {
            Next::At(due_ns) => {
                assert!(due_ns > now_ns, "due records were returned");
                now_ns = due_ns;
            }
            Next::Now | Next::Paced => {}
            Next::Ended => {
                assert!(batch.is_empty(), "no records come with the end");
                return;
            }
        }
    }
}

/// Checks that the records are whole and of instruments defined before; returns their number.
pub(super) fn check(batch: &[u8], defined: &mut HashMap<u32, Instrument>) -> u64 {
    let (mut count, mut bytes) = (0, 0);
    for (header, record) in records(batch) {
        if RecordKind::from_wire(header.kind) == Some(RecordKind::Definition) {
            let instrument = record::read_definition(record).expect("a definition");
            let before = defined.insert(instrument.id, instrument.clone());
            assert_ne!(before.as_ref(), Some(&instrument), "it is defined again without a change");
        } else {
            assert_eq!(record::check(record), Ok(header));
            assert!(
                defined.contains_key(&header.instrument),
                "a record of {} before its definition",
                header.instrument
            );
        }
        count += 1;
        bytes += record.len();
    }
    assert_eq!(bytes, batch.len(), "nothing is left over");
    count
}
