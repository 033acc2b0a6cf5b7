//! Records of DBN as records of tickcast.
//!
//! * **Names.** A symbol comes from the mappings of the file, for the time of the record; else from a definition; else it
//!   is the instrument's number. Where a dataset is not of one venue, each venue's instrument has a name of its own,
//!   `SYMBOL.VENUE`.
//! * **Prices** are integers of 10⁻⁹. The exponent of an instrument is that of its smallest price step, if a definition
//!   came before; a price that is not exact there makes it −9. An undefined price is an absent value.
//! * **Trade ids** are the venue's sequence numbers of the messages.

use std::collections::HashMap;

use dbn::{
    Action, BboMsg, InstrumentDefMsg, MboMsg, Mbp1Msg, Mbp10Msg, Metadata, Publisher, RecordEnum, Schema,
    SecurityUpdateAction, StatusAction, StatusMsg, SymbolMappingMsg, TradeMsg, TsSymbolMap, UNDEF_PRICE,
};
use foldhash::fast::RandomState;

use super::books::{BestLevels, Change, OrderBook, RawLevel};
use crate::ingest::feed::replay::track::Output;
use tickcast_protocol::record::{Level, PRICE_NONE, Quote, RecordHeader, Trade, encode_status, flags};
use tickcast_protocol::{BookAction, FeedState, Instrument, InstrumentStatus, RecordKind, Side};

/// The exponent of DBN's prices.
const RAW_EXP: i8 = -9;

/// The state of one file.
pub struct Translator {
    dataset: String,
    /// Quotes of this schema are those before their trade.
    is_tbbo: bool,
    symbols: TsSymbolMap,
    /// By instrument id: the names in definitions and in mappings within the file.
    names: HashMap<u32, String, RandomState>,
    /// By publisher and instrument id.
    known: HashMap<(u16, u32), Known, RandomState>,
}

/// What is kept of an instrument.
struct Known {
    /// Its symbol in DBN.
    symbol: String,
    /// The replay's own id.
    id: u32,
    orders: OrderBook,
    best: BestLevels,
    quoted: Option<Quote>,
}

/// The fields of a record that all kinds have.
#[derive(Clone, Copy)]
struct Origin {
    publisher: u16,
    instrument: u32,
    ts_event: u64,
    /// The time of the record.
    index_ns: u64,
}

impl Translator {
    /// For a file with this metadata.
    pub fn new(metadata: &Metadata) -> Self {
        Self {
            dataset: metadata.dataset.clone(),
            is_tbbo: metadata.schema == Some(Schema::Tbbo),
            // Mappings to something other than ids name no instrument.
            symbols: metadata.symbol_map().unwrap_or_default(),
            names: HashMap::default(),
            known: HashMap::default(),
        }
    }

    /// Appends what a record becomes; `index_ns` is its time.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn take(&mut self, record: &RecordEnum, index_ns: u64, output: &mut Output<'_>) -> Result<(), String> {
        let origin = |hd: &dbn::RecordHeader| Origin {
            publisher: hd.publisher_id,
            instrument: hd.instrument_id,
            ts_event: if hd.ts_event == dbn::UNDEF_TIMESTAMP { 0 } else { hd.ts_event },
            index_ns,
        };
        match record {
            RecordEnum::Trade(message) => self.trade(origin(&message.hd), message, output),
            RecordEnum::Mbp1(message) => self.mbp1(origin(&message.hd), message, output),
            RecordEnum::Mbp10(message) => self.mbp10(origin(&message.hd), message, output),
            RecordEnum::Bbo(message) => self.bbo(origin(&message.hd), message, output),
            RecordEnum::Mbo(message) => self.mbo(origin(&message.hd), message, output),
            RecordEnum::InstrumentDef(message) => self.definition(origin(&message.hd), message, output),
            RecordEnum::Status(message) => self.status(origin(&message.hd), message, output),
            RecordEnum::SymbolMapping(message) => self.mapping(message),
            RecordEnum::Error(message) => Err(format!("an error of the gateway: {:?}", message.err().unwrap_or("?"))),
            _ => {
                output.report.ignored += 1;
                Ok(())
            }
        }
    }

    /// Forgets books and quotes, as the file begins again.
    pub fn restart(&mut self) {
        for known in self.known.values_mut() {
            (known.orders, known.best, known.quoted) = (OrderBook::default(), BestLevels::default(), None);
        }
    }

    fn trade(&mut self, origin: Origin, message: &TradeMsg, output: &mut Output<'_>) -> Result<(), String> {
        let known = self.known(origin, output)?;
        known.trade(origin, [message.price, message.size.into()], message.side as u8, message.sequence, output)
    }

    fn mbp1(&mut self, origin: Origin, message: &Mbp1Msg, output: &mut Output<'_>) -> Result<(), String> {
        let is_tbbo = self.is_tbbo;
        let known = self.known(origin, output)?;
        let [level] = &message.levels;
        let best = [(level.bid_px, level.bid_sz), (level.ask_px, level.ask_sz)].map(present);
        if is_tbbo {
            known.quote(origin, best, output)?;
        }
        if message.action as u8 == u8::from(Action::Trade) {
            known.trade(origin, [message.price, message.size.into()], message.side as u8, message.sequence, output)?;
        }
        if is_tbbo { Ok(()) } else { known.quote(origin, best, output) }
    }

    fn bbo(&mut self, origin: Origin, message: &BboMsg, output: &mut Output<'_>) -> Result<(), String> {
        let known = self.known(origin, output)?;
        let [level] = &message.levels;
        known.quote(origin, [(level.bid_px, level.bid_sz), (level.ask_px, level.ask_sz)].map(present), output)
    }

    fn mbp10(&mut self, origin: Origin, message: &Mbp10Msg, output: &mut Output<'_>) -> Result<(), String> {
        let known = self.known(origin, output)?;
        if message.action as u8 == u8::from(Action::Trade) {
            known.trade(origin, [message.price, message.size.into()], message.side as u8, message.sequence, output)?;
        }
        let is_reset = message.action as u8 == u8::from(Action::Clear) || message.flags.is_snapshot();
        let change = known.best.take(&message.levels, is_reset);
        let bad = if message.flags.is_maybe_bad_book() { flags::MAYBE_BAD_BOOK } else { 0 };
        known.book(origin, change, bad, output)?;
        known.quote_if_new(origin, known.best.best(), output)
    }

    fn mbo(&mut self, origin: Origin, message: &MboMsg, output: &mut Output<'_>) -> Result<(), String> {
        let known = self.known(origin, output)?;
        if message.action as u8 == u8::from(Action::Trade) && message.price != UNDEF_PRICE {
            known.trade(origin, [message.price, message.size.into()], message.side as u8, message.sequence, output)?;
        }
        known.orders.apply(message);
        if !message.flags.is_last() {
            return Ok(());
        }
        let change = known.orders.take_change();
        let is_bad = message.flags.is_maybe_bad_book() || !known.orders.is_known();
        known.book(origin, change, if is_bad { flags::MAYBE_BAD_BOOK } else { 0 }, output)?;
        known.quote_if_new(origin, known.orders.best(), output)
    }

    fn definition(
        &mut self,
        origin: Origin,
        message: &InstrumentDefMsg,
        output: &mut Output<'_>,
    ) -> Result<(), String> {
        let name = message.raw_symbol().map_err(|error| error.to_string())?;
        if name.is_empty() {
            return Err("a definition without a symbol".to_owned());
        }
        self.names.insert(origin.instrument, name.to_owned());
        let symbol = self.name_of(origin, name);
        let tick = Some(message.min_price_increment).filter(|tick| *tick > 0 && *tick != UNDEF_PRICE);
        let held = output.exponents(&symbol).map(|(px_exp, _)| px_exp);
        // An exponent never becomes coarser: there may be prices that need it.
        let px_exp = tick.map_or(RAW_EXP, exponent_of).min(held.unwrap_or(0));
        let mut instrument = Instrument::new(0, &symbol, &self.dataset, px_exp, 0);
        instrument.tick_size = tick.and_then(|tick| mantissa(tick, px_exp)).unwrap_or(PRICE_NONE);
        instrument.lot_size = if message.min_lot_size > 0 && message.min_lot_size != i32::MAX {
            message.min_lot_size.into()
        } else {
            PRICE_NONE
        };
        if message.security_update_action().is_ok_and(|action| action == SecurityUpdateAction::Delete) {
            instrument.status = InstrumentStatus::Closed;
        }
        output.define(instrument).map(drop)
    }

    fn status(&mut self, origin: Origin, message: &StatusMsg, output: &mut Output<'_>) -> Result<(), String> {
        use StatusAction as Is;
        let state = match message.action().map_err(|error| error.to_string())? {
            Is::PreOpen | Is::PreCross | Is::Quoting | Is::Cross | Is::Rotation | Is::Trading | Is::PreClose => {
                FeedState::Live
            }
            Is::Halt | Is::Pause | Is::Suspend | Is::Close | Is::PostClose | Is::NotAvailableForTrading => {
                FeedState::Halted
            }
            // Among them those of later versions of DBN.
            _ => {
                output.report.ignored += 1;
                return Ok(());
            }
        };
        let id = self.known(origin, output)?.id;
        let header = RecordHeader::of_feed(RecordKind::Status, id, origin.ts_event);
        output.put(|batch| encode_status(&header, state, batch));
        Ok(())
    }

    fn mapping(&mut self, message: &SymbolMappingMsg) -> Result<(), String> {
        let name = message.stype_out_symbol().map_err(|error| error.to_string())?;
        self.names.insert(message.hd.instrument_id, name.to_owned());
        Ok(())
    }

    /// The instrument of a record, which is defined before its first use. An id that has another symbol by now is another
    /// instrument.
    fn known(&mut self, origin: Origin, output: &mut Output<'_>) -> Result<&mut Known, String> {
        let mapped = self.symbols.get_for_ts(origin.index_ns, origin.instrument);
        let symbol = match mapped.or_else(|| self.names.get(&origin.instrument)) {
            Some(symbol) => symbol.clone(),
            None => origin.instrument.to_string(),
        };
        let key = (origin.publisher, origin.instrument);
        if self.known.get(&key).is_none_or(|known| known.symbol != symbol) {
            let name = self.name_of(origin, &symbol);
            let (px_exp, sz_exp) = output.exponents(&name).unwrap_or((RAW_EXP, 0));
            let id = match output.id_of(&name) {
                Some(id) => id,
                None => output.define(Instrument::new(0, &name, &self.dataset, px_exp, sz_exp))?,
            };
            let known = Known { symbol, id, orders: OrderBook::default(), best: BestLevels::default(), quoted: None };
            self.known.insert(key, known);
        }
        self.known.get_mut(&key).ok_or_else(|| "an instrument is missing".to_owned())
    }

    /// The name of an instrument in the directory.
    fn name_of(&self, origin: Origin, symbol: &str) -> String {
        let venue = Publisher::try_from(origin.publisher).map(|publisher| publisher.venue());
        match venue {
            Ok(venue) if self.dataset.split('.').next() != Some(venue.as_str()) => {
                format!("{symbol}.{}", venue.as_str())
            }
            _ => symbol.to_owned(),
        }
    }
}

impl Known {
    fn trade(
        &mut self,
        origin: Origin,
        [px, sz]: [i64; 2],
        side: u8,
        sequence: u32,
        output: &mut Output<'_>,
    ) -> Result<(), String> {
        if px == UNDEF_PRICE {
            return Err("a trade without a price".to_owned());
        }
        let [px] = self.exact([px], output)?;
        let side = match side {
            b'B' => Side::Buy,
            b'A' => Side::Sell,
            _ => Side::Unknown,
        };
        let header = RecordHeader::of_feed(RecordKind::Trade, self.id, origin.ts_event);
        output.put(|batch| Trade { px, sz, trade_id: sequence.into(), side }.encode(&header, batch));
        Ok(())
    }

    fn quote(&mut self, origin: Origin, best: [Option<(i64, i64)>; 2], output: &mut Output<'_>) -> Result<(), String> {
        let raw = best.map(|side| side.map_or(PRICE_NONE, |(px, _)| px));
        let [bid_px, ask_px] = self.exact(raw, output)?;
        let [bid_sz, ask_sz] = best.map(|side| side.map_or(PRICE_NONE, |(_, sz)| sz));
        let quote = Quote { bid_px, bid_sz, ask_px, ask_sz };
        self.quoted = Some(quote);
        let header = RecordHeader::of_feed(RecordKind::Quote, self.id, origin.ts_event);
        output.put(|batch| quote.encode(&header, batch));
        Ok(())
    }

    /// Publishes the top of the book, if it has changed.
    fn quote_if_new(
        &mut self,
        origin: Origin,
        best: [Option<(i64, i64)>; 2],
        output: &mut Output<'_>,
    ) -> Result<(), String> {
        let raw = best.map(|side| side.map_or(PRICE_NONE, |(px, _)| px));
        let [bid_px, ask_px] = self.exact(raw, output)?;
        let [bid_sz, ask_sz] = best.map(|side| side.map_or(PRICE_NONE, |(_, sz)| sz));
        let is_new = self.quoted != Some(Quote { bid_px, bid_sz, ask_px, ask_sz });
        let is_first_without_prices = self.quoted.is_none() && best == [None; 2];
        if is_new && !is_first_without_prices { self.quote(origin, best, output) } else { Ok(()) }
    }

    fn book(&mut self, origin: Origin, change: Change, bad: u8, output: &mut Output<'_>) -> Result<(), String> {
        let (action, levels) = match change {
            Change::Nothing => return Ok(()),
            Change::Levels(levels) => (BookAction::Delta, levels),
            Change::Whole(levels) => (BookAction::Snapshot, levels),
        };
        let prices = self.exact_all(&levels, output)?;
        let level = |(raw, px): (&RawLevel, i64)| Level { px, sz: raw.sz, side: raw.side };
        let levels: Vec<_> = levels.iter().zip(prices).map(level).collect();
        let header = RecordHeader::of_feed(RecordKind::Book, self.id, origin.ts_event);
        output.book(&header.with_flags(flags::LAST | bad), action, levels);
        Ok(())
    }

    /// Prices at the exponent of the instrument, which becomes finer if one of them is not exact there.
    fn exact<const N: usize>(&self, raw: [i64; N], output: &mut Output<'_>) -> Result<[i64; N], String> {
        let px_exp = output.px_exp_for(self.id, raw.iter().copied(), RAW_EXP)?;
        Ok(raw.map(|raw| mantissa(raw, px_exp).unwrap_or(PRICE_NONE)))
    }

    fn exact_all(&self, levels: &[RawLevel], output: &mut Output<'_>) -> Result<Vec<i64>, String> {
        let px_exp = output.px_exp_for(self.id, levels.iter().map(|level| level.px), RAW_EXP)?;
        Ok(levels.iter().map(|level| mantissa(level.px, px_exp).unwrap_or(PRICE_NONE)).collect())
    }
}

/// A side of a quote that is there.
fn present((px, sz): (i64, u32)) -> Option<(i64, i64)> {
    (px != UNDEF_PRICE && sz > 0).then_some((px, sz.into()))
}

/// The exponent at which a price step is exact.
fn exponent_of(step: i64) -> i8 {
    (RAW_EXP..=0).rev().find(|px_exp| mantissa(step, *px_exp).is_some()).unwrap_or(RAW_EXP)
}

/// The mantissa of a price of DBN; `None` if it is not exact at this exponent.
fn mantissa(raw: i64, px_exp: i8) -> Option<i64> {
    if raw == PRICE_NONE { Some(PRICE_NONE) } else { tickcast_protocol::decimal::rescale(raw, RAW_EXP, px_exp) }
}
