//! Venues, the program on top of them, and a client that keeps what it receives.

use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use fake_venue::{FakeVenue, Options, Source, Speed, TradeTruth, Truth, VenueKind};
use tickcast_protocol::packet;
use tickcast_protocol::record;
use tickcast_test_support::market_state::{InstrumentState, MarketState, TradeSeen, number};
use tickcast_test_support::server::Server;
use tungstenite::Message;
use tungstenite::stream::MaybeTlsStream;

/// An upper bound for what happens within seconds.
pub const DEADLINE: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(20);

/// The symbols of each venue: the names of instruments are unique in a directory.
fn symbols_of(kind: VenueKind) -> &'static [&'static str] {
    match kind {
        VenueKind::Binance => &["BTCUSDT", "币安人生USDT"],
        VenueKind::BinanceUsdM => &["BTCUSDT", "1000PEPEUSDT"],
        VenueKind::BinanceCoinM => &["BTCUSD_PERP", "ETHUSD_PERP"],
        VenueKind::Coinbase => &["BTC-USD", "SHIB-USD"],
        VenueKind::Kraken => &["BTC/USD", "MATIC/USD"],
        VenueKind::Bybit => &["ETHUSDT", "PEPEUSDT"],
        VenueKind::BybitLinear => &["ETHUSDT"],
        VenueKind::BybitInverse => &["BTCUSD", "ETHUSD"],
        VenueKind::Okx => &["BTC-USDT", "BTC-USDT-SWAP"],
    }
}

/// The name in the directory.
fn name_of(kind: VenueKind, symbol: &str) -> String {
    let is_perpetual = matches!(kind, VenueKind::BinanceUsdM | VenueKind::BybitLinear);
    if is_perpetual { format!("{symbol}-PERP") } else { symbol.to_owned() }
}

/// The levels of a side that the server has without `depth=`.
fn depth_of(kind: VenueKind) -> usize {
    match kind {
        VenueKind::Kraken => 100,
        VenueKind::Bybit | VenueKind::BybitLinear | VenueKind::BybitInverse => 200,
        VenueKind::Okx => 400,
        _ => usize::MAX,
    }
}

/// A venue with TLS.
pub struct Place {
    pub kind: VenueKind,
    pub venue: FakeVenue,
    /// The symbols that the server has.
    pub symbols: Vec<String>,
    /// The levels of a side that the server has.
    pub depth: usize,
    authority: tempfile::NamedTempFile,
}

impl Place {
    /// Starts a generated session at twice the speed.
    pub fn start(kind: VenueKind, set: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options { speed: Speed::Times(2.0), ..Options::new(kind) };
        set(&mut options);
        let symbols = match &options.source {
            Source::Generate(_) => symbols_of(kind).iter().map(|symbol| (*symbol).to_owned()).collect(),
            Source::Recording { .. } => Vec::new(),
        };
        let venue = FakeVenue::start(options).expect("it starts");
        let symbols = if symbols.is_empty() { venue.truth().instruments.into_keys().collect() } else { symbols };
        let authority = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(authority.path(), venue.authority_pem().expect("with TLS")).expect("written");
        Self { kind, venue, symbols, depth: depth_of(kind), authority }
    }

    /// The argument of `--feed`.
    pub fn feed(&self) -> String {
        let (scheme, option) = match self.kind {
            VenueKind::BybitLinear => ("bybit", "category=linear&".to_owned()),
            VenueKind::BybitInverse => ("bybit", "category=inverse&".to_owned()),
            VenueKind::Kraken => ("kraken", format!("depth={}&", self.depth)),
            kind => (kind.name(), String::new()),
        };
        let (symbols, url, file) = (self.symbols.join(","), self.venue.url(), self.authority.path().display());
        format!("{scheme}:{symbols}?{option}url={url}&ca_file={file}")
    }
}

/// The program with these venues.
pub fn serve(places: &[Place]) -> Server {
    let feeds: Vec<_> = places.iter().map(|place| place.feed()).collect();
    let mut arguments = Vec::new();
    feeds.iter().for_each(|feed| arguments.extend(["--feed", feed]));
    Server::start(&arguments)
}

/// A client of everything, which reads in a thread of its own until it is dropped.
pub struct Watcher {
    state: Arc<Mutex<MarketState>>,
    stream: TcpStream,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watcher {
    /// Subscribes to all channels of all instruments.
    pub fn start(address: SocketAddr) -> Self {
        let (mut socket, _) = tungstenite::connect(format!("ws://{address}/v1/stream")).expect("an upgrade");
        let subscription = r#"{"op":"subscribe","id":1,"channels":["quote","trade","ticker","book"],"symbols":["*"]}"#;
        socket.send(Message::text(subscription)).expect("it reads");
        let MaybeTlsStream::Plain(stream) = socket.get_ref() else { panic!("expected a plain stream") };
        let stream = stream.try_clone().expect("a descriptor");
        let state: Arc<Mutex<MarketState>> = Arc::default();
        let shared = state.clone();
        let thread = std::thread::spawn(move || {
            while let Ok(message) = socket.read() {
                let Message::Binary(bytes) = message else { continue };
                let mut state = shared.lock().expect("no panic before");
                for (header, record) in record::records(&bytes[packet::HEADER_BYTES..]) {
                    state.accept(&header, record);
                }
            }
        });
        Self { state, stream, thread: Some(thread) }
    }

    /// What it has.
    pub fn state(&self) -> MutexGuard<'_, MarketState> {
        self.state.lock().expect("no panic in the thread")
    }

    /// Waits until this holds; `what` says what is missing.
    #[track_caller]
    pub fn until_or(&self, holds: impl Fn(&MarketState) -> bool, what: impl Fn() -> String) {
        let deadline = Instant::now() + DEADLINE;
        while !holds(&self.state()) {
            assert!(Instant::now() < deadline, "it does not come: {}", what());
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the reader of the client has failed");
        }
    }
}

/// The state of an instrument of a venue.
pub fn of<'s>(state: &'s MarketState, kind: VenueKind, symbol: &str) -> Option<&'s InstrumentState> {
    state.of(&name_of(kind, symbol))
}

/// True once every book of the venue is valid.
pub fn has_books(state: &MarketState, place: &Place) -> bool {
    place.symbols.iter().all(|symbol| of(state, place.kind, symbol).is_some_and(InstrumentState::is_valid))
}

/// How a valid book differs from the venue's; `None` if none does.
pub fn difference(state: &MarketState, place: &Place, truth: &Truth) -> Option<String> {
    let depth = place.depth;
    place.symbols.iter().find_map(|symbol| {
        let has = of(state, place.kind, symbol).filter(|has| has.is_valid())?;
        let side = |levels: &[(String, String)]| {
            let levels = levels.iter().take(depth);
            levels.map(|(px, sz)| (number(px), number(sz))).collect::<Vec<_>>()
        };
        let truly = &truth.instruments[symbol];
        let expected = [side(&truly.bids), side(&truly.asks)];
        let found = has.levels(usize::MAX);
        (found != expected).then(|| {
            let pairs = found.iter().zip(&expected).flat_map(|(found, expected)| found.iter().zip(expected));
            let first = pairs.clone().find(|(found, expected)| found != expected);
            let lengths = [&found, &expected].map(|sides| [sides[0].len(), sides[1].len()]);
            format!("{} {symbol}: levels {lengths:?}, first difference {first:?}", place.kind)
        })
    })
}

/// True if every book is valid and the venue's.
pub fn is_whole(state: &MarketState, place: &Place, truth: &Truth) -> bool {
    has_books(state, place) && difference(state, place, truth).is_none()
}

/// The id in the record of a trade: that of the venue, or the first 64 bits of its UUID.
fn id_of(trade: &TradeTruth) -> u64 {
    trade.sent_id.parse().unwrap_or_else(|_| {
        let digits: String = trade.sent_id.chars().filter(|letter| *letter != '-').take(16).collect();
        u64::from_str_radix(&digits, 16).expect("a UUID")
    })
}

/// How many trades of a venue are missing between the first and the last that came. Panics if a trade is another than the
/// venue's, comes twice, or out of order.
#[track_caller]
pub fn trades_missing(state: &MarketState, place: &Place, truth: &Truth) -> u64 {
    let mut missing = 0;
    for symbol in &place.symbols {
        let has = &of(state, place.kind, symbol).expect("defined").trades;
        let Some((first, last)) = has.first().zip(has.last()) else { continue };
        let seen = |trade: &TradeTruth| TradeSeen {
            id: id_of(trade),
            px: number(&trade.px),
            sz: number(&trade.sz),
            side: trade.side,
        };
        let sent: Vec<_> = truth.instruments[symbol].trades.iter().map(seen).collect();
        let from = sent.iter().position(|trade| trade == first).expect("the first trade is one of the venue");
        let to = sent.iter().position(|trade| trade == last).expect("the last trade is one of the venue");
        let mut expected = sent[from..=to].iter();
        for trade in has {
            assert!(expected.any(|sent| sent == trade), "{} {symbol}: {trade:?} is not the next", place.kind);
        }
        missing += (to - from + 1 - has.len()) as u64;
    }
    missing
}

/// How many trades of a venue are announced as missing, and how often.
pub fn trades_announced(state: &MarketState, place: &Place) -> (u64, usize) {
    let all = place.symbols.iter().filter_map(|symbol| of(state, place.kind, symbol));
    all.fold((0, 0), |(missing, gaps), has| (missing + has.trades_missing, gaps + has.trade_gaps))
}

/// How often a book of a venue became flagged.
pub fn times_bad(state: &MarketState, place: &Place) -> usize {
    place.symbols.iter().filter_map(|symbol| of(state, place.kind, symbol)).map(|has| has.times_bad).sum()
}

/// Waits until this holds.
#[track_caller]
pub fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "it does not come: {what}");
        std::thread::sleep(POLL);
    }
}

/// Events of a session before it stands still.
const STEPS_BEFORE: u64 = 150;
/// How long clients are waited for while the sessions stand still.
const STILL: Duration = Duration::from_secs(2);

/// Lets the sessions play on and stand still until every book is valid and the venue's; what the venues then truly were.
/// Some procedures need the next change of a book, so the sessions play on if a book is void. `context` says what was done.
#[track_caller]
pub fn settle(places: &[Place], watcher: &Watcher, context: impl Fn() -> String) -> Vec<Truth> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        for place in places {
            let before = place.venue.truth().steps;
            until("the session goes on", || place.venue.truth().steps >= before + STEPS_BEFORE);
        }
        places.iter().for_each(|place| place.venue.stop_session());
        let truths: Vec<_> = places.iter().map(|place| place.venue.truth()).collect();
        let is_done = || {
            let state = watcher.state();
            places.iter().zip(&truths).all(|(place, truth)| is_whole(&state, place, truth))
        };
        let still_until = Instant::now() + STILL;
        while Instant::now() < still_until {
            if is_done() {
                return truths;
            }
            std::thread::sleep(POLL);
        }
        if Instant::now() > deadline {
            let state = watcher.state();
            let all = places.iter().zip(&truths);
            let wrong: Vec<_> = all.filter_map(|(place, truth)| difference(&state, place, truth)).collect();
            let void: Vec<_> =
                places.iter().filter(|place| !has_books(&state, place)).map(|of| of.kind.name()).collect();
            panic!("the books do not become the venues': {wrong:?}, void: {void:?}, after {}", context());
        }
        places.iter().for_each(|place| place.venue.resume_session());
    }
}
