//! Recorded sessions, played to the server by a venue: its books are those that an oracle in Python makes of the file.

use std::time::Instant;

use fake_venue::{Source, Speed, VenueKind};
use rust_decimal::Decimal;
use serde_json::Value;
use tickcast_test_support::market_state::InstrumentState;
use tickcast_test_support::paths::recordings;
use tickcast_test_support::python_oracle::{self, BINANCE, CRYPTOFEED};

use crate::market::{DEADLINE, Place, Watcher, has_books, is_whole, of, serve, times_bad, trades_missing};

const SESSIONS: [(VenueKind, &str, &str); 4] = [
    (VenueKind::Coinbase, "cryptofeed_COINBASE.ws.28.0.gz", CRYPTOFEED),
    (VenueKind::Kraken, "cryptofeed_KRAKEN.ws.50.0.gz", CRYPTOFEED),
    (VenueKind::Okx, "cryptofeed_OKX.ws.1.0.gz", CRYPTOFEED),
    (VenueKind::Binance, "binance_spot_btcusdt_20240808.gz", BINANCE),
];

/// `b10101.1x0.45 a10102.55x0.57`: both sides, each best first, numbers without zeros at the end.
fn text(has: &InstrumentState) -> String {
    let [bids, asks] = has.levels(usize::MAX);
    let side = |letter: char, levels: Vec<(Decimal, Decimal)>| {
        levels.into_iter().map(move |(px, sz)| format!("{letter}{}x{}", px.normalize(), sz.normalize()))
    };
    side('b', bids).chain(side('a', asks)).collect::<Vec<_>>().join(" ")
}

#[test]
fn books_of_recorded_sessions_equal_the_oracle() {
    let Some(dir) = recordings() else { return };
    let places: Vec<_> = SESSIONS
        .iter()
        .map(|(kind, name, _)| {
            let mut place = Place::start(*kind, |options| {
                options.source = Source::Recording { path: dir.join(name), limit_ms: None };
                options.speed = Speed::Max;
                options.with_checksums = *kind == VenueKind::Okx;
            });
            if *kind == VenueKind::Kraken {
                // That of the recorded subscription.
                place.depth = 1000;
            }
            place
        })
        .collect();
    let server = serve(&places);
    let watcher = Watcher::start(server.address);
    let deadline = Instant::now() + DEADLINE;
    while !places.iter().all(|place| place.venue.is_over()) {
        assert!(Instant::now() < deadline, "the recordings do not end: {}", server.get("/readyz").text());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    places.iter().for_each(|place| place.venue.stop_session());
    for (place, (kind, name, script)) in places.iter().zip(SESSIONS) {
        let truth = place.venue.truth();
        watcher.until_or(
            |state| is_whole(state, place, &truth),
            || format!("the last books of {kind}: {}", has_books(&watcher.state(), place)),
        );
        let state = watcher.state();
        assert_eq!((times_bad(&state, place), trades_missing(&state, place, &truth)), (0, 0), "{kind}");
        let Some(oracle) = python_oracle::read(script, &dir.join(name)) else { continue };
        for symbol in &place.symbols {
            let named = if kind == VenueKind::Kraken { symbol.replace("BTC", "XBT") } else { symbol.clone() };
            let has = of(&state, kind, symbol).expect("defined");
            assert_eq!(Value::from(text(has)), oracle["instruments"][named]["book"], "{kind} {symbol}");
        }
    }
}
