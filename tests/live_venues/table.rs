//! venue × channel × fault → outcome.
//!
//! A round is one fault in one class of messages, at all venues that can have it. Each has venues and a server of its own,
//! so that no pause after a failure is carried over. At the end of a round the sessions stand still, and every book has to
//! be valid and the venue's; what was missing meanwhile has to have been flagged or announced.

use std::collections::VecDeque;
use std::sync::Mutex;

use fake_venue::{Class, Fault, Truth, VenueKind};
use tickcast_test_support::market_state::MarketState;

use crate::market::{Place, Watcher, has_books, serve, settle, times_bad, trades_announced, trades_missing, until};

/// Rounds at once: most of a round is waiting.
const AT_ONCE: usize = 3;
/// A line of the table.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    venue: &'static str,
    fault: &'static str,
    class: String,
    outcome: String,
}

/// What has to be noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Noticed {
    /// A book was flagged in between.
    Flag,
    /// Missing trades were announced by a Gap.
    Gap,
    /// Nothing: clients are not disturbed.
    Nothing,
    /// A flag or nothing: whether the next connection is open in time is a matter of time.
    Either,
}

fn expected(kind: VenueKind, fault: Fault, class: Class) -> Noticed {
    let is_announced = kind.is_binance() || kind == VenueKind::Okx;
    match (fault, class) {
        (Fault::Skip | Fault::BadJson, Class::Trade) => Noticed::Gap,
        // The number of a repeated update of OKX does not follow.
        (Fault::Repeat, Class::Book) if kind == VenueKind::Okx => Noticed::Flag,
        (Fault::Repeat | Fault::LateSnapshot, _) => Noticed::Nothing,
        // Kraken tells it by a status, Bybit sends snapshots.
        (Fault::Maintenance, _) if kind == VenueKind::Kraken || kind.is_bybit() => Noticed::Nothing,
        (Fault::Maintenance, _) if is_announced => Noticed::Either,
        _ => Noticed::Flag,
    }
}

/// Bybit's trades have no order, so those that are missing after a cut cannot be counted.
fn counts_trades(kind: VenueKind) -> bool {
    !kind.is_bybit()
}

fn round(fault: Fault, class: Class) -> Vec<Row> {
    let kinds = VenueKind::ALL.into_iter().filter(|kind| fault.can_happen(*kind, class));
    let places: Vec<_> = kinds
        .map(|kind| {
            Place::start(kind, |options| {
                options.with_checksums = fault == Fault::BadChecksum;
                (options.late_ms, options.limited_ms) = (400, 1_500);
                (options.notice_ms, options.down_ms) = (1_500, 500);
            })
        })
        .collect();
    if fault == Fault::LateSnapshot {
        places.iter().for_each(|place| place.venue.inject(fault, class));
    }
    let server = serve(&places);
    let watcher = Watcher::start(server.address);
    let missing = |state: &MarketState| {
        let names = places.iter().filter(|place| !has_books(state, place)).map(|place| place.kind.name());
        names.collect::<Vec<_>>().join(", ")
    };
    let readiness = || server.get("/readyz").text();
    watcher.until_or(
        |state| places.iter().all(|place| has_books(state, place)),
        || format!("books of {} before {fault}: {}", missing(&watcher.state()), readiness()),
    );
    for place in &places {
        happen(place, fault, class);
    }
    let truths = settle(&places, &watcher, || format!("{fault} {class:?}; {}", readiness()));
    let all = || places.iter().zip(&truths);
    watcher.until_or(
        |state| all().all(|(place, truth)| are_trades_accounted(state, place, truth)),
        || {
            let state = watcher.state();
            let wrong = all().filter(|(place, truth)| !are_trades_accounted(&state, place, truth));
            let text = |(place, truth): (&Place, &Truth)| {
                let (missing, announced) = (trades_missing(&state, place, truth), trades_announced(&state, place));
                format!("{}: {missing} trades are missing, {announced:?} announced", place.kind)
            };
            format!("trades after {fault} {class:?}: {}", wrong.map(text).collect::<Vec<_>>().join("; "))
        },
    );
    let state = watcher.state();
    all().map(|(place, truth)| row(&state, place, truth, fault, class)).collect()
}

/// Lets the fault happen, with what brings it about.
fn happen(place: &Place, fault: Fault, class: Class) {
    let unarmed = |what: &str| until(&format!("{what} at {}", place.kind), || !place.venue.is_fault_armed());
    match fault {
        Fault::LateSnapshot => {}
        // A snapshot is asked for after an update was missed.
        Fault::StaleSnapshot => {
            place.venue.inject(fault, class);
            place.venue.inject(Fault::Skip, class);
        }
        // Something is asked for after a cut.
        Fault::RateLimit => {
            place.venue.inject(fault, class);
            unarmed("the limit");
            place.venue.inject(Fault::Cut, class);
        }
        _ => place.venue.inject(fault, class),
    }
    unarmed(fault.name());
}

fn are_trades_accounted(state: &MarketState, place: &Place, truth: &Truth) -> bool {
    let missing = trades_missing(state, place, truth);
    !counts_trades(place.kind) || missing == trades_announced(state, place).0
}

fn row(state: &MarketState, place: &Place, truth: &Truth, fault: Fault, class: Class) -> Row {
    let kind = place.kind;
    assert!(truth.faults.iter().any(|of| of.fault == fault.name()), "{kind} {fault}: {:?}", truth.faults);
    let (flagged, (announced, gaps)) = (times_bad(state, place), trades_announced(state, place));
    match expected(kind, fault, class) {
        Noticed::Flag => assert!(flagged > 0, "{kind} {fault} {class:?}: no book was flagged"),
        Noticed::Gap => assert!(announced > 0, "{kind} {fault} {class:?}: no Gap"),
        Noticed::Nothing => assert_eq!((flagged, gaps), (0, 0), "{kind} {fault} {class:?}: flags and gaps"),
        Noticed::Either => {}
    }
    let mut parts = Vec::new();
    if flagged > 0 {
        parts.push(format!("books flagged {flagged} times, right again"));
    }
    if announced > 0 {
        parts.push(format!("{announced} trades announced as missing"));
    }
    if parts.is_empty() {
        parts.push("undisturbed".to_owned());
    }
    Row {
        venue: kind.name(),
        fault: fault.name(),
        class: format!("{class:?}").to_lowercase(),
        outcome: parts.join("; "),
    }
}

#[test]
fn every_fault_at_every_venue_is_noticed_and_repaired() {
    // A stream that stays silent is noticed after a minute: see the module `silent`.
    let faults = Fault::ALL.into_iter().filter(|fault| *fault != Fault::Silent);
    let rounds = faults.flat_map(|fault| [Class::Book, Class::Trade].map(|class| (fault, class)));
    let is_possible =
        |(fault, class): &(Fault, Class)| VenueKind::ALL.iter().any(|kind| fault.can_happen(*kind, *class));
    let rounds: VecDeque<_> = rounds.filter(is_possible).collect();
    let (rounds, rows) = (Mutex::new(rounds), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = rounds.lock().expect("no panic").pop_front();
                    let Some((fault, class)) = next else { return };
                    let found = round(fault, class);
                    rows.lock().expect("no panic").extend(found);
                }
            });
        }
    });
    let mut rows = rows.into_inner().expect("no panic");
    rows.sort();
    println!("| venue | fault | channel | outcome |\n|---|---|---|---|");
    for row in &rows {
        println!("| {} | {} | {} | {} |", row.venue, row.fault, row.class, row.outcome);
    }
    assert!(rows.len() > 80, "{} rows", rows.len());
}
