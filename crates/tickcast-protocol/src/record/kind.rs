//! The kinds of records, and the channels that carry them.

/// What a record is; the wire's `type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum RecordKind {
    /// Best bid and offer.
    Quote = 1,
    /// One trade.
    Trade = 2,
    /// 24 h statistics.
    Ticker = 3,
    /// Levels of a book.
    Book = 4,
    /// Opaque bytes.
    Raw = 5,
    /// Announces an instrument.
    Definition = 16,
    /// Nothing to report.
    Heartbeat = 17,
    /// Records of a log channel are missing.
    Gap = 18,
    /// The state of a feed or an instrument changed.
    Status = 19,
}

impl RecordKind {
    /// The kind with this wire number; `None` for one that this version does not know, which readers skip.
    #[inline]
    pub fn from_wire(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Quote,
            2 => Self::Trade,
            3 => Self::Ticker,
            4 => Self::Book,
            5 => Self::Raw,
            16 => Self::Definition,
            17 => Self::Heartbeat,
            18 => Self::Gap,
            19 => Self::Status,
            _ => return None,
        })
    }

    /// The wire number.
    #[inline]
    pub const fn to_wire(self) -> u8 {
        self as u8
    }

    /// The channel that carries this kind; `None` for kinds without a subscription.
    #[inline]
    pub fn channel(self) -> Option<Channel> {
        Some(match self {
            Self::Quote => Channel::Quote,
            Self::Trade => Channel::Trade,
            Self::Ticker => Channel::Ticker,
            Self::Book => Channel::Book,
            Self::Raw => Channel::Raw,
            Self::Definition | Self::Heartbeat | Self::Gap | Self::Status => return None,
        })
    }
}

/// What a client subscribes to for an instrument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Channel {
    /// Best bid and offer: state, the newest wins.
    Quote = 0,
    /// Trades: a log, never conflated.
    Trade = 1,
    /// 24 h statistics: state.
    Ticker = 2,
    /// Levels: state made of deltas.
    Book = 3,
    /// Opaque bytes: a log, never conflated.
    Raw = 4,
}

impl Channel {
    /// How many channels there are.
    pub const COUNT: usize = 5;
    /// Every channel, in wire order.
    pub const ALL: [Self; Self::COUNT] = [Self::Quote, Self::Trade, Self::Ticker, Self::Book, Self::Raw];

    /// Its name in requests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quote => "quote",
            Self::Trade => "trade",
            Self::Ticker => "ticker",
            Self::Book => "book",
            Self::Raw => "raw",
        }
    }

    /// The channel with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|channel| channel.name() == name)
    }

    /// The kind of its records.
    pub fn kind(self) -> RecordKind {
        match self {
            Self::Quote => RecordKind::Quote,
            Self::Trade => RecordKind::Trade,
            Self::Ticker => RecordKind::Ticker,
            Self::Book => RecordKind::Book,
            Self::Raw => RecordKind::Raw,
        }
    }

    /// True for channels whose every record counts (trade, raw); false for state, where the newest wins.
    #[inline]
    pub fn is_log(self) -> bool {
        matches!(self, Self::Trade | Self::Raw)
    }
}
