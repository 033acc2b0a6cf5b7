//! A venue that acknowledges a subscription and sends nothing on it.

use std::time::{Duration, Instant};

use fake_venue::{Class, Fault, VenueKind};

use crate::market::{Place, Watcher, serve, settle};

/// A stream of quotes that is silent for a minute is subscribed on another connection.
const SILENCE: Duration = Duration::from_secs(100);

#[test]
fn silent_stream_is_named_until_it_comes_back() {
    let kinds = [
        VenueKind::Binance,
        VenueKind::BinanceUsdM,
        VenueKind::Coinbase,
        VenueKind::Kraken,
        VenueKind::Bybit,
        VenueKind::Okx,
    ];
    let places: Vec<_> = kinds
        .into_iter()
        .map(|kind| {
            let place = Place::start(kind, |options| options.speed = fake_venue::Speed::Times(0.5));
            // Coinbase and Kraken have quotes and statistics in one channel.
            let is_one = matches!(kind, VenueKind::Coinbase | VenueKind::Kraken);
            place.venue.inject(Fault::Silent, if is_one { Class::Ticker } else { Class::Quote });
            place
        })
        .collect();
    let server = serve(&places);
    let watcher = Watcher::start(server.address);
    let deadline = Instant::now() + SILENCE;
    let until = |what: &str, holds: &dyn Fn(&str) -> bool| {
        loop {
            let text = server.get("/readyz").text();
            if holds(&text) {
                return;
            }
            assert!(Instant::now() < deadline, "{what} does not come: {text}");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    // One stream of each is named, and it is the one; Coinbase and Kraken have two of it.
    until("the names of the streams", &|text| {
        let warnings = text.split("feed ").filter(|part| part.contains(" streams that are not live"));
        let is_alone = |part: &&str| part.contains(" has 1 of ") || part.contains(" has 2 of ");
        warnings.filter(is_alone).filter(|part| part.contains(".quote has sent nothing")).count() == places.len()
    });
    until("the end of silence", &|text| !text.contains("streams that are not live"));
    settle(&places, &watcher, || "silence".to_owned());
}
