//! DBN files of Databento as recordings, versions 1 to 3: trades, mbp-1, mbp-10, tbbo, bbo, mbo, definition and status.
//! Other records are skipped and counted. The time of a record is when Databento received it.

mod books;
mod frames;
mod translate;

use std::fs::File;
use std::io::BufRead;
use std::sync::Arc;

use dbn::decode::{DbnMetadata, DecodeRecordRef};
use dbn::{
    BboMsg, ErrorMsg, HasRType, InstrumentDefMsg, MboMsg, Mbp1Msg, Mbp10Msg, Record, RecordEnum, RecordRef, StatusMsg,
    SymbolMappingMsg, TradeMsg, VersionUpgradePolicy,
};

use self::frames::Frames;
use self::translate::Translator;
use super::recording::OpenError;
use super::track::{Output, Track};
use crate::ingest::source::{SourceGap, StreamState};
use crate::ingest::transport::file::{head_of, inflated};

/// What a file begins with, inflated: this, and the version.
pub const MAGIC: &[u8] = b"DBN";
/// Bytes of metadata that are read: a million symbols.
const METADATA_BYTES_MAX: u32 = 64 << 20;
const VERSIONS: std::ops::RangeInclusive<u8> = 1..=3;
/// Malformed records of a file that are logged one by one.
const LOGGED_MAX: u64 = 10;

type Decoder = dbn::decode::DbnDecoder<Frames<Box<dyn BufRead + Send>>>;

/// One file.
pub struct DbnTrack {
    name: String,
    file: Arc<File>,
    decoder: Decoder,
    translator: Translator,
    next: Option<(u64, Piece)>,
    last_ns: u64,
    records: u64,
    malformed: u64,
    state: StreamState,
}

/// What was read.
#[expect(clippy::large_enum_variant, reason = "there is one for each file")]
enum Piece {
    Record(RecordEnum),
    /// A record of another kind.
    Ignored,
    Malformed(String),
}

impl Piece {
    /// The record, if it is of a kind that is played. `RecordRef::as_enum` takes records that are too short for their kind,
    /// `try_get` does not.
    fn of(record: RecordRef<'_>) -> Self {
        fn read<T>(record: RecordRef<'_>, of: fn(T) -> RecordEnum) -> Option<Piece>
        where
            T: HasRType<Header = dbn::RecordHeader> + Clone,
        {
            record.has::<T>().then(|| match record.try_get::<T>() {
                Ok(message) => Piece::Record(of(message.clone())),
                Err(error) => Piece::Malformed(error.to_string()),
            })
        }
        read::<MboMsg>(record, RecordEnum::Mbo)
            .or_else(|| read::<TradeMsg>(record, RecordEnum::Trade))
            .or_else(|| read::<Mbp1Msg>(record, RecordEnum::Mbp1))
            .or_else(|| read::<Mbp10Msg>(record, RecordEnum::Mbp10))
            .or_else(|| read::<BboMsg>(record, RecordEnum::Bbo))
            .or_else(|| read::<InstrumentDefMsg>(record, RecordEnum::InstrumentDef))
            .or_else(|| read::<StatusMsg>(record, RecordEnum::Status))
            .or_else(|| read::<SymbolMappingMsg>(record, RecordEnum::SymbolMapping))
            .or_else(|| read::<ErrorMsg>(record, RecordEnum::Error))
            .unwrap_or(Self::Ignored)
    }
}

impl DbnTrack {
    /// Opens a file and reads its metadata.
    ///
    /// # Errors
    /// If it is of another version, or its metadata cannot be read.
    pub fn open(name: String, file: &Arc<File>) -> Result<Self, OpenError> {
        let decoder = decoder_of(&name, file)?;
        let translator = Translator::new(decoder.metadata());
        let state = StreamState::Live;
        let file = Arc::clone(file);
        let mut track =
            Self { name, file, decoder, translator, next: None, last_ns: 0, records: 0, malformed: 0, state };
        track.advance();
        Ok(track)
    }

    fn advance(&mut self) {
        self.next = match self.decoder.decode_record_ref() {
            Ok(Some(record)) => {
                let piece = Piece::of(record);
                if let Piece::Record(record) = &piece
                    && record.raw_index_ts() != dbn::UNDEF_TIMESTAMP
                {
                    self.last_ns = self.last_ns.max(record.raw_index_ts());
                }
                self.records += 1;
                Some((self.last_ns, piece))
            }
            Ok(None) => {
                self.state = StreamState::Ended;
                None
            }
            Err(error) => {
                let reason = format!("record {}: {error}", self.records + 1);
                tracing::warn!(file = self.name, "the file cannot be read further: {reason}");
                self.state = StreamState::Failed { reason };
                None
            }
        };
    }
}

fn decoder_of(name: &str, file: &Arc<File>) -> Result<Decoder, OpenError> {
    let refused = |problem: String| OpenError::NotARecording { path: name.to_owned(), problem };
    let head = head_of(file);
    match head.strip_prefix(MAGIC) {
        Some([version, length @ ..]) if VERSIONS.contains(version) => {
            let length = length.first_chunk().map_or(0, |length| u32::from_le_bytes(*length));
            if length > METADATA_BYTES_MAX {
                return Err(refused(format!("has {length} bytes of metadata: expected at most {METADATA_BYTES_MAX}")));
            }
        }
        Some([version, ..]) => return Err(refused(format!("is of DBN version {version}: expected 1 to 3"))),
        _ => return Err(refused("is cut short".to_owned())),
    }
    Decoder::with_upgrade_policy(Frames::new(inflated(file)), VersionUpgradePolicy::UpgradeToV3)
        .map_err(|error| refused(format!("its metadata cannot be read: {error}")))
}

impl Track for DbnTrack {
    fn begin(&mut self, _from_ns: Option<u64>) -> Result<(), OpenError> {
        if self.records > 1 || self.state != StreamState::Live {
            self.decoder = decoder_of(&self.name, &self.file)?;
            self.translator.restart();
            (self.last_ns, self.records, self.state) = (0, 0, StreamState::Live);
            self.advance();
        }
        Ok(())
    }

    fn next_ns(&mut self) -> Option<u64> {
        self.next.as_ref().map(|(time_ns, _)| *time_ns)
    }

    fn take(&mut self, output: &mut Output<'_>) -> Result<(), SourceGap> {
        let Some((time_ns, piece)) = self.next.take() else { return Ok(()) };
        let taken = match piece {
            Piece::Record(record) => self.translator.take(&record, time_ns, output),
            Piece::Malformed(problem) => Err(problem),
            Piece::Ignored => {
                output.report.ignored += 1;
                Ok(())
            }
        };
        if let Err(problem) = taken {
            output.report.malformed += 1;
            self.malformed += 1;
            if self.malformed <= LOGGED_MAX {
                tracing::warn!(file = self.name, record = self.records, "malformed record skipped: {problem}");
            }
        }
        self.advance();
        Ok(())
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn state(&self) -> StreamState {
        self.state.clone()
    }
}
