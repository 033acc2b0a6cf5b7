//! A client of a venue: a codec of `tickcast-venues`, its connection, and its HTTP requests.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fake_venue::{FakeVenue, TradeTruth, Truth, VenueKind};
use tickcast_protocol::control::ChannelSet;
use tickcast_protocol::{Channel, record};
use tickcast_test_support::DEADLINE;
use tickcast_test_support::market_state::{MarketState, TradeSeen, number};
use tickcast_venues::{Codec, CodecOptions, Event, Notice, Report, RestRequest, Sink, Venue};
use tungstenite::{Message, WebSocket};

/// How long a read waits.
const READ: Duration = Duration::from_millis(5);

/// Steps between two looks at whether something holds.
const STEPS_BETWEEN: usize = 200;

/// Whether there was something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Busy,
    Idle,
}

/// A codec with its connection, and what a client of its records has.
pub struct Driver<'v> {
    venue: &'v FakeVenue,
    path: &'static str,
    codec: Box<dyn Codec>,
    channels: ChannelSet,
    symbols: Vec<String>,
    socket: Option<WebSocket<TcpStream>>,
    pub state: MarketState,
    pub report: Report,
    pub events: Vec<Event>,
    next_id: u32,
    /// Added to the time that the codec is told.
    pub ahead: Duration,
    /// HTTP statuses other than 200.
    pub refusals: Vec<u16>,
    pub connections: usize,
    /// What differs from the venue.
    problem: String,
    not_before: Instant,
}

/// The path of a venue's WebSocket, for these channels.
pub fn path_of(venue: VenueKind) -> &'static str {
    match venue {
        VenueKind::Binance | VenueKind::BinanceCoinM => "/stream",
        VenueKind::BinanceUsdM => "/public/stream",
        VenueKind::Coinbase => "/",
        VenueKind::Kraken => "/v2",
        VenueKind::Bybit => "/v5/public/spot",
        VenueKind::BybitLinear => "/v5/public/linear",
        VenueKind::BybitInverse => "/v5/public/inverse",
        VenueKind::Okx => "/ws/v5/public",
    }
}

/// The levels that the usual subscription of a venue has on each side.
pub fn depth_of(venue: VenueKind, asked: Option<u32>) -> usize {
    let usual = match venue {
        VenueKind::Binance | VenueKind::BinanceUsdM | VenueKind::BinanceCoinM | VenueKind::Coinbase => usize::MAX,
        VenueKind::Kraken => 100,
        VenueKind::Bybit | VenueKind::BybitLinear | VenueKind::BybitInverse => 200,
        VenueKind::Okx => 400,
    };
    asked.map_or(usual, |depth| depth as usize)
}

impl<'v> Driver<'v> {
    /// A client of a venue that runs without TLS, before its first connection.
    pub fn new(
        venue: &'v FakeVenue,
        kind: VenueKind,
        symbols: &[&str],
        channels: &[Channel],
        depth: Option<u32>,
    ) -> Self {
        let of = Venue::from_name(kind.name()).expect("the same names");
        Self {
            venue,
            path: path_of(kind),
            codec: of.codec(CodecOptions { depth, ..CodecOptions::default() }),
            channels: channels.iter().copied().collect(),
            symbols: symbols.iter().map(|symbol| (*symbol).to_owned()).collect(),
            socket: None,
            state: MarketState::default(),
            report: Report::default(),
            events: Vec::new(),
            next_id: 1,
            ahead: Duration::ZERO,
            refusals: Vec::new(),
            connections: 0,
            problem: String::new(),
            not_before: Instant::now(),
        }
    }

    /// Uses another address of the venue.
    pub fn at(mut self, path: &'static str) -> Self {
        self.path = path;
        self
    }

    /// Runs until this holds.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !holds(self) {
            // It may be costly to find out.
            for _ in 0..STEPS_BETWEEN {
                if self.step() == Step::Idle {
                    break;
                }
            }
            let (report, newest) = (self.report, self.events.iter().rev().take(3));
            assert!(
                Instant::now() < deadline,
                "{what} does not come: {report:?}, {:?}, {}",
                newest.collect::<Vec<_>>(),
                self.problem
            );
        }
    }

    /// Reads and sends what there is.
    pub fn step(&mut self) -> Step {
        let mut step = Step::Busy;
        if self.socket.is_none() {
            self.connect();
        }
        self.request();
        match self.socket.as_mut().map(WebSocket::read) {
            None => {
                std::thread::sleep(READ);
                step = Step::Idle;
            }
            Some(Ok(Message::Text(text))) => {
                let mut bytes = text.as_bytes().to_vec();
                // What cannot be read is counted by the codec's caller.
                if self.call(|codec, now_ns, sink| codec.on_message(&mut bytes, now_ns, sink)).is_err() {
                    self.report.malformed += 1;
                }
            }
            Some(Ok(_)) => {}
            Some(Err(tungstenite::Error::Io(error))) if error.kind() == ErrorKind::WouldBlock => step = Step::Idle,
            Some(Err(_)) => self.disconnect(),
        }
        self.call(|codec, now_ns, sink| codec.on_tick(now_ns, sink));
        step
    }

    /// Closes the connection.
    pub fn disconnect(&mut self) {
        self.socket = None;
        self.call(|codec, _, sink| codec.on_disconnect(ChannelSet::ALL, sink));
    }

    /// True once every book is valid.
    pub fn has_books(&self) -> bool {
        self.state.instruments.len() == self.symbols.len() && self.state.instruments.values().all(|of| of.is_valid())
    }

    /// True once every book is valid and the venue's.
    pub fn is_whole(&mut self, truth: &Truth, depth: usize) -> bool {
        self.problem = if self.has_books() { self.difference(truth, depth) } else { "a book is void".to_owned() };
        self.problem.is_empty()
    }

    /// The first difference between the books that are valid and the venue's; an empty text if there is none.
    pub fn difference(&self, truth: &Truth, depth: usize) -> String {
        for (symbol, of) in &truth.instruments {
            if !self.symbols.contains(symbol) {
                continue;
            }
            let Some(state) = self.state.of(symbol).or_else(|| self.state.of(&format!("{symbol}-PERP"))) else {
                return format!("{symbol} has no definition");
            };
            let side = |levels: &[(String, String)]| {
                let levels = levels.iter().take(depth);
                levels.map(|(px, sz)| (number(px), number(sz))).collect::<Vec<_>>()
            };
            let expected = [side(&of.bids), side(&of.asks)];
            if state.is_valid() && state.levels(depth) != expected {
                let count = |sides: &[Vec<_>; 2]| [sides[0].len(), sides[1].len()];
                let levels = state.levels(usize::MAX);
                let differs = levels.iter().zip(&expected).flat_map(|(a, b)| a.iter().zip(b)).find(|(a, b)| a != b);
                return format!("{symbol}: {:?} levels, expected {:?}: {differs:?}", count(&levels), count(&expected));
            }
        }
        String::new()
    }

    /// True once the last trade of every instrument has come.
    pub fn has_last_trades(&self, truth: &Truth) -> bool {
        truth.instruments.iter().filter(|(symbol, _)| self.symbols.contains(symbol)).all(|(symbol, of)| {
            let state = self.state.of(symbol).or_else(|| self.state.of(&format!("{symbol}-PERP")));
            let last = state.and_then(|of| of.trades.last()).map(|trade| trade.id);
            last == of.trades.last().map(id_of)
        })
    }

    /// Asserts that the trades are those of the venue, from the first one that came on, but for those that were announced
    /// as missing.
    #[track_caller]
    pub fn assert_trades(&self, truth: &Truth) {
        for (symbol, of) in truth.instruments.iter().filter(|(symbol, _)| self.symbols.contains(symbol)) {
            let state = self.state.of(symbol).or_else(|| self.state.of(&format!("{symbol}-PERP"))).expect("defined");
            let seen = |trade: &TradeTruth| TradeSeen {
                id: id_of(trade),
                px: number(&trade.px),
                sz: number(&trade.sz),
                side: trade.side,
            };
            let Some(first) = state.trades.first().map(|trade| trade.id) else { continue };
            let sent: Vec<_> = of.trades.iter().skip_while(|trade| id_of(trade) != first).map(seen).collect();
            assert!(state.trades.iter().all(|trade| sent.contains(trade)), "{symbol}: a trade that was not");
            let mut ids: Vec<_> = state.trades.iter().map(|trade| trade.id).collect();
            ids.dedup();
            assert_eq!(ids.len(), state.trades.len(), "{symbol}: a trade twice");
            let missing = sent.len() - state.trades.len();
            assert_eq!(missing as u64, state.trades_missing, "{symbol}: trades missing, and announced");
        }
    }

    fn connect(&mut self) {
        if Instant::now() < self.not_before {
            return;
        }
        self.not_before = Instant::now() + Duration::from_millis(400);
        let stream = TcpStream::connect(self.venue.address()).expect("it listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        match tungstenite::client(format!("{}{}", self.venue.url(), self.path), stream) {
            Ok((socket, _)) => {
                socket.get_ref().set_read_timeout(Some(READ)).expect("a timeout");
                self.subscribe(socket);
            }
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(response))) => {
                self.refusals.push(response.status().as_u16());
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn subscribe(&mut self, socket: WebSocket<TcpStream>) {
        self.socket = Some(socket);
        self.connections += 1;
        let symbols = self.symbols.clone();
        let names: Vec<_> = symbols.iter().map(String::as_str).collect();
        let channels = self.channels;
        self.call(|codec, _, sink| codec.open(sink));
        self.call(|codec, now_ns, sink| codec.subscribe(&names, channels, now_ns, sink)).expect("known symbols");
    }

    /// Calls the codec, sends what it wants to, and takes its records.
    fn call<R>(&mut self, call: impl FnOnce(&mut dyn Codec, u64, &mut Sink<'_>) -> R) -> R {
        let (mut batch, mut events) = (Vec::new(), Vec::new());
        let now_ns = self.now_ns();
        let Self { codec, report, next_id, .. } = self;
        let mut sink = Sink { batch: &mut batch, report, next_id, events: &mut events };
        let result = call(&mut **codec, now_ns, &mut sink);
        for event in events {
            match event {
                Event::Send(text) => {
                    if let Some(socket) = &mut self.socket
                        && socket.send(Message::text(text)).is_err()
                    {
                        self.socket = None;
                    }
                }
                // The next connection is opened; here, after the old one is closed.
                Event::Notice(Notice::Closing { reason }) => {
                    self.events.push(Event::Notice(Notice::Closing { reason }));
                }
                event => self.events.push(event),
            }
        }
        record::records(&batch).for_each(|(header, bytes)| self.state.accept(&header, bytes));
        result
    }

    fn now_ns(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970") + self.ahead;
        u64::try_from(now.as_nanos()).expect("before 2554")
    }

    fn request(&mut self) {
        let now_ns = self.now_ns();
        while let Some(request) = self.codec.rest_needed(now_ns) {
            match get(self.venue, &request) {
                (200, mut body) => {
                    let answered = self.call(|codec, now_ns, sink| codec.on_rest(&request, &mut body, now_ns, sink));
                    answered.expect("an answer that can be read");
                }
                (status, _) => {
                    self.refusals.push(status);
                    self.codec.on_rest_failed(&request, now_ns);
                    return;
                }
            }
        }
    }
}

/// The id in the record of a trade: that of the venue, or the first 64 bits of its UUID.
pub fn id_of(trade: &TradeTruth) -> u64 {
    match trade.sent_id.parse() {
        Ok(id) => id,
        Err(_) => {
            let digits: String = trade.sent_id.chars().filter(|letter| *letter != '-').take(16).collect();
            u64::from_str_radix(&digits, 16).expect("a UUID")
        }
    }
}

/// Status and body of an answer.
pub fn get(venue: &FakeVenue, request: &RestRequest) -> (u16, Vec<u8>) {
    get_path(venue, &request.path)
}

/// Status and body of an answer.
pub fn get_path(venue: &FakeVenue, path: &str) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(venue.address()).expect("it listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: here\r\n\r\n").expect("it reads");
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let value = |name: &str| head.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
            let length: usize = value("Content-Length: ").and_then(|text| text.parse().ok()).expect("a length");
            let mut body = bytes.split_off(end + 4);
            let held = body.len();
            body.resize(length, 0);
            stream.read_exact(&mut body[held..]).expect("the whole body");
            let status = head.split(' ').nth(1).and_then(|text| text.parse().ok()).expect("a status");
            return (status, body);
        }
        let mut part = [0; 4096];
        let read = stream.read(&mut part).expect("an answer");
        assert!(read > 0, "the connection ends");
        bytes.extend(&part[..read]);
    }
}
