//! Replay of the real recordings, compared with an independent decoder.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rust_decimal::Decimal;
use tickcast_test_support::binance_oracle::{self, OracleInstrument};
use tickcast_test_support::feed_stream::{self, InstrumentState};
use tickcast_test_support::paths::recordings;

const FILES: [(&str, &str, &str, i8, i8); 3] = [
    ("binance_spot_btcusdt_20240808.gz", "BTCUSDT", "binance", -8, -8),
    ("binance_spot_ethusdt_20240808.gz", "ETHUSDT", "binance", -8, -8),
    ("binance_usdm_btcusdt_20240808.gz", "BTCUSDT-PERP", "binance-usdm", -2, -3),
];

fn files() -> Option<Vec<PathBuf>> {
    recordings().map(|dir| FILES.iter().map(|(file, ..)| dir.join(file)).collect())
}

fn normal(levels: &BTreeMap<Decimal, Decimal>) -> BTreeMap<Decimal, Decimal> {
    levels.iter().map(|(px, sz)| (px.normalize(), sz.normalize())).collect()
}

fn assert_same(known: &InstrumentState, want: &OracleInstrument) {
    let name = &known.instrument.symbol;
    assert_eq!(known.quotes, want.quote_count, "{name}: quotes");
    assert_eq!((known.snapshots, known.deltas), (1, want.applied_count), "{name}: snapshots and deltas");
    assert!(want.applied_count + 20 > want.depth_count, "{name}: nearly all updates come after the snapshot");
    assert!(known.side(known.book.bids()) == normal(&want.bids), "{name}: bids");
    assert!(known.side(known.book.asks()) == normal(&want.asks), "{name}: asks");
    let quote = known.last_quote.expect("a quote");
    let quote = (known.px(quote.bid_px), known.sz(quote.bid_sz), known.px(quote.ask_px), known.sz(quote.ask_sz));
    assert_eq!(quote, want.last_quote, "{name}: last quote");
    let trades: Vec<_> = known
        .trades
        .iter()
        .map(|trade| (trade.trade_id, known.px(trade.px), known.sz(trade.sz), char::from(u8::from(trade.side))))
        .collect();
    assert!(trades == want.trades, "{name}: trades");
    assert_last_ticker(known, want);
}

/// Compares the ticker with one computed from the independent decoder's trades, in another arithmetic.
fn assert_last_ticker(known: &InstrumentState, want: &OracleInstrument) {
    let ticker = known.tickers.last().expect("tickers made from trades");
    let prices = || want.trades.iter().map(|(_, px, ..)| *px);
    let shown = [ticker.open_px, ticker.last_px, ticker.high_px, ticker.low_px].map(|px| known.px(px));
    let expected = [prices().next(), prices().next_back(), prices().max(), prices().min()];
    assert_eq!(shown.map(Some), expected.map(|px| px.map(|px| px.normalize())));
    let volume: Decimal = want.trades.iter().map(|(_, _, sz, _)| *sz).sum();
    let turnover: Decimal = want.trades.iter().map(|(_, px, sz, _)| *px * *sz).sum();
    assert_eq!(known.sz(ticker.volume), volume.normalize());
    let places = known.instrument.px_exp.unsigned_abs().into();
    assert_eq!(known.px(ticker.turnover), turnover.trunc_with_scale(places).normalize());
    let quote = known.last_quote.expect("a quote");
    assert_eq!((ticker.bid_px, ticker.ask_px), (quote.bid_px, quote.ask_px));
}

#[test]
fn replay_equals_an_independent_decoder() {
    let Some(files) = files() else { return };
    for (file, (_, name, venue, px_exp, sz_exp)) in files.iter().zip(FILES) {
        let (stream, report) = feed_stream::run_to_end(std::slice::from_ref(file), "speed=max");
        assert_eq!((report.malformed, report.ignored, report.book_gaps), (0, 0, 0), "{name}");
        let known = feed_stream::instrument_states(&stream);
        assert_eq!(known.len(), 1);
        let instrument = &known[name].instrument;
        assert_eq!((instrument.venue.as_str(), instrument.px_exp, instrument.sz_exp), (venue, px_exp, sz_exp));
        assert_same(&known[name], &binance_oracle::read(std::slice::from_ref(file)).instruments[name]);
    }
}

#[test]
fn recordings_replayed_together_keep_their_instruments_apart() {
    let Some(files) = files() else { return };
    let (stream, report) = feed_stream::run_to_end(&files, "speed=1000");
    assert_eq!((report.malformed, report.ignored, report.book_gaps), (0, 0, 0));
    let known = feed_stream::instrument_states(&stream);
    let oracle = binance_oracle::read(&files);
    assert!(known.keys().eq(oracle.instruments.keys()));
    for (name, want) in &oracle.instruments {
        assert_same(&known[name], want);
    }
    // 345 s of recording at a thousand times the speed.
    let span_ns = stream.last().expect("records").at_ns - stream[0].at_ns;
    assert!((345_000_000..=347_000_000).contains(&span_ns), "{span_ns} ns");
}

#[test]
fn removed_update_is_detected_and_a_snapshot_restores_the_book() {
    let Some(files) = files() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    for (file, (_, name, ..)) in files.iter().zip(FILES) {
        let text = binance_oracle::text(file);
        let mut lines: Vec<&str> = text.lines().collect();
        let is_depth = |line: &str| line.contains("depthUpdate");
        let depths: Vec<usize> = (0..lines.len()).filter(|index| is_depth(lines[*index])).collect();
        // The book after every update up to the last but 100, as a snapshot 100 updates before the end.
        let snapshot_line = depths[depths.len() - 100];
        let snapshot = snapshot_after(&lines[..=snapshot_line], name);
        lines.insert(snapshot_line + 1, &snapshot);
        lines.remove(depths[depths.len() / 2]);
        let planted = dir.path().join(name);
        std::fs::write(&planted, lines.join("\n")).expect("room for it");
        let (stream, report) = feed_stream::run_to_end(&[planted], "speed=max");
        assert_eq!((report.malformed, report.book_gaps), (0, 1), "{name}");
        let known = &feed_stream::instrument_states(&stream)[name];
        assert_eq!(known.snapshots, 3, "{name}: the first, the invalid one, the new one");
        assert!(!known.book_is_bad);
        let want = &binance_oracle::read(std::slice::from_ref(file)).instruments[name];
        assert!(known.side(known.book.bids()) == normal(&want.bids), "{name}: bids");
        assert!(known.side(known.book.asks()) == normal(&want.asks), "{name}: asks");
    }
}

/// The REST response that the venue would have given after these lines.
fn snapshot_after(lines: &[&str], name: &str) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("part");
    std::fs::write(&path, lines.join("\n")).expect("room for it");
    let book = &binance_oracle::read(&[path]).instruments[name];
    let last = lines.last().expect("a line");
    let (stamp, json) = last.split_once(' ').expect("a stamp");
    let message: serde_json::Value = serde_json::from_str(json).expect("JSON");
    let levels = |side: &BTreeMap<Decimal, Decimal>| {
        side.iter().map(|(px, sz)| [px.to_string(), sz.to_string()]).collect::<Vec<_>>()
    };
    let (bids, asks) = (levels(&book.bids), levels(&book.asks));
    let id = message["data"]["u"].clone();
    format!("{stamp} {}", serde_json::json!({"lastUpdateId": id, "bids": bids, "asks": asks}))
}
