//! A generated session of each venue without faults: subscribed, acknowledged, books and trades equal to the truth.

use fake_venue::{FakeVenue, Options, ScriptedChange, Speed, VenueKind};
use tickcast_protocol::Channel;
use tickcast_venues::{Event, StreamName};

use crate::driver::{Driver, depth_of};

const SEED: u64 = 11;

/// A venue without TLS, at eight times the speed.
pub fn plain(venue: VenueKind) -> Options {
    let source = fake_venue::Source::Generate(SEED);
    Options { source, speed: Speed::Times(8.0), is_plain: true, ..Options::new(venue) }
}

/// The symbols that the generator has.
pub fn symbols_of(venue: &FakeVenue) -> Vec<String> {
    venue.truth().instruments.into_keys().collect()
}

fn follow(kind: VenueKind, channels: &[Channel], path: Option<&'static str>, depth: Option<u32>) {
    let venue = FakeVenue::start(plain(kind)).expect("it starts");
    let symbols = symbols_of(&venue);
    let names: Vec<_> = symbols.iter().map(String::as_str).collect();
    let mut driver = Driver::new(&venue, kind, &names, channels, depth);
    if let Some(path) = path {
        driver = driver.at(path);
    }
    let has_books = channels.contains(&Channel::Book);
    driver.until("a second of the market", |driver| {
        let trades: usize = driver.state.instruments.values().map(|of| of.trades.len()).sum();
        (driver.has_books() || !has_books)
            && (trades > 30 || !channels.contains(&Channel::Trade))
            && driver.report.records > 500
    });
    venue.stop_session();
    let truth = venue.truth();
    driver.until(&format!("the last book of {kind}"), |driver| {
        driver.difference(&truth, depth_of(kind, depth)).is_empty()
    });
    let report = driver.report;
    let faults = (report.malformed, report.book_gaps, report.checksum_errors, report.trades_lost, report.untimed);
    assert_eq!(faults, (0, 0, 0, 0, 0), "{kind} {:?}", driver.events);
    let acknowledged = |symbol: &String, channel: Channel| {
        let stream = StreamName { symbol: symbol.clone(), channel };
        driver.events.contains(&Event::Subscribed(stream))
    };
    for symbol in &symbols {
        assert!(channels.iter().all(|channel| acknowledged(symbol, *channel)), "{kind} {symbol}: {:?}", driver.events);
    }
    if channels.contains(&Channel::Trade) {
        driver.until("the last trades", |driver| driver.has_last_trades(&truth));
        driver.assert_trades(&truth);
    }
}

#[test]
fn binance() {
    follow(VenueKind::Binance, &[Channel::Quote, Channel::Trade, Channel::Ticker, Channel::Book], None, None);
    follow(VenueKind::BinanceCoinM, &[Channel::Quote, Channel::Trade, Channel::Ticker, Channel::Book], None, None);
}

#[test]
fn binance_usdm_has_two_addresses() {
    follow(VenueKind::BinanceUsdM, &[Channel::Quote, Channel::Book], Some("/public/stream"), None);
    follow(VenueKind::BinanceUsdM, &[Channel::Trade, Channel::Ticker], Some("/market/stream"), None);
}

#[test]
fn binance_usdm_is_silent_at_another_address() {
    for (path, channel) in
        [("/stream", Channel::Quote), ("/market/stream", Channel::Book), ("/public/stream", Channel::Ticker)]
    {
        let venue = FakeVenue::start(plain(VenueKind::BinanceUsdM)).expect("it starts");
        let mut driver = Driver::new(&venue, VenueKind::BinanceUsdM, &["BTCUSDT"], &[channel], None).at(path);
        let stream = StreamName { symbol: "BTCUSDT".to_owned(), channel };
        let acknowledged = Event::Subscribed(stream.clone());
        driver.until("the acknowledgement", |driver| driver.events.contains(&acknowledged));
        driver.ahead = std::time::Duration::from_secs(61);
        driver.until("the silence", |driver| {
            driver.events.iter().any(|event| matches!(event, Event::Silent { stream: of, .. } if *of == stream))
        });
    }
}

#[test]
fn coinbase() {
    follow(VenueKind::Coinbase, &[Channel::Quote, Channel::Trade, Channel::Ticker, Channel::Book], None, None);
}

#[test]
fn kraken_at_each_depth_that_cuts_the_book() {
    for depth in [None, Some(10), Some(25)] {
        follow(VenueKind::Kraken, &[Channel::Quote, Channel::Trade, Channel::Ticker, Channel::Book], None, depth);
    }
}

#[test]
fn bybit_in_each_category() {
    for (kind, depth) in
        [(VenueKind::Bybit, Some(50)), (VenueKind::BybitLinear, None), (VenueKind::BybitInverse, Some(50))]
    {
        follow(kind, &[Channel::Quote, Channel::Trade, Channel::Ticker, Channel::Book], None, depth);
    }
}

#[test]
fn okx() {
    follow(VenueKind::Okx, &[Channel::Quote, Channel::Trade, Channel::Ticker, Channel::Book], None, None);
}

#[test]
fn tick_change_and_delisting_are_told() {
    for kind in [VenueKind::Coinbase, VenueKind::Kraken, VenueKind::Okx] {
        let venue = FakeVenue::start(plain(kind)).expect("it starts");
        let symbols = symbols_of(&venue);
        let mut driver = Driver::new(&venue, kind, &[&symbols[0], &symbols[1]], &[Channel::Book], None);
        driver.until("the books", |driver| driver.has_books());
        let before = driver.state.of(&symbols[0]).expect("defined").definition.clone();
        venue.change(&ScriptedChange::Tick(symbols[0].clone()));
        driver.until("the tick", |driver| {
            let after = &driver.state.of(&symbols[0]).expect("defined").definition;
            let tick = |of: &tickcast_protocol::Instrument| of.tick_size as f64 * 10_f64.powi(of.px_exp.into());
            (tick(after) / tick(&before) - 10.0).abs() < 0.001
        });
        venue.change(&ScriptedChange::Delist(symbols[1].clone()));
        driver.until("the end", |driver| {
            driver.state.of(&symbols[1]).is_some_and(|of| {
                !of.states.is_empty() || { of.definition.status != tickcast_protocol::InstrumentStatus::Trading }
            })
        });
        venue.stop_session();
        let truth = venue.truth();
        driver.until("the last book", |driver| driver.difference(&truth, depth_of(kind, None)).is_empty());
    }
}
