//! Replay of recorded messages of other venues than Binance. The recorded sessions are compared with the oracle in
//! Python that the codecs are tested with.

use std::path::PathBuf;

use serde_json::json;
use tickcast::ingest::feed::replay::{Params, Replay};
use tickcast_protocol::RecordKind;
use tickcast_test_support::feed_stream::{self, InstrumentState};
use tickcast_test_support::paths::recordings;
use tickcast_test_support::python_oracle;

const T0_NS: u64 = 1_723_161_254_000_000_000;

fn book_text(known: &InstrumentState) -> String {
    let level = |side: char, (px, sz): (i64, i64)| format!("{side}{}x{}", known.px(px), known.sz(sz));
    let bids = known.book.bids().map(|pair| level('b', pair));
    let asks = known.book.asks().map(|pair| level('a', pair));
    bids.chain(asks).collect::<Vec<_>>().join(" ")
}

#[test]
fn sessions_of_cryptofeed_replay_as_the_oracle_reads_them() {
    let Some(dir) = recordings() else { return };
    for (name, venue) in [
        ("cryptofeed_COINBASE.ws.28.0.gz", "coinbase"),
        ("cryptofeed_KRAKEN.ws.50.0.gz", "kraken"),
        ("cryptofeed_OKX.ws.1.0.gz", "okx"),
    ] {
        let file = dir.join(name);
        let Some(oracle) = python_oracle::read(python_oracle::CRYPTOFEED, &file) else { return };
        let (stream, report) = feed_stream::run_to_end(&[file], "speed=max");
        assert_eq!((report.malformed, report.untimed, report.levels_lost), (0, 0, 0), "{name}");
        assert_eq!((report.book_gaps, report.checksum_errors, report.trades_lost), (0, 0, 0), "{name}");
        let states = feed_stream::instrument_states(&stream);
        assert_eq!(states.len(), oracle["instruments"].as_object().expect("instruments").len());
        for (symbol, known) in &states {
            let expected = &oracle["instruments"][symbol];
            assert_eq!(known.instrument.venue, venue);
            assert_eq!(json!(book_text(known)), expected["book"], "{name}: {symbol}");
            let trades: Vec<_> = known
                .trades
                .iter()
                .map(|trade| {
                    let (px, sz) = (known.px(trade.px).to_string(), known.sz(trade.sz).to_string());
                    json!([trade.trade_id, px, sz, char::from(u8::from(trade.side)).to_string()])
                })
                .collect();
            assert_eq!(json!(trades), expected["trades"], "{name}: {symbol}");
        }
    }
}

fn file(dir: &tempfile::TempDir, lines: &[&str]) -> PathBuf {
    let path = dir.path().join(format!("recording{}", lines.len()));
    let stamped = |(nth, line): (usize, &&str)| format!("{} {line}", T0_NS + nth as u64);
    let text: Vec<_> = lines.iter().enumerate().map(stamped).collect();
    std::fs::write(&path, text.join("\n")).expect("written");
    path
}

#[test]
fn messages_show_their_venue_and_a_given_one_is_taken_as_it_is() {
    let trade = r#"{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1672304486868,"data":[{"T":1672304486865,
        "s":"BTCUSDT","S":"Buy","v":"0.001","p":"16578.50","i":"7"}]}"#
        .replace('\n', "");
    let dir = tempfile::tempdir().expect("a directory");
    for (first, query, venue, symbol) in [
        (r#"{"success":true,"ret_msg":"","op":"subscribe"}"#, "", "bybit", "BTCUSDT"),
        (r#"{"success":true,"ret_msg":"","op":"subscribe"}"#, "&venue=bybit-linear", "bybit-linear", "BTCUSDT-PERP"),
        (
            r#"{"topic":"tickers.X","type":"delta","ts":1672304486868,"data":{"symbol":"XUSDT","fundingRate":"0"}}"#,
            "",
            "bybit-linear",
            "BTCUSDT-PERP",
        ),
    ] {
        let (stream, report) = feed_stream::run_to_end(&[file(&dir, &[first, &trade])], &format!("speed=max{query}"));
        assert_eq!(report.malformed, 0);
        let states = feed_stream::instrument_states(&stream);
        let known = states.get(symbol).unwrap_or_else(|| panic!("{symbol} is not among {:?}", states.keys()));
        assert_eq!((known.instrument.venue.as_str(), known.trades.len()), (venue, 1));
    }
}

#[test]
fn repeated_session_voids_its_books_between_and_publishes_its_trades_again() {
    let book = r#"{"type":"snapshot","product_id":"BTC-USD","bids":[["10101.10","0.45"]],"asks":[]}"#;
    let trade = r#"{"type":"match","trade_id":10,"time":"2014-11-07T08:19:27.028459Z","product_id":"BTC-USD","size":"5.25","price":"4.23","side":"sell"}"#;
    let dir = tempfile::tempdir().expect("a directory");
    let mut replay = feed_stream::open(&[file(&dir, &[book, trade])], "speed=1&loop=1");
    let stream = feed_stream::run(&mut replay, T0_NS, T0_NS + 150_000_000);
    let shown: Vec<_> = stream
        .iter()
        .map(|record| match record.kind() {
            RecordKind::Book => record.book_text(),
            kind => format!("{kind:?}"),
        })
        .collect();
    assert_eq!(shown, ["Definition", "S B45@1010110", "Trade", "S?", "S B45@1010110", "Trade", "S?"]);
}

#[test]
fn common_names_come_from_the_list_of_the_venue() {
    let list = r#"{"type":"status","products":[{"id":"BTC-USD","base_currency":"XBT","quote_currency":"USD","quote_increment":"0.01","base_increment":"0.001"}]}"#;
    let trade = |product: &str| {
        format!(
            r#"{{"type":"match","trade_id":10,"time":"2014-11-07T08:19:27.028459Z","product_id":"{product}","size":"5","price":"4","side":"sell"}}"#
        )
    };
    let dir = tempfile::tempdir().expect("a directory");
    let coinbase = file(&dir, &[list, &trade("BTC-USD"), &trade("ETH/USD")]);
    for (names, first) in [("venue", "BTC-USD"), ("common", "XBT-USD")] {
        let (stream, _) = feed_stream::run_to_end(std::slice::from_ref(&coinbase), &format!("speed=max&names={names}"));
        let states = feed_stream::instrument_states(&stream);
        assert_eq!(
            states.keys().collect::<Vec<_>>(),
            if names == "venue" { [first, "ETH/USD"] } else { ["ETH/USD", first] }
        );
    }
    let okx = file(&dir, &[r#"{"event":"subscribe","arg":{"channel":"trades"},"connId":"x"}"#]);
    let names = [&coinbase, &okx].map(|path| path.to_str().expect("UTF-8").to_owned());
    let open = |query: &str| {
        let params = Params::parse(&format!("{}?{query}", names.join(","))).expect("parameters");
        Replay::open(&params).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(open("names=venue"), Ok(()));
    let end = ": is of okx, and another file is of coinbase: expected files of one venue with names=common";
    assert_eq!(open("names=common"), Err(format!("{}{end}", names[1])));
}
