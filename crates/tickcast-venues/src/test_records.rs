//! Drives a codec with written messages, and shows its records as short texts.

use tickcast_protocol::control::ChannelSet;
use tickcast_protocol::decimal;
use tickcast_protocol::record::{self, Gap, PRICE_NONE, Quote, Ticker, Trade, flags};
use tickcast_protocol::{Channel, Instrument, RecordKind};

use crate::codec::{Codec, CodecOptions, RestRequest};
use crate::error::{Malformed, SubscribeError};
use crate::sink::{Event, Report, Sink};
use crate::venue::Venue;

/// Time of the first message.
pub(crate) const T0: u64 = 1_700_000_000 * S;
pub(crate) const S: u64 = 1_000_000_000;

/// A codec with all of its output.
pub(crate) struct Bench {
    pub(crate) codec: Box<dyn Codec>,
    pub(crate) report: Report,
    pub(crate) events: Vec<Event>,
    pub(crate) now_ns: u64,
    next_id: u32,
    batch: Vec<u8>,
    defined: Vec<Instrument>,
}

impl Bench {
    pub(crate) fn new(venue: Venue) -> Self {
        Self::with(venue, CodecOptions::default())
    }

    pub(crate) fn with(venue: Venue, options: CodecOptions) -> Self {
        let (report, events, batch, defined) = (Report::default(), Vec::new(), Vec::new(), Vec::new());
        Self { codec: venue.codec(options), report, events, now_ns: T0, next_id: 1, batch, defined }
    }

    fn call<R>(&mut self, call: impl FnOnce(&mut dyn Codec, u64, &mut Sink<'_>) -> R) -> R {
        let Self { codec, report, events, now_ns, next_id, batch, .. } = self;
        call(&mut **codec, *now_ns, &mut Sink { batch, report, next_id, events })
    }

    /// The result of one message.
    pub(crate) fn take(&mut self, message: &str) -> Result<(), Malformed> {
        self.call(|codec, now_ns, sink| codec.on_message(&mut message.as_bytes().to_vec(), now_ns, sink))
    }

    /// The records of one message.
    pub(crate) fn records(&mut self, message: &str) -> Vec<String> {
        self.take(message).unwrap_or_else(|error| panic!("{message}: {error}"));
        self.drain()
    }

    pub(crate) fn subscribe(&mut self, symbols: &[&str], channels: &[Channel]) -> Vec<String> {
        let channels = ChannelSet::from_iter(channels.iter().copied());
        self.call(|codec, _, sink| codec.open(sink));
        self.call(|codec, now_ns, sink| codec.subscribe(symbols, channels, now_ns, sink)).expect("it is subscribed");
        self.sent()
    }

    pub(crate) fn subscribe_error(&mut self, symbols: &[&str]) -> SubscribeError {
        let error = self.call(|codec, now_ns, sink| codec.subscribe(symbols, ChannelSet::ALL, now_ns, sink));
        assert_eq!(self.sent(), [""; 0], "nothing is sent");
        error.expect_err("it is refused")
    }

    /// What is sent after this much more time.
    pub(crate) fn tick(&mut self, seconds: u64) -> Vec<String> {
        self.now_ns += seconds * S;
        self.call(|codec, now_ns, sink| codec.on_tick(now_ns, sink));
        self.sent()
    }

    /// The next HTTP request.
    pub(crate) fn rest(&mut self) -> Option<RestRequest> {
        let now_ns = self.now_ns;
        self.codec.rest_needed(now_ns)
    }

    pub(crate) fn answer(&mut self, request: &RestRequest, answer: &str) -> Result<(), Malformed> {
        self.call(|codec, now_ns, sink| codec.on_rest(request, &mut answer.as_bytes().to_vec(), now_ns, sink))
    }

    pub(crate) fn disconnect(&mut self) -> Vec<String> {
        self.call(|codec, _, sink| codec.on_disconnect(ChannelSet::ALL, sink));
        self.drain()
    }

    /// Texts that were to be sent; other events stay.
    pub(crate) fn sent(&mut self) -> Vec<String> {
        let mut sent = Vec::new();
        self.events.retain(|event| match event {
            Event::Send(text) => {
                sent.push(text.clone());
                false
            }
            _ => true,
        });
        sent
    }

    /// All records since the last call.
    pub(crate) fn drain(&mut self) -> Vec<String> {
        let batch = std::mem::take(&mut self.batch);
        record::records(&batch).map(|(header, bytes)| self.show(&header, bytes)).collect()
    }

    fn show(&mut self, header: &record::RecordHeader, bytes: &[u8]) -> String {
        let kind = header.known_kind().expect("a known kind");
        if kind == RecordKind::Definition {
            let defined = record::read_definition(bytes).expect("a whole definition");
            let number = |mantissa, exponent| text_of(mantissa, exponent);
            let text = format!(
                "define {}@{} {} {} tick {} lot {} {}",
                defined.symbol,
                defined.venue,
                defined.px_exp,
                defined.sz_exp,
                number(defined.tick_size, defined.px_exp),
                number(defined.lot_size, defined.sz_exp),
                defined.status
            );
            self.defined.retain(|former| former.id != defined.id);
            self.defined.push(defined);
            return text;
        }
        record::check(bytes).expect("a record that a publisher may send");
        let of = self.defined.iter().find(|defined| defined.id == header.instrument).expect("a definition before");
        let px = |mantissa| text_of(mantissa, of.px_exp);
        let sz = |mantissa| text_of(mantissa, of.sz_exp);
        match kind {
            RecordKind::Quote => {
                let quote = Quote::read(bytes).expect("a whole quote");
                format!("quote {}x{} {}x{}", px(quote.bid_px), sz(quote.bid_sz), px(quote.ask_px), sz(quote.ask_sz))
            }
            RecordKind::Trade => {
                let trade = Trade::read(bytes).expect("a whole trade");
                format!("trade {} {} {}x{}", trade.trade_id, trade.side, px(trade.px), sz(trade.sz))
            }
            RecordKind::Ticker => {
                let t = Ticker::read(bytes).expect("a whole ticker");
                let prices = [t.last_px, t.open_px, t.high_px, t.low_px].map(px).join(" ");
                format!("ticker {prices} v{} q{} {} {}", sz(t.volume), px(t.turnover), px(t.bid_px), px(t.ask_px))
            }
            RecordKind::Book => {
                let (action, levels) = record::read_book(bytes).expect("a whole book");
                let bad = if header.flags & flags::MAYBE_BAD_BOOK == 0 { "" } else { "?" };
                let levels: Vec<_> = levels.map(|l| format!(" {}{}x{}", l.side, px(l.px), sz(l.sz))).collect();
                format!("book {action}{bad}{}", levels.concat())
            }
            RecordKind::Gap => format!("gap of {}", Gap::read(bytes).expect("a whole gap").missing()),
            RecordKind::Status => format!("status {}", record::read_status(bytes).expect("a whole status")),
            other => panic!("a codec sends no {other:?}"),
        }
    }
}

fn text_of(mantissa: i64, exponent: i8) -> String {
    if mantissa == PRICE_NONE { "-".to_owned() } else { decimal::to_string(mantissa, exponent) }
}
