//! Definitions: new instruments, changed ones, and the release of ended ones where the directory is full.
//!
//! What always holds:
//! * A definition is carried out, or refused with the reason; what a request defines, as a whole.
//! * An instrument of another owner is not defined, unless it has ended: then it is released, and the new owner gets the
//!   symbol under a new id.
//! * A symbol that looks like one of another owner is not defined ([`skeletons`](super::skeletons)).
//! * An id is not used again within the epoch. Subscribers of an instrument that is released get a Status `'R'`.
//! * Subscribers of an instrument that is changed get its new Definition, in order with its records.
//!
//! Cost: a hash look-up a definition. A change of exponents copies the book.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::owners::SourceIdentity;
use super::{Sequencer, SourceId};
use crate::last_value::is_rescaled;
use tickcast_protocol::record::{self, Channel, RecordHeader, flags};
use tickcast_protocol::{DefineError, FeedState, Instrument, Sequence};

/// Levels of books that are carried over to other exponents in one portion, but for the last book.
const PORTION_LEVELS: u64 = 2_000;

/// What carrying out a definition takes.
enum Plan {
    New,
    Same(u32),
    Change(u32),
    /// The instrument of another owner has ended: it is released, and the symbol is defined anew.
    TakeOver(u32),
}

/// What the definitions of a request need.
#[derive(Clone, Copy, Debug, Default)]
struct Demand {
    /// New instruments.
    new: usize,
    /// Ended ones that are defined again: these make no room.
    kept: usize,
}

/// The definitions of a request on their way: all are checked before the first is carried out. This goes in portions,
/// between which records are sequenced, but no definitions of other requests.
#[derive(Debug)]
pub struct Defining {
    source: SourceId,
    definitions: Vec<Instrument>,
    /// A symbol that comes once more with the same definition.
    is_repeated: Vec<bool>,
    /// The first one that contradicts one before.
    contradiction: Option<usize>,
    is_known: Vec<bool>,
    demand: Demand,
    stage: Stage,
    /// The next one in this stage.
    at: usize,
    ids: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Check,
    /// The known ones first: one that has ended must not be released for a new one of the same request.
    Known,
    New,
    Done,
}

impl Defining {
    /// Reads a batch of Definition records.
    pub fn new(source: SourceId, batch: &[u8]) -> Self {
        let definitions: Vec<Instrument> =
            record::records(batch).filter_map(|(_, bytes)| record::read_definition(bytes)).collect();
        let mut named: HashMap<&str, &Instrument, RandomState> = HashMap::default();
        let mut is_repeated = vec![false; definitions.len()];
        let contradiction = definitions.iter().enumerate().position(|(at, instrument)| {
            let before = named.insert(&instrument.symbol, instrument);
            is_repeated[at] = before.is_some();
            before.is_some_and(|before| *before != Instrument { id: before.id, ..instrument.clone() })
        });
        let (is_known, ids) = (vec![false; definitions.len()], vec![0; definitions.len()]);
        let (stage, at) = (Stage::Check, 0);
        Self { source, is_repeated, contradiction, is_known, demand: Demand::default(), stage, at, ids, definitions }
    }

    /// The ids, once all are defined.
    pub fn into_ids(self) -> Vec<u32> {
        self.ids
    }

    /// The place of the next definition in this stage; `None` at its end, where the next stage begins.
    fn next(&mut self) -> Option<usize> {
        let at = self.at;
        if at < self.definitions.len() {
            self.at += 1;
            return Some(at);
        }
        self.stage = match self.stage {
            Stage::Check => Stage::Known,
            Stage::Known => Stage::New,
            Stage::New | Stage::Done => Stage::Done,
        };
        self.at = 0;
        None
    }
}

impl Sequencer {
    /// Carries out all definitions of a batch of Definition records, or none. Returns the ids, or which one was refused
    /// and why.
    pub fn define_all(
        &mut self,
        source: SourceId,
        batch: &[u8],
        now_ns: u64,
    ) -> Result<Vec<u32>, (usize, DefineError)> {
        let mut defining = Defining::new(source, batch);
        while !self.define_portion(&mut defining, usize::MAX, now_ns)? {}
        Ok(defining.into_ids())
    }

    /// Goes on with the definitions of a request: checks this many, or carries them out. True if all are defined. Until
    /// then, no other definitions may come.
    ///
    /// # Errors
    /// Which one was refused, and why. Then none was carried out.
    pub fn define_portion(
        &mut self,
        defining: &mut Defining,
        count: usize,
        now_ns: u64,
    ) -> Result<bool, (usize, DefineError)> {
        let levels_before = self.rescaled_levels;
        for _ in 0..count {
            if defining.stage == Stage::Done || self.rescaled_levels - levels_before > PORTION_LEVELS {
                break;
            }
            let stage = defining.stage;
            match defining.next() {
                Some(at) if stage == Stage::Check => {
                    self.check(defining, at)
                        .inspect_err(|_| self.counters.refused += 1)
                        .map_err(|error| (at, error))?;
                }
                Some(at) if defining.is_known[at] == (stage == Stage::Known) => {
                    let id = self.define(defining.source, &defining.definitions[at], now_ns);
                    defining.ids[at] = id.map_err(|error| (at, error))?;
                }
                Some(_) => {}
                None if stage == Stage::Check => self.note_activity(defining.source, now_ns),
                None => {}
            }
        }
        self.publish();
        Ok(defining.stage == Stage::Done)
    }

    /// Defines an instrument, whose id is the source's own. Returns the node's id.
    pub(super) fn define(
        &mut self,
        source: SourceId,
        instrument: &Instrument,
        now_ns: u64,
    ) -> Result<u32, DefineError> {
        let id = match self.plan(source, instrument) {
            Ok(Plan::New) => self.define_new(source, instrument, now_ns),
            Ok(Plan::TakeOver(id)) => {
                self.release(id, now_ns);
                self.define_new(source, instrument, now_ns)
            }
            Ok(Plan::Same(id)) => Ok(id),
            Ok(Plan::Change(id)) => {
                self.redefine(source, &Instrument { id, ..instrument.clone() }, now_ns);
                Ok(id)
            }
            Err(error) => Err(error),
        };
        let id = id.inspect_err(|_| self.counters.refused += 1)?;
        if self.values.status(id).state == FeedState::Ended {
            self.sources.ended.remove(id);
        }
        self.sources.define(source, instrument.id, id);
        self.push_feed_state(FeedState::Stale, now_ns);
        Ok(id)
    }

    fn plan(&self, source: SourceId, instrument: &Instrument) -> Result<Plan, DefineError> {
        let Some(known) = self.directory.find(&instrument.symbol) else {
            return self.check_alike(source, &instrument.symbol).map(|()| Plan::New);
        };
        if self.owners.of(known.id) != self.sources.identity(source).owner {
            return match self.values.status(known.id).state {
                FeedState::Ended => Ok(Plan::TakeOver(known.id)),
                _ => Err(DefineError::Foreign { symbol: known.symbol.clone() }),
            };
        }
        if **known == (Instrument { id: known.id, ..instrument.clone() }) {
            Ok(Plan::Same(known.id))
        } else if self.sources.is_of_another(source, known.id) {
            Err(DefineError::Taken { known: known.clone() })
        } else {
            Ok(Plan::Change(known.id))
        }
    }

    /// Whether a new symbol differs visibly from those of other owners.
    fn check_alike(&self, source: SourceId, symbol: &str) -> Result<(), DefineError> {
        let owner = self.sources.identity(source).owner;
        let of_others = self.skeletons.alike(symbol).iter().filter(|id| self.owners.of(**id) != owner);
        match of_others.filter_map(|id| self.directory.get(*id)).next() {
            Some(known) => Err(DefineError::Confusable { symbol: symbol.to_owned(), known: known.symbol.clone() }),
            None => Ok(()),
        }
    }

    /// Whether one more definition of a request can be carried out, together with those before.
    fn check(&self, defining: &mut Defining, at: usize) -> Result<(), DefineError> {
        let (source, instrument) = (defining.source, &defining.definitions[at]);
        if defining.contradiction == Some(at) {
            return Err(DefineError::Twice { symbol: instrument.symbol.clone() });
        }
        let plan = self.plan(source, instrument)?;
        defining.is_known[at] = !matches!(plan, Plan::New);
        if defining.is_repeated[at] {
            return Ok(());
        }
        match plan {
            Plan::New | Plan::TakeOver(_) => defining.demand.new += 1,
            Plan::Same(id) | Plan::Change(id) => defining.demand.kept += usize::from(self.sources.ended.contains(id)),
        }
        self.check_room(source, defining.demand)
    }

    /// Whether the directory and the quota of the owner have room for what a request needs up to here.
    fn check_room(&self, source: SourceId, Demand { new, kept }: Demand) -> Result<(), DefineError> {
        let SourceIdentity { owner, limits, .. } = self.sources.identity(source);
        let ended = &self.sources.ended;
        let exceeds = |held: usize, max: usize, ended: usize| {
            let held = held + new;
            held > max && held > max.saturating_add(ended).saturating_sub(kept)
        };
        if exceeds(self.directory.defined(), self.instruments_max, ended.len()) {
            return Err(DefineError::Full { max: self.instruments_max });
        }
        if new > 0 && exceeds(self.owners.instruments(owner), limits.instruments_max, ended.len_of(owner)) {
            return Err(DefineError::Quota { max: limits.instruments_max });
        }
        if self.owners.ids(owner).saturating_add(new as u64) > limits.ids_max {
            return Err(DefineError::Ids { max: limits.ids_max });
        }
        Ok(())
    }

    fn define_new(&mut self, source: SourceId, instrument: &Instrument, now_ns: u64) -> Result<u32, DefineError> {
        self.check_room(source, Demand { new: 1, kept: 0 })?;
        let SourceIdentity { owner, limits, .. } = self.sources.identity(source);
        // An owner at its quota gives up one of its own.
        if self.owners.instruments(owner) >= limits.instruments_max
            && let Some(id) = self.sources.ended.first_of(owner)
        {
            self.release(id, now_ns);
        }
        if self.directory.defined() >= self.instruments_max
            && let Some(id) = self.sources.ended.first()
        {
            self.release(id, now_ns);
        }
        let id = self.directory.add(instrument);
        self.owners.add(id, owner);
        self.skeletons.add(&instrument.symbol, id);
        self.values.add(id);
        self.write_definition(&Instrument { id, ..instrument.clone() }, now_ns);
        Ok(id)
    }

    /// Releases an instrument that has ended.
    fn release(&mut self, id: u32, now_ns: u64) {
        self.sources.ended.remove(id);
        self.push_status(id, FeedState::Released, now_ns);
        if let Some(released) = self.directory.release(id) {
            self.skeletons.remove(&released.symbol, id);
        }
        self.owners.remove(id);
        self.values.release(id);
        self.sources.withdraw_instrument(id, None);
        self.counters.released += 1;
        if let Some(bars_ring) = &mut self.bars_ring {
            self.scratch.clear();
            self.values.status(id).push(id, 0, &mut self.scratch);
            bars_ring.push(&self.scratch);
        }
    }

    /// Carries out another definition of a known instrument.
    fn redefine(&mut self, source: SourceId, instrument: &Instrument, now_ns: u64) {
        let Some(before) = self.directory.replace(instrument.clone()) else { return };
        self.counters.redefined += 1;
        let is_taken = self.sources.withdraw_instrument(instrument.id, Some(source));
        let is_flagged = |sequencer: &Self| {
            let book = sequencer.values.row(instrument.id).and_then(|row| row.book());
            book.is_some_and(|book| book.flags & flags::MAYBE_BAD_BOOK != 0)
        };
        let was_flagged = is_flagged(self);
        if is_rescaled(&before, instrument) {
            let book = self.values.row(instrument.id).and_then(|row| row.book());
            self.rescaled_levels += book.map_or(0, |book| book.levels.len() as u64);
        }
        self.values.redefine(&before, instrument, ());
        self.write_definition(instrument, now_ns);
        if is_rescaled(&before, instrument) {
            if is_flagged(self) && !was_flagged {
                self.sources.note_suspect(instrument.id);
            }
            self.write_newest_values(instrument.id, now_ns);
        }
        if is_taken {
            // The book is that of a source that fell silent.
            self.suspect_book(instrument.id, now_ns);
        }
    }

    /// Writes the newest book, ticker and quote as new records. Those from before have other exponents.
    fn write_newest_values(&mut self, id: u32, now_ns: u64) {
        for channel in [Channel::Book, Channel::Ticker, Channel::Quote] {
            let mut bytes = Vec::new();
            if !self.values.row(id).is_some_and(|row| row.push(id, channel, 0, &mut bytes)) {
                continue;
            }
            record::patch_sequenced(&mut bytes, id, self.values.sequence(id, channel).next(), now_ns);
            let Some(header) = RecordHeader::read(&bytes) else { continue };
            self.values.apply(&header, channel, &bytes, ());
            self.write(&bytes);
        }
    }

    fn write_definition(&mut self, instrument: &Instrument, now_ns: u64) {
        let mut bytes = Vec::new();
        record::encode_definition(instrument, &mut bytes);
        record::patch_sequenced(&mut bytes, instrument.id, Sequence::NONE, now_ns);
        self.write(&bytes);
        if let Some(bars_ring) = &mut self.bars_ring {
            bars_ring.push(&bytes);
        }
    }
}
