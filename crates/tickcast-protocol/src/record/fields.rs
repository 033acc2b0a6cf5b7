//! Sets of fields of quotes, trades and tickers, for clients that may see some of them only.
//!
//! A field that is hidden has the value "not present". Books and raw records have no such fields: a level without its size
//! would be a removed level.

use super::PRICE_NONE;
use super::header::{HEADER_BYTES, kind_of};
use super::kind::Channel;

/// By channel, the names of the values behind the header, in their order.
const QUOTE: [&str; 4] = ["bid_px", "bid_sz", "ask_px", "ask_sz"];
const TRADE: [&str; 2] = ["px", "sz"];
const TICKER: [&str; 8] = ["last_px", "open_px", "high_px", "low_px", "volume", "turnover", "bid_px", "ask_px"];

/// A set of fields: a bit for each of a channel.
///
/// ```
/// use tickcast_protocol::record::{Channel, FieldSet, PRICE_NONE, Quote, RecordHeader, RecordKind};
/// let mut record = Vec::new();
/// let header = RecordHeader::of_feed(RecordKind::Quote, 1, 0);
/// Quote { bid_px: 1, bid_sz: 2, ask_px: 3, ask_sz: 4 }.encode(&header, &mut record);
/// FieldSet::named(Channel::Quote, "bid_sz").unwrap().hide(&mut record);
/// assert_eq!(Quote::read(&record), Some(Quote { bid_px: 1, bid_sz: PRICE_NONE, ask_px: 3, ask_sz: 4 }));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FieldSet(u16);

impl FieldSet {
    /// No fields.
    pub const NONE: Self = Self(0);

    /// The names of the fields of a channel; none of books and raw records.
    pub fn names(channel: Channel) -> &'static [&'static str] {
        fields(channel).0
    }

    /// One field of a channel.
    pub fn named(channel: Channel, name: &str) -> Option<Self> {
        let (names, first) = fields(channel);
        names.iter().position(|known| *known == name).map(|nth| Self(1 << (first + nth)))
    }

    /// The fields of both sets.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those of this channel.
    #[must_use]
    pub fn of(self, channel: Channel) -> Self {
        let (names, first) = fields(channel);
        Self(self.0 & (((1 << names.len()) - 1) << first))
    }

    /// True if both sets have a field in common.
    pub fn has_any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// True if there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many there are.
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// The set as a number, the same for equal sets only.
    pub fn bits(self) -> u16 {
        self.0
    }

    /// Makes these fields of a record "not present". Other records, and one that is cut short, stay as they are.
    pub fn hide(self, record: &mut [u8]) {
        let Some(channel) = kind_of(record).and_then(|kind| kind.channel()) else { return };
        let (names, first) = fields(channel);
        for nth in (0..names.len()).filter(|nth| self.0 & (1 << (first + nth)) != 0) {
            let at = HEADER_BYTES + 8 * nth;
            if let Some(value) = record.get_mut(at..at + 8) {
                value.copy_from_slice(&PRICE_NONE.to_le_bytes());
            }
        }
    }
}

/// The names of a channel's fields, and the bit of the first.
fn fields(channel: Channel) -> (&'static [&'static str], usize) {
    match channel {
        Channel::Quote => (&QUOTE, 0),
        Channel::Trade => (&TRADE, QUOTE.len()),
        Channel::Ticker => (&TICKER, QUOTE.len() + TRADE.len()),
        Channel::Book | Channel::Raw => (&[], 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Quote, RecordHeader, Side, Ticker, Trade};

    fn header(channel: Channel) -> RecordHeader {
        RecordHeader::of_feed(channel.kind(), 7, 0)
    }

    /// A record with the values 1, 2, … in all fields that can be hidden.
    fn record(channel: Channel) -> Vec<u8> {
        let (mut out, header) = (Vec::new(), header(channel));
        match channel {
            Channel::Quote => Quote { bid_px: 1, bid_sz: 2, ask_px: 3, ask_sz: 4 }.encode(&header, &mut out),
            Channel::Trade => Trade { px: 1, sz: 2, trade_id: 9, side: Side::Buy }.encode(&header, &mut out),
            _ => {
                let (last_px, open_px, high_px, low_px, volume, turnover, bid_px, ask_px) = (1, 2, 3, 4, 5, 6, 7, 8);
                Ticker { last_px, open_px, high_px, low_px, volume, turnover, bid_px, ask_px }
                    .encode(&header, &mut out);
            }
        }
        out
    }

    #[test]
    fn each_field_alone_is_hidden_by_its_name() {
        let mut all = FieldSet::NONE;
        for channel in [Channel::Quote, Channel::Trade, Channel::Ticker] {
            for (nth, name) in FieldSet::names(channel).iter().enumerate() {
                let set = FieldSet::named(channel, name).expect(name);
                assert!(!all.has_any(set) && set.len() == 1, "{name}");
                all = all.and(set);
                assert_eq!(set.of(channel), set);
                let mut expected = record(channel);
                let at = 32 + 8 * nth;
                assert_eq!(expected[at..at + 8], (nth as i64 + 1).to_le_bytes(), "{name}");
                expected[at..at + 8].copy_from_slice(&i64::MIN.to_le_bytes());
                let mut hidden = record(channel);
                set.hide(&mut hidden);
                assert_eq!(hidden, expected, "{name}");
            }
        }
        assert_eq!(all.len(), 14);
        assert_eq!(all.of(Channel::Trade).len(), 2);
        assert_eq!(FieldSet::named(Channel::Quote, "px"), None);
        assert_eq!(FieldSet::named(Channel::Book, "sz"), None);
    }

    #[test]
    fn other_records_and_cut_ones_stay_as_they_are() {
        let all = Channel::ALL
            .into_iter()
            .flat_map(|channel| FieldSet::names(channel).iter().filter_map(move |name| FieldSet::named(channel, name)));
        let all = all.fold(FieldSet::NONE, FieldSet::and);
        let mut book = Vec::new();
        crate::record::encode_book(&header(Channel::Book), crate::BookAction::Delta, std::iter::empty(), &mut book);
        let before = book.clone();
        all.hide(&mut book);
        assert_eq!(book, before);
        for bytes in 0..40 {
            let mut cut = record(Channel::Quote)[..bytes].to_vec();
            all.hide(&mut cut);
            assert_eq!(cut, record(Channel::Quote)[..bytes]);
        }
    }
}
