//! Every fault of every venue against the codecs: afterwards the books are those of the venue, what was missing was flagged
//! or announced, and nothing else.

use std::time::Duration;

use fake_venue::{Class, FakeVenue, Fault, Truth, VenueKind};
use tickcast_protocol::Channel;
use tickcast_venues::{Event, Notice};

use crate::driver::{Driver, depth_of};
use crate::sessions::{plain, symbols_of};

/// What a client notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// A book was flagged, and is valid again.
    Flagged,
    /// Trades that are missing were announced.
    Announced,
    /// Nothing was wrong at any time.
    Unharmed,
    /// The stream is named, and its connection can be replaced.
    Named,
}

fn expected(kind: VenueKind, fault: Fault, class: Class) -> Outcome {
    match (fault, class) {
        (Fault::Silent, _) => Outcome::Named,
        (Fault::Skip | Fault::BadJson, Class::Trade) => Outcome::Announced,
        // The number of a repeated update of OKX does not follow.
        (Fault::Repeat, Class::Book) if kind == VenueKind::Okx => Outcome::Flagged,
        (Fault::Repeat | Fault::LateSnapshot, _) => Outcome::Unharmed,
        // Announced by a status, or by snapshots.
        (Fault::Maintenance, _) if kind == VenueKind::Kraken || kind.is_bybit() => Outcome::Unharmed,
        _ => Outcome::Flagged,
    }
}

fn channels_of(kind: VenueKind, class: Class) -> &'static [Channel] {
    match class {
        Class::Trade => &[Channel::Trade],
        Class::Ticker => &[Channel::Ticker],
        _ if kind == VenueKind::BinanceUsdM => &[Channel::Quote, Channel::Book],
        _ => &[Channel::Quote, Channel::Ticker, Channel::Book],
    }
}

/// Subscribes, lets the fault happen, and compares at the end.
fn scenario(kind: VenueKind, fault: Fault, class: Class) {
    let what = format!("{kind} {fault} {class:?}");
    let mut options = plain(kind);
    (options.with_checksums, options.late_ms, options.limited_ms) = (fault == Fault::BadChecksum, 300, 5_000);
    (options.notice_ms, options.down_ms) = (200, 400);
    let venue = FakeVenue::start(options).expect("it starts");
    let symbols = symbols_of(&venue);
    let names: Vec<_> = symbols.iter().map(String::as_str).collect();
    let channels = channels_of(kind, class);
    let mut driver = Driver::new(&venue, kind, &names, channels, None);
    if kind == VenueKind::BinanceUsdM && matches!(class, Class::Trade | Class::Ticker) {
        driver = driver.at("/market/stream");
    }
    if fault == Fault::LateSnapshot {
        venue.inject(fault, class);
    }
    let has_books = channels.contains(&Channel::Book);
    driver.until("the market", |driver| driver.report.records > 200 && (driver.has_books() || !has_books));
    match fault {
        Fault::LateSnapshot => {}
        Fault::StaleSnapshot => {
            venue.inject(fault, class);
            venue.inject(Fault::Skip, class);
        }
        Fault::RateLimit => {
            venue.inject(fault, class);
            driver.until("the limit", |_| !venue.is_fault_armed());
            venue.inject(Fault::Cut, class);
        }
        _ => venue.inject(fault, class),
    }
    driver.until(&what, |_| !venue.is_fault_armed());
    let before = driver.report.records;
    driver.until("more of the market", |driver| driver.report.records > before + 200);
    if fault == Fault::Silent {
        driver.ahead = Duration::from_secs(61);
        driver.until("the name of the stream", |driver| driver.events.iter().any(|event| is_silent(event, class)));
        driver.disconnect();
        driver.until("the books", |driver| driver.has_books() || !has_books);
    }
    venue.stop_session();
    let truth = venue.truth();
    driver.until(&format!("the end of {what}"), |driver| {
        (driver.has_books() || !has_books)
            && driver.difference(&truth, depth_of(kind, None)).is_empty()
            && (class != Class::Trade || driver.has_last_trades(&truth))
    });
    judge(&driver, &truth, expected(kind, fault, class), &what);
    if fault == Fault::RateLimit {
        assert!(driver.refusals.contains(&429), "{what}: {:?}", driver.refusals);
    }
    if fault == Fault::Maintenance && (kind.is_binance() || kind == VenueKind::Okx) {
        let is_closing = |event: &Event| matches!(event, Event::Notice(Notice::Closing { .. }));
        assert!(driver.events.iter().any(is_closing), "{what}: {:?}", driver.events);
    }
}

fn judge(driver: &Driver<'_>, truth: &Truth, expected: Outcome, what: &str) {
    let has_happened = truth.faults.iter().any(|fault| what.contains(fault.fault));
    assert!(has_happened, "{what}: {:?}", truth.faults);
    let states = driver.state.instruments.values();
    // A book is void at first; it is flagged for a fault if it was valid before.
    let flagged: usize = states.clone().map(|of| of.times_bad).sum();
    let missing: u64 = states.map(|of| of.trades_missing).sum();
    let found = (flagged > 0, missing > 0);
    match expected {
        Outcome::Flagged => assert!(found.0, "{what}: no book was flagged: {:?}", driver.events),
        Outcome::Announced => assert!(found.1, "{what}: no trade was announced as missing"),
        Outcome::Unharmed => assert_eq!(found, (false, false), "{what}: {:?}", driver.events),
        Outcome::Named => {}
    }
    if driver.state.instruments.values().any(|of| !of.trades.is_empty()) {
        driver.assert_trades(truth);
    }
}

fn is_silent(event: &Event, class: Class) -> bool {
    let channel = match class {
        Class::Book => Channel::Book,
        Class::Trade => Channel::Trade,
        Class::Quote => Channel::Quote,
        Class::Ticker => Channel::Ticker,
    };
    matches!(event, Event::Silent { stream, .. } if stream.channel == channel)
}

/// The faults that a venue can have, each in a class of its messages.
fn possible(kind: VenueKind) -> Vec<(Fault, Class)> {
    let pairs = Fault::ALL.into_iter().flat_map(|fault| Class::ALL.map(|class| (fault, class)));
    // Coinbase and Kraken have best prices and statistics in one channel.
    let is_one = |class| matches!(kind, VenueKind::Coinbase | VenueKind::Kraken) && class == Class::Quote;
    let possible = pairs.filter(|(fault, class)| fault.can_happen(kind, *class) && !is_one(*class)).collect::<Vec<_>>();
    assert!(possible.len() >= 10, "{kind}: {possible:?}");
    possible
}

/// Most of a scenario is waiting, so those of several venues are at once.
fn recover_from_every_fault(kinds: [VenueKind; 3]) {
    std::thread::scope(|scope| {
        for kind in kinds {
            for (fault, class) in possible(kind) {
                scope.spawn(move || scenario(kind, fault, class));
            }
        }
    });
}

#[test]
fn binance_recovers_from_every_fault() {
    recover_from_every_fault([VenueKind::Binance, VenueKind::BinanceUsdM, VenueKind::BinanceCoinM]);
}

#[test]
fn coinbase_kraken_and_okx_recover_from_every_fault() {
    recover_from_every_fault([VenueKind::Coinbase, VenueKind::Kraken, VenueKind::Okx]);
}

#[test]
fn bybit_recovers_from_every_fault() {
    recover_from_every_fault([VenueKind::Bybit, VenueKind::BybitLinear, VenueKind::BybitInverse]);
}
