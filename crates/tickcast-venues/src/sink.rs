//! Output of the codecs: whole wire records, counters, and events for the program that holds the connection.

use tickcast_protocol::Channel;

use crate::error::TimeFault;

/// Where a codec puts its output.
pub struct Sink<'a> {
    /// Whole wire records. Sequences and `ts_recv` are 0: the sequencer sets them.
    pub batch: &'a mut Vec<u8>,
    /// The counters of the source.
    pub report: &'a mut Report,
    /// The id of the next new instrument, from 1.
    pub next_id: &'a mut u32,
    /// What else happened, in order.
    pub events: &'a mut Vec<Event>,
}

impl Sink<'_> {
    /// Appends a record and counts it.
    pub(crate) fn put(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        encode(self.batch);
        self.report.records += 1;
    }

    /// Counts a message whose records have no time, and says why.
    pub(crate) fn note_time(&mut self, fault: Option<TimeFault>) {
        if let Some(fault) = fault {
            self.report.untimed += 1;
            self.events.push(Event::Untimed(fault));
        }
    }

    /// Asks for a text to be sent to the venue.
    pub(crate) fn send(&mut self, text: String) {
        self.events.push(Event::Send(text));
    }
}

/// What a codec tells the program that holds its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// This text is to be sent to the venue.
    Send(String),
    /// The venue has acknowledged a subscription.
    Subscribed(StreamName),
    /// The venue has refused a subscription, or another request.
    Refused {
        /// The stream, if the answer says which.
        stream: Option<StreamName>,
        /// The venue's words.
        reason: String,
    },
    /// A subscription was acknowledged, and nothing has come on it for this long.
    Silent {
        /// The stream.
        stream: StreamName,
        /// For how long, ns.
        silent_ns: u64,
    },
    /// A book is void until its next snapshot.
    BookDropped {
        /// The name of the instrument in the directory.
        instrument: String,
        /// Why.
        cause: BookFault,
    },
    /// The venue announces something about the connection or itself.
    Notice(Notice),
    /// The records of a message have no time, as it cannot be read.
    Untimed(TimeFault),
}

/// One channel of one instrument.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamName {
    /// The venue's symbol.
    pub symbol: String,
    /// The channel.
    pub channel: Channel,
}

/// Why a book was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BookFault {
    /// An update is missing.
    #[error("update {got} came where one after {after} was expected")]
    Gap {
        /// The last id that was applied.
        after: u64,
        /// The first id of the update that came.
        got: u64,
    },
    /// The venue's checksum is another than that of the book.
    #[error("the checksum of the book is {computed}, that of the venue {stated}")]
    Checksum {
        /// Of the book here.
        computed: u32,
        /// Of the venue.
        stated: u32,
    },
    /// A message of the book could not be read, so the changes in it are missing.
    #[error("a message of the book could not be read")]
    Unreadable,
    /// The book has more levels than are kept to verify it.
    #[error("the book has more than {0} levels on a side")]
    TooLarge(usize),
}

/// What a venue announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The venue will close this connection: the next one is to be opened now.
    Closing {
        /// The venue's words.
        reason: String,
    },
    /// The venue's engine is in this state; `is_trading` is false in maintenance.
    State {
        /// The venue's word for it.
        state: String,
        /// Whether orders are matched.
        is_trading: bool,
    },
    /// The venue reports an error that belongs to no stream.
    Error {
        /// The venue's words.
        reason: String,
    },
}

/// The counters of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Records published.
    pub records: u64,
    /// Messages that could not be read: counted, logged with file and line, skipped.
    pub malformed: u64,
    /// Messages of types that are not market data, skipped on purpose.
    pub ignored: u64,
    /// Messages whose time could not be read: their records have none.
    pub untimed: u64,
    /// Books dropped for a sequence gap.
    pub book_gaps: u64,
    /// Books dropped for a checksum that differs from the venue's.
    pub checksum_errors: u64,
    /// Trades lost before they came here, by the holes in the venue's ids: each is part of a Gap.
    pub trades_lost: u64,
    /// Levels of books left out, as no exponents represent them: their books are flagged.
    pub levels_lost: u64,
    /// Changes of an instrument's exponents.
    pub rescaled: u64,
    /// Messages that came once more, and were left out.
    pub duplicates: u64,
    /// Messages lost before they came here, by the gaps that a source has reported. Codecs count none.
    pub messages_lost: u64,
}

impl Report {
    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.malformed += other.malformed;
        self.ignored += other.ignored;
        self.untimed += other.untimed;
        self.book_gaps += other.book_gaps;
        self.checksum_errors += other.checksum_errors;
        self.trades_lost += other.trades_lost;
        self.levels_lost += other.levels_lost;
        self.rescaled += other.rescaled;
        self.duplicates += other.duplicates;
        self.messages_lost += other.messages_lost;
    }

    /// The sum of two reports, of a source before and after it was opened again.
    #[must_use]
    pub fn plus(&self, later: &Self) -> Self {
        let mut sum = *self;
        sum.add(later);
        sum
    }

    /// What was lost before the sequencer, by cause.
    pub fn losses(&self) -> [(&'static str, u64); 7] {
        [
            ("malformed", self.malformed),
            ("untimed", self.untimed),
            ("book_gaps", self.book_gaps),
            ("checksum_errors", self.checksum_errors),
            ("trades_lost", self.trades_lost),
            ("levels_lost", self.levels_lost),
            ("messages_lost", self.messages_lost),
        ]
    }
}
