//! The driver with a clock of the test, and a venue that is the test itself.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tickcast_protocol::record::{self, RecordHeader, Trade, flags, read_status};
use tickcast_protocol::{BookAction, FeedState, RecordKind};
use tickcast_venues::Venue;

use super::super::lane::{OVERLAP_NS_MAX, OVERLAP_NS_MIN};
use super::*;
use crate::ingest::source::StreamState;

const T0: u64 = 1_700_000_000 * S;

/// A driver, and what it has asked for.
struct Bench {
    driver: Driver,
    now_ns: u64,
    batch: Vec<u8>,
    /// The connections that are to be open, by endpoint.
    open: BTreeMap<LinkId, usize>,
    /// Texts that were sent, and on which connection.
    sent: Vec<(LinkId, Value)>,
    gets: Vec<Get>,
    /// The newest update of the book.
    update: u64,
}

impl Bench {
    fn new(venue: Venue, argument: &str, change: impl FnOnce(&mut Access)) -> Self {
        Self::again(venue, argument, change, &Arc::default())
    }

    fn again(venue: Venue, argument: &str, change: impl FnOnce(&mut Access), has_run: &Arc<AtomicBool>) -> Self {
        let params = Params::parse(venue, argument).expect("a valid argument");
        let mut access = params.venue.access();
        change(&mut access);
        let driver = Driver::new(&params, access, has_run, T0);
        let (open, sent, gets) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { driver, now_ns: T0, batch: Vec::new(), open, sent, gets, update: 100 }
    }

    /// Polls until this much later.
    fn run(&mut self, time_ns: u64) -> Result<(), SourceError> {
        let until_ns = self.now_ns + time_ns;
        loop {
            self.driver.poll(self.now_ns, true, &mut self.batch)?;
            self.execute();
            if self.now_ns >= until_ns {
                return Ok(());
            }
            self.now_ns = (self.now_ns + POLL_NS).min(until_ns);
        }
    }

    fn take(&mut self, event: NetworkEvent) -> Result<(), SourceError> {
        let taken = self.driver.take(event, self.now_ns, &mut self.batch);
        self.execute();
        taken
    }

    fn execute(&mut self) {
        for command in self.driver.take_commands() {
            match command {
                Command::Open { link, endpoint } => drop(self.open.insert(link, endpoint)),
                Command::Send { link, text } => {
                    assert!(self.open.contains_key(&link), "{text} on a connection that is not open");
                    self.sent.push((link, serde_json::from_str(&text).expect("JSON")));
                }
                Command::Close(link) => assert!(self.open.remove(&link).is_some(), "it is open"),
                Command::Get(get) => self.gets.push(get),
            }
        }
    }

    /// Answers all requests: the list of instruments has these symbols, and books begin at update 100.
    fn answer(&mut self, symbols: &[&str]) -> Result<(), SourceError> {
        for Get { number, path, .. } in std::mem::take(&mut self.gets) {
            let body = if path.contains("/depth") {
                json!({"lastUpdateId": 100, "bids": [["10.00", "1"]], "asks": [["11.00", "1"]]})
            } else {
                json!({"symbols": symbols.iter().map(|symbol| listed(symbol)).collect::<Vec<_>>()})
            };
            self.take(NetworkEvent::Answered(Answer { number, body: Ok(body.to_string().into_bytes()) }))?;
        }
        Ok(())
    }

    /// Gets the list, and opens the connections.
    fn start(&mut self, symbols: &[&str]) {
        self.run(0).expect("it begins");
        self.answer(symbols).expect("the symbols are listed");
        self.run(POLL_NS).expect("connections are opened");
        for link in self.links() {
            self.take(NetworkEvent::Opened(link)).expect("it is subscribed");
        }
    }

    fn links(&self) -> Vec<LinkId> {
        self.open.keys().copied().collect()
    }

    /// Runs for a time in which the book changes.
    fn run_with_book(&mut self, link: LinkId, time_ns: u64) {
        let until_ns = self.now_ns + time_ns;
        while self.now_ns < until_ns {
            self.run((20 * S).min(until_ns - self.now_ns)).expect("the source goes on");
            self.depth(link, self.update + 1, self.update + 1);
        }
        self.batch.clear();
    }

    fn message(&mut self, link: LinkId, message: &Value) {
        let text = message.to_string().into_bytes();
        self.take(NetworkEvent::Message(link, text)).expect("the source goes on");
    }

    fn trade(&mut self, link: LinkId, id: u64) {
        self.message(
            link,
            &json!({"stream": "ausdt@trade", "data": {"e": "trade", "E": 1, "s": "AUSDT", "t": id, "p": "10.50", "q": "1",
                "T": 1_700_000_000_000_u64, "m": true, "M": true}}),
        );
    }

    fn depth(&mut self, link: LinkId, first: u64, last: u64) {
        self.update = self.update.max(last);
        self.message(
            link,
            &json!({"stream": "ausdt@depth@100ms", "data": {"e": "depthUpdate", "E": 1, "s": "AUSDT", "U": first, "u": last,
                "b": [["10.00", "2"]], "a": []}}),
        );
    }

    fn close(&mut self, link: LinkId) -> Result<(), SourceError> {
        self.open.remove(&link);
        let failure = Failure { reason: "host:1: it closed the connection".to_owned(), after: Duration::ZERO };
        self.take(NetworkEvent::Closed(link, failure))
    }

    /// The streams of the subscriptions on a connection.
    fn subscribed(&self, link: LinkId) -> Vec<String> {
        let of_link = self.sent.iter().filter(|(at, text)| *at == link && text["method"] == "SUBSCRIBE");
        let params = of_link.flat_map(|(_, text)| text["params"].as_array().expect("a list").iter());
        params.map(|stream| stream.as_str().expect("a text").to_owned()).collect()
    }

    /// The records since the last call: trades by id, Gaps as negative numbers, books by action and flag, states.
    fn records(&mut self) -> Vec<String> {
        let batch = std::mem::take(&mut self.batch);
        record::records(&batch).filter_map(|(header, bytes)| show(&header, bytes)).collect()
    }

    fn states(&self) -> Vec<(String, StreamState)> {
        self.driver.streams().into_iter().map(|stream| (stream.name, stream.state)).collect()
    }
}

fn show(header: &RecordHeader, bytes: &[u8]) -> Option<String> {
    Some(match header.known_kind()? {
        RecordKind::Trade => Trade::read(bytes)?.trade_id.to_string(),
        RecordKind::Gap => format!("-{}", record::Gap::read(bytes)?.missing()),
        RecordKind::Book => {
            let (action, levels) = record::read_book(bytes)?;
            match (action, levels.len()) {
                (BookAction::Snapshot, 0) if header.flags & flags::MAYBE_BAD_BOOK != 0 => "void".to_owned(),
                (BookAction::Snapshot, _) => "snapshot".to_owned(),
                _ => "delta".to_owned(),
            }
        }
        RecordKind::Status => match read_status(bytes)? {
            FeedState::Stale => "stale".to_owned(),
            state => format!("{state:?}"),
        },
        _ => return None,
    })
}

fn listed(symbol: &str) -> Value {
    json!({"symbol": symbol, "status": "TRADING", "baseAsset": symbol, "quoteAsset": "USDT", "filters": [
        {"filterType": "PRICE_FILTER", "tickSize": "0.01"}, {"filterType": "LOT_SIZE", "stepSize": "0.001"}]})
}

fn life(seconds: u64) -> impl FnOnce(&mut Access) {
    move |access| access.limits.connection_life_ns = Some(seconds * S)
}

/// A book and trades on one connection.
fn started(change: impl FnOnce(&mut Access)) -> (Bench, LinkId) {
    let mut bench = Bench::new(Venue::Binance, "AUSDT?channels=trade,book", change);
    bench.start(&["AUSDT"]);
    let link = bench.links()[0];
    bench.depth(link, 99, 101);
    bench.run(POLL_NS).expect("the book is asked for");
    bench.answer(&[]).expect("it is taken");
    bench.trade(link, 1);
    assert_eq!(bench.records(), ["snapshot", "delta", "1"]);
    (bench, link)
}

/// Runs until another connection is to be opened, opens it, and returns it.
fn next_link(bench: &mut Bench, present: LinkId, within_ns: u64) -> LinkId {
    let until_ns = bench.now_ns + within_ns;
    while bench.links() == [present] {
        assert!(bench.now_ns < until_ns, "no other connection is opened");
        bench.run(S).expect("the source goes on");
    }
    let next = *bench.links().iter().find(|link| **link != present).expect("another one");
    bench.take(NetworkEvent::Opened(next)).expect("it is subscribed");
    next
}

#[test]
fn symbols_are_divided_over_connections_at_the_limit_of_streams() {
    let symbols = ["AUSDT", "BUSDT", "CUSDT", "DUSDT", "EUSDT"];
    let mut bench = Bench::new(Venue::Binance, &symbols.join(","), |access| access.limits.streams_per_connection = 8);
    bench.run(S).expect("it begins");
    assert_eq!(bench.gets.len(), 1, "one request for all");
    assert_eq!(bench.open.len(), 0, "the symbols are checked first");
    bench.answer(&symbols).expect("all are listed");
    bench.run(POLL_NS).expect("connections are opened");
    assert_eq!(bench.open.len(), 3);
    let links = bench.links();
    for link in &links {
        bench.take(NetworkEvent::Opened(*link)).expect("it is subscribed");
    }
    let counts: Vec<_> = links.iter().map(|link| bench.subscribed(*link).len()).collect();
    assert_eq!(counts, [8, 8, 4]);
    let mut all: Vec<_> = links.iter().flat_map(|link| bench.subscribed(*link)).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 20, "each stream once");
    let ids: Vec<_> = record::records(&bench.batch)
        .filter(|(header, _)| header.known_kind() == Some(RecordKind::Definition))
        .map(|(header, _)| header.instrument)
        .collect();
    assert_eq!(ids, [1, 2, 3, 4, 5], "ids are those of the source");
    assert_eq!(bench.states().len(), 20);
    // The list is asked for again, by all lanes at once, and once.
    bench.run(601 * S).expect("the source goes on");
    let lists = bench.gets.iter().filter(|get| get.path.contains("exchangeInfo")).count();
    assert_eq!(lists, 1);
}

#[test]
fn channels_come_from_the_endpoints_that_have_them() {
    let mut bench = Bench::new(Venue::BinanceUsdM, "AUSDT", |_| {});
    bench.start(&["AUSDT"]);
    let streams: Vec<_> = bench.open.iter().map(|(link, endpoint)| (*endpoint, bench.subscribed(*link))).collect();
    let expected = |names: [&str; 2]| names.map(|name| format!("ausdt@{name}")).to_vec();
    assert_eq!(streams, [(0, expected(["bookTicker", "depth@100ms"])), (1, expected(["aggTrade", "ticker"]))]);
    // The loss of one leaves the other's streams as they are.
    let links = bench.links();
    let before = bench.states();
    bench.close(links[1]).expect("one is open");
    let lost: Vec<_> = bench.states().into_iter().filter(|state| !before.contains(state)).collect();
    assert!(
        matches!(&lost[..], [(trade, StreamState::Failed { .. }), (ticker, StreamState::Failed { .. })]
        if trade == "AUSDT.trade" && ticker == "AUSDT.ticker"),
        "{lost:?}"
    );
    assert_eq!(bench.records(), [""; 0], "no book is voided, nothing is stale");
}

#[test]
fn unknown_symbol_is_fatal_at_the_start_and_a_failed_stream_later() {
    let has_run = Arc::default();
    let mut bench = Bench::again(Venue::Binance, "AUSDT,AUSD", |_| {}, &has_run);
    bench.run(0).expect("it begins");
    let Err(SourceError::Fatal { reason, cure }) = bench.answer(&["AUSDT", "BUSDT"]) else { panic!("it is unknown") };
    let expected = "binance: unknown symbol \"AUSD\": expected one of its 2 instruments, such as AUSDT";
    assert_eq!((reason.as_str(), cure.starts_with("correct the --feed argument")), (expected, true));
    assert_eq!(bench.open.len(), 0, "nothing is subscribed");

    let mut bench = Bench::again(Venue::Binance, "AUSDT,AUSD", |_| {}, &has_run);
    bench.start(&["AUSDT", "AUSD"]);
    let mut bench = Bench::again(Venue::Binance, "AUSDT,AUSD?channels=trade", |_| {}, &has_run);
    bench.start(&["AUSDT"]);
    let reason = "the venue does not list it any more".to_owned();
    let states = bench.states();
    assert_eq!(states[1], ("AUSD.trade".to_owned(), StreamState::Failed { reason }));
    assert_eq!(bench.subscribed(bench.links()[0]), ["ausdt@trade"]);
}

#[test]
fn connection_is_replaced_before_its_life_ends_without_loss_or_duplicates() {
    let (mut bench, old) = started(life(1000));
    bench.run_with_book(old, 980 * S);
    assert_eq!(bench.links(), [old]);
    let records_before = bench.driver.report().records;
    let next = next_link(&mut bench, old, 15 * S);
    let update = bench.update;
    // The next one is ahead of the old one, then behind it.
    bench.trade(old, 2);
    bench.trade(next, 4);
    bench.trade(old, 3);
    bench.trade(old, 4);
    bench.trade(next, 5);
    bench.trade(old, 5);
    bench.trade(next, 6);
    bench.depth(old, update + 1, update + 2);
    bench.depth(next, 99, update + 2);
    bench.run(OVERLAP_NS_MIN - 2 * POLL_NS).expect("the book is asked for");
    bench.answer(&[]).expect("it is taken");
    bench.depth(old, update + 3, update + 4);
    bench.depth(next, update + 3, update + 4);
    assert_eq!(bench.records(), ["2", "3", "4", "5", "6", "delta", "snapshot", "delta", "delta"]);
    assert_eq!(bench.links(), [old, next]);
    bench.run(S).expect("the source goes on");
    assert_eq!(bench.links(), [next], "the old one is closed");
    bench.trade(next, 7);
    assert_eq!(bench.records(), ["7"], "no book was voided");
    assert_eq!(bench.driver.report().trades_lost, 0);
    assert_eq!(bench.driver.report().records - records_before, 10, "what was published");
    // And so on.
    bench.run_with_book(next, 970 * S);
    assert_eq!(bench.links(), [next]);
    let another = next_link(&mut bench, next, 40 * S);
    assert_eq!(bench.subscribed(another), bench.subscribed(next));
}

#[test]
fn venue_that_ends_the_old_connection_early_leaves_a_gap_of_what_is_missing() {
    let (mut bench, old) = started(life(100));
    bench.run_with_book(old, 80 * S);
    let next = next_link(&mut bench, old, 20 * S);
    bench.trade(old, 2);
    bench.trade(next, 5);
    bench.close(old).expect("the next one is open");
    assert_eq!(bench.records(), ["2", "void", "-2", "5"]);
    assert_eq!(bench.driver.report().trades_lost, 2);
    assert_eq!(bench.links(), [next]);
    bench.trade(next, 6);
    assert_eq!(bench.records(), ["6"]);
}

#[test]
fn announced_end_of_a_connection_opens_the_next_one() {
    let (mut bench, old) = started(|_| {});
    bench.message(old, &json!({"e": "serverShutdown", "E": 1}));
    let next = next_link(&mut bench, old, S);
    // It does not get to work: the old one goes on, and another attempt is made.
    bench.close(next).expect("the old one is open");
    bench.trade(old, 2);
    assert_eq!(bench.records(), ["2"]);
    next_link(&mut bench, old, 120 * S);
}

#[test]
fn other_exponents_during_a_change_postpone_it() {
    let (mut bench, old) = started(life(100));
    bench.run_with_book(old, 80 * S);
    let next = next_link(&mut bench, old, 20 * S);
    let finer = json!({"stream": "ausdt@trade", "data": {"e": "trade", "E": 1, "s": "AUSDT", "t": 2, "p": "10.123456",
        "q": "1", "T": 1_700_000_000_000_u64, "m": true, "M": true}});
    bench.message(next, &finer);
    assert_eq!((bench.records(), bench.links()), (vec![], vec![old]), "records of two scales do not mix");
    bench.message(old, &finer);
    assert_eq!(bench.records(), ["2"]);
    let next = next_link(&mut bench, old, 61 * S);
    bench.trade(old, 3);
    bench.trade(next, 3);
    bench.trade(next, 4);
    assert_eq!(bench.records(), ["3", "4"]);
}

#[test]
fn change_ends_at_the_latest_after_a_time() {
    let (mut bench, old) = started(life(100));
    bench.run_with_book(old, 80 * S);
    let next = next_link(&mut bench, old, 20 * S);
    bench.records();
    bench.run(OVERLAP_NS_MAX - S).expect("the source goes on");
    assert_eq!(bench.links(), [old, next], "the book is not handed over");
    bench.run(2 * S).expect("the source goes on");
    assert!(!bench.links().contains(&old) && bench.links().contains(&next));
    assert_eq!(bench.records(), ["void"]);
}

#[test]
fn lost_connection_is_opened_again_while_the_others_go_on() {
    let mut bench = Bench::new(Venue::Binance, "AUSDT,BUSDT?channels=trade,book", |access| {
        access.limits.streams_per_connection = 2;
    });
    bench.start(&["AUSDT", "BUSDT"]);
    let links = bench.links();
    bench.depth(links[0], 99, 101);
    bench.run(POLL_NS).expect("the book is asked for");
    bench.answer(&[]).expect("it is taken");
    bench.trade(links[0], 1);
    bench.records();
    bench.close(links[0]).expect("the other one is open");
    assert_eq!(bench.records(), ["void", "stale"]);
    let failed: Vec<_> =
        bench.states().into_iter().filter(|(_, state)| matches!(state, StreamState::Failed { .. })).collect();
    let reason = "host:1: it closed the connection".to_owned();
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert_eq!(failed[0], ("AUSDT.trade".to_owned(), StreamState::Failed { reason }));
    let again = next_link(&mut bench, links[1], 2 * S);
    assert_eq!(bench.subscribed(again), ["ausdt@trade", "ausdt@depth@100ms"]);
    bench.trade(again, 4);
    assert_eq!(bench.records(), ["-2", "4"], "what was lost meanwhile is counted");
    assert!(bench.states().iter().all(|(_, state)| !matches!(state, StreamState::Failed { .. })));
}

#[test]
fn source_without_a_connection_fails_at_once_at_the_start_and_after_a_time_later() {
    let mut bench = Bench::new(Venue::Binance, "AUSDT", |_| {});
    bench.run(0).expect("it begins");
    bench.answer(&["AUSDT"]).expect("it is listed");
    bench.run(POLL_NS).expect("a connection is opened");
    let link = bench.links()[0];
    let error = bench.close(link).expect_err("there is none");
    assert_eq!(error, SourceError::retry("host:1: it closed the connection"));

    let (mut bench, link) = started(|_| {});
    bench.close(link).expect("it waits");
    let began_ns = bench.now_ns;
    let error = loop {
        if let Err(error) = bench.run(POLL_NS) {
            break error;
        }
        for link in bench.links() {
            bench.close(link).unwrap_or_default();
        }
        assert!(bench.now_ns < began_ns + 60 * S, "it never fails");
    };
    assert_eq!(error, SourceError::retry("host:1: it closed the connection"));
    assert!(bench.now_ns >= began_ns + DOWN_NS_MAX);
}

#[test]
fn list_that_cannot_be_had_is_asked_for_again_by_the_supervisor() {
    let mut bench = Bench::new(Venue::Binance, "AUSDT", |_| {});
    bench.run(0).expect("it begins");
    let number = bench.gets[0].number;
    let failure = Failure { reason: "host:1: HTTP 429".to_owned(), after: Duration::from_secs(7) };
    let error = bench.take(NetworkEvent::Answered(Answer { number, body: Err(failure) })).expect_err("no list");
    let reason = "the list of instruments cannot be had: host:1: HTTP 429".to_owned();
    assert_eq!(error, SourceError::Retry { reason, after: Duration::from_secs(7) });
}

#[test]
fn silent_stream_is_subscribed_on_another_connection_and_shown_as_stale() {
    let (mut bench, old) = started(|_| {});
    bench.message(old, &json!({"result": null, "id": 1}));
    let next = next_link(&mut bench, old, 70 * S);
    let stale = |bench: &Bench| {
        let states = bench.states().into_iter();
        states.filter(|(_, state)| matches!(state, StreamState::Stale { .. })).map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(stale(&bench), ["AUSDT.book"], "trades may be silent");
    bench.depth(next, 99, 103);
    bench.run(POLL_NS).expect("the book is asked for");
    bench.answer(&[]).expect("it is taken");
    bench.run(OVERLAP_NS_MIN).expect("the source goes on");
    assert_eq!((bench.links(), stale(&bench)), (vec![next], vec![]));
    // An instrument that does not change is silent as well: connections are not replaced all the time.
    let mut opened = 0;
    for _ in 0..3600 {
        bench.run(S).expect("the source goes on");
        if let [present, next] = bench.links()[..] {
            opened += 1;
            bench.take(NetworkEvent::Opened(next)).expect("it is subscribed");
            bench.run(OVERLAP_NS_MAX + S).expect("the source goes on");
            assert_eq!(bench.links(), [next], "{present:?} is closed");
        }
    }
    assert!((2..=6).contains(&opened), "{opened} in an hour");
}
