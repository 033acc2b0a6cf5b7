//! Recorded sessions, played at the greatest speed: the venue's truth is what an oracle in Python makes of the file, and
//! the codecs have the same.

use std::path::PathBuf;

use fake_venue::{FakeVenue, Options, Source, Speed, Truth, VenueKind};
use serde_json::Value;
use tickcast_protocol::Channel;
use tickcast_test_support::market_state::number;
use tickcast_test_support::paths::recordings;
use tickcast_test_support::python_oracle::{self, BINANCE, CRYPTOFEED};

use crate::driver::{Driver, depth_of};

fn recorded(kind: VenueKind, path: PathBuf, limit_ms: Option<u64>) -> Options {
    let source = Source::Recording { path, limit_ms };
    let with_checksums = kind == VenueKind::Okx;
    Options { source, speed: Speed::Max, is_plain: true, with_checksums, ..Options::new(kind) }
}

/// `b10101.1x0.45 a10102.55x0.57`: both sides, each best first, numbers without zeros at the end.
fn text(truth: &Truth, symbol: &str) -> String {
    let of = &truth.instruments[symbol];
    let side = |letter, levels: &[(String, String)]| {
        let plain = |text: &str| number(text).normalize().to_string();
        levels.iter().map(move |(px, sz)| format!("{letter}{}x{}", plain(px), plain(sz))).collect::<Vec<_>>()
    };
    [side('b', &of.bids), side('a', &of.asks)].concat().join(" ")
}

fn follow(kind: VenueKind, name: &str, script: &str, channels: &[Channel], depth: Option<u32>) {
    follow_best(kind, name, script, channels, (depth, usize::MAX));
}

/// Compares the best `levels`, where those further away are not in a snapshot.
fn follow_best(kind: VenueKind, name: &str, script: &str, channels: &[Channel], (depth, levels): (Option<u32>, usize)) {
    let Some(file) = recordings().map(|dir| dir.join(name)) else { return };
    let venue = FakeVenue::start(recorded(kind, file.clone(), None)).expect("it starts");
    let symbols: Vec<_> = venue.truth().instruments.into_keys().collect();
    let names: Vec<_> = symbols.iter().map(String::as_str).collect();
    let mut driver = Driver::new(&venue, kind, &names, channels, depth);
    driver.until("the end of the recording", |_| venue.is_over());
    venue.stop_session();
    let truth = venue.truth();
    let levels = depth_of(kind, depth).min(levels);
    driver.until("the last book", |driver| driver.is_whole(&truth, levels));
    let report = driver.report;
    let faults = (report.malformed, report.book_gaps, report.checksum_errors, report.trades_lost, report.levels_lost);
    assert_eq!(faults, (0, 0, 0, 0, 0), "{kind}: {:?}", driver.events);
    if channels.contains(&Channel::Trade) {
        driver.until("the last trades", |driver| driver.has_last_trades(&truth));
        driver.assert_trades(&truth);
    }
    let Some(oracle) = python_oracle::read(script, &file) else { return };
    for symbol in &symbols {
        let recorded = symbol.replace("BTC/", "XBT/").replace("/BTC", "/XBT");
        let named = if kind == VenueKind::Kraken { &recorded } else { symbol };
        assert_eq!(Value::from(text(&truth, symbol)), oracle["instruments"][named]["book"], "{kind} {symbol}");
    }
}

const ALL: [Channel; 4] = [Channel::Quote, Channel::Trade, Channel::Ticker, Channel::Book];

#[test]
fn coinbase() {
    follow(VenueKind::Coinbase, "cryptofeed_COINBASE.ws.28.0.gz", CRYPTOFEED, &ALL, None);
}

#[test]
fn kraken_v1_is_played_as_v2() {
    follow(VenueKind::Kraken, "cryptofeed_KRAKEN.ws.50.0.gz", CRYPTOFEED, &[Channel::Book], Some(1000));
}

#[test]
fn okx() {
    follow(VenueKind::Okx, "cryptofeed_OKX.ws.1.0.gz", CRYPTOFEED, &ALL, None);
}

#[test]
fn binance() {
    let channels = [Channel::Quote, Channel::Trade, Channel::Book];
    follow(VenueKind::Binance, "binance_spot_ethusdt_20240808.gz", BINANCE, &channels, None);
}

#[test]
fn binance_usdm() {
    // A snapshot has 1,000 levels; the others are known once they change.
    let name = "binance_usdm_btcusdt_20240808.gz";
    follow_best(VenueKind::BinanceUsdM, name, BINANCE, &[Channel::Quote, Channel::Book], (None, 500));
}
