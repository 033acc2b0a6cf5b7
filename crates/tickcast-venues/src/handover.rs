//! The change from one connection to the next while both are open, without loss and without duplicates.
//!
//! A venue ends a connection after a day, or announces that it will. The next one is opened before that, with the
//! [`successor`](crate::Codec::successor) of the codec, and for a while the records of both come here:
//!
//! * **Quotes and statistics** are the next connection's from its first one on: the newest value counts.
//! * **A book** is the next connection's from its snapshot on, which replaces the former book whole. It is valid all the
//!   time.
//! * **Trades** are the old connection's until both are known to be at the same trade. Either may be ahead. If the old one
//!   has published the first trade of the next one already, the next one repeats the others up to the newest, and these are
//!   left out. If it has not, the trades of the next one are held until it has.
//! * Definitions, Status records and other Gaps are the old connection's until the end. Where exponents change meanwhile,
//!   the caller abandons the change, and begins it again later: the records of two scales must not mix.
//!
//! Trades are compared by their ids, in which no order is needed. If the old connection ends before the two have met, the
//! held trades follow what was published, behind a Gap where the venue's numbers show a hole.
//! Cost: some memory for each trade of the overlap; nothing when there is none.

use std::collections::{HashMap, VecDeque};

use tickcast_protocol::record::{self, Channel, Gap, RecordHeader, Trade, flags};
use tickcast_protocol::{BookAction, RecordKind, Sequence};

/// Trades of an instrument that are held, or remembered by id. One that is so far ahead of the other has lost it.
pub const TRADES_MAX: usize = 2048;

/// A change that is under way.
#[derive(Debug, Default)]
pub struct Handover {
    instruments: HashMap<u32, Change>,
    published: u64,
    trades_lost: u64,
}

/// What the next connection has taken over of an instrument.
#[derive(Debug, Default)]
struct Change {
    has_quote: bool,
    has_ticker: bool,
    has_book: bool,
    has_trades: bool,
    /// Ids of the trades that the old connection has published meanwhile, the newest last.
    of_old: VecDeque<u64>,
    /// Trades that it has published meanwhile.
    old_count: u64,
    /// Trades and Gaps of the next connection.
    held: VecDeque<Held>,
}

#[derive(Debug)]
enum Held {
    Trade { id: u64, record: Vec<u8> },
    Gap(Gap),
}

impl Handover {
    /// A change before the first record of the next connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes records of the old connection, and appends those that are published.
    pub fn take_old(&mut self, records: &[u8], out: &mut Vec<u8>) {
        for (header, bytes) in record::records(records) {
            let change = self.instruments.entry(header.instrument).or_default();
            let is_taken_over = match header.known_kind() {
                Some(RecordKind::Quote) => change.has_quote,
                Some(RecordKind::Ticker) => change.has_ticker,
                Some(RecordKind::Book) => change.has_book,
                Some(RecordKind::Trade) => change.has_trades,
                Some(RecordKind::Gap) => change.has_trades && is_of_trades(bytes),
                _ => false,
            };
            if is_taken_over {
                continue;
            }
            out.extend_from_slice(bytes);
            self.published += 1;
            self.trades_lost += lost_in(&header, bytes);
            if let Some(trade) = trade_of(&header, bytes) {
                change.note_old(trade.trade_id);
                if change.is_met_by(trade.trade_id) {
                    self.published += change.take_over(out);
                }
            }
        }
    }

    /// Takes records of the next connection, and appends those that are published.
    pub fn take_next(&mut self, records: &[u8], out: &mut Vec<u8>) {
        for (header, bytes) in record::records(records) {
            let change = self.instruments.entry(header.instrument).or_default();
            let is_published = match header.known_kind() {
                Some(RecordKind::Quote) => {
                    change.has_quote = true;
                    true
                }
                Some(RecordKind::Ticker) => {
                    change.has_ticker = true;
                    true
                }
                Some(RecordKind::Book) => {
                    change.has_book |= is_whole_book(&header, bytes);
                    change.has_book
                }
                Some(RecordKind::Trade) => match trade_of(&header, bytes) {
                    Some(trade) => change.is_new(trade.trade_id, bytes),
                    None => false,
                },
                Some(RecordKind::Gap) if is_of_trades(bytes) => {
                    if !change.has_trades {
                        change.held.extend(Gap::read(bytes).map(Held::Gap));
                    }
                    change.has_trades
                }
                _ => false,
            };
            if is_published {
                out.extend_from_slice(bytes);
                self.published += 1;
                self.trades_lost += lost_in(&header, bytes);
            }
            if change.held.len() > TRADES_MAX {
                let (published, lost) = change.give_up(out);
                self.published += published;
                self.trades_lost += lost;
            }
        }
    }

    /// True while trades are held: the old connection has not published the first of them yet.
    pub fn holds_trades(&self) -> bool {
        self.instruments.values().any(|change| change.held.iter().any(|held| matches!(held, Held::Trade { .. })))
    }

    /// Ends the change, with the old connection: appends the trades that are held. What comes from the next connection
    /// from now on is published as it is.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        for change in self.instruments.values_mut() {
            let (published, lost) = change.give_up(out);
            self.published += published;
            self.trades_lost += lost;
        }
    }

    /// Records that were published since the last call, and the trades that their Gaps say are missing.
    pub fn take_counts(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.published), std::mem::take(&mut self.trades_lost))
    }
}

impl Change {
    fn note_old(&mut self, id: u64) {
        self.old_count += 1;
        self.of_old.push_back(id);
        if self.of_old.len() > TRADES_MAX {
            self.of_old.pop_front();
        }
    }

    /// True if the old connection has published the first trade that is held.
    fn is_met_by(&self, id: u64) -> bool {
        let first = self.held.iter().find_map(|held| match held {
            Held::Trade { id, .. } => Some(*id),
            Held::Gap(_) => None,
        });
        first == Some(id)
    }

    /// Takes a trade of the next connection. True if it is to be published now.
    fn is_new(&mut self, id: u64, record: &[u8]) -> bool {
        let is_known = self.of_old.contains(&id);
        if !self.has_trades && is_known {
            // The old connection is ahead: a hole that the next one saw was before its first trade.
            (self.has_trades, self.held) = (true, VecDeque::new());
        } else if !self.has_trades {
            self.held.push_back(Held::Trade { id, record: record.to_vec() });
        }
        self.has_trades && !is_known
    }

    /// The next connection takes over, whose first trade is the newest of the old one. Returns the records that follow it.
    fn take_over(&mut self, out: &mut Vec<u8>) -> u64 {
        self.has_trades = true;
        let mut published = 0;
        let is_gap = |held: &Held| matches!(held, Held::Gap(_));
        for held in self.held.drain(..).skip_while(is_gap) {
            match held {
                Held::Trade { id, .. } if self.of_old.contains(&id) => continue,
                Held::Trade { record, .. } => out.extend_from_slice(&record),
                Held::Gap(gap) => gap.encode(0, out),
            }
            published += 1;
        }
        published
    }

    /// The next connection takes over without having met the old one. Returns the records that follow, and the trades in
    /// their Gaps. The first Gap counts from the start of the change: what the old connection has published since then is
    /// not missing.
    fn give_up(&mut self, out: &mut Vec<u8>) -> (u64, u64) {
        self.has_trades = true;
        let (mut published, mut lost) = (0, 0);
        let mut known = std::mem::take(&mut self.old_count);
        for held in self.held.drain(..) {
            match held {
                Held::Trade { id, .. } if self.of_old.contains(&id) => continue,
                Held::Trade { record, .. } => out.extend_from_slice(&record),
                Held::Gap(gap) => {
                    let missing = gap.missing().saturating_sub(std::mem::take(&mut known));
                    if missing == 0 {
                        continue;
                    }
                    lost += missing;
                    Gap { from_sequence: Sequence::new(1), to_sequence: Sequence::new(missing), ..gap }.encode(0, out);
                }
            }
            published += 1;
        }
        (published, lost)
    }
}

fn trade_of(header: &RecordHeader, bytes: &[u8]) -> Option<Trade> {
    (header.known_kind() == Some(RecordKind::Trade)).then(|| Trade::read(bytes)).flatten()
}

/// Trades that a Gap says are missing.
fn lost_in(header: &RecordHeader, bytes: &[u8]) -> u64 {
    let gap = (header.known_kind() == Some(RecordKind::Gap)).then(|| Gap::read(bytes)).flatten();
    gap.filter(|gap| gap.channel == Channel::Trade).map_or(0, |gap| gap.missing())
}

fn is_of_trades(bytes: &[u8]) -> bool {
    Gap::read(bytes).is_some_and(|gap| gap.channel == Channel::Trade)
}

/// True for a snapshot, but for the empty one that voids a book.
fn is_whole_book(header: &RecordHeader, bytes: &[u8]) -> bool {
    let is_flagged = header.flags & flags::MAYBE_BAD_BOOK != 0;
    record::read_book(bytes)
        .is_some_and(|(action, levels)| action == BookAction::Snapshot && !(is_flagged && levels.len() == 0))
}

#[cfg(test)]
mod tests;
