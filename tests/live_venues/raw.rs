//! `tickcast record --raw`: what a venue sent, with faults between, and what a replay of it makes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fake_venue::{Class, Fault, Speed, VenueKind};
use rustix::process::Signal;
use tickcast_test_support::server::{Program, Server};

use crate::market::{Place, Watcher, is_whole, trades_announced, trades_missing, until};

/// Events of a session before and after its fault.
const STEPS: u64 = 150;
/// How long the last messages are waited for.
const STILL: Duration = Duration::from_secs(2);

fn record(place: &Place, path: &Path, flags: &[&str]) -> Program {
    let feed = place.feed();
    let line = ["record", "--raw", &feed, "--out", path.to_str().expect("UTF-8")];
    Program::spawn(Program::command(&[&line, flags].concat()))
}

/// The file of a venue's recording: packed for some.
fn path_of(kind: VenueKind, folder: &Path) -> PathBuf {
    let ending = if kind.is_binance() { "zst" } else { "txt" };
    folder.join(format!("{}.{ending}", kind.name()))
}

/// The replay of the recording has the venue's books, and its trades without one that comes twice or is missing silently.
#[track_caller]
fn assert_replays(place: &Place, path: &Path) {
    let (kind, truth) = (place.kind, place.venue.truth());
    let server = Server::start(&["--feed", &format!("replay:{}?speed=50", path.display())]);
    let watcher = Watcher::start(server.address);
    watcher.until_or(|state| is_whole(state, place, &truth), || format!("the books of {kind}: {}", path.display()));
    if kind.is_bybit() {
        return;
    }
    let state = watcher.state();
    let missing = trades_missing(&state, place, &truth);
    assert_eq!(missing, trades_announced(&state, place).0, "trades of {kind} that are missing");
}

#[test]
fn recording_of_each_venue_replays_with_its_books_and_trades() {
    let folder = tempfile::tempdir().expect("a folder");
    let start = |kind: VenueKind| {
        let place = Place::start(kind, |options| {
            options.speed = Speed::Times(4.0);
            (options.notice_ms, options.down_ms) = (2_000, 500);
        });
        let recorder = record(&place, &path_of(kind, folder.path()), &[]);
        (place, recorder)
    };
    let running: Vec<_> = VenueKind::ALL.into_iter().map(start).collect();
    let play = || {
        for (place, _) in &running {
            let before = place.venue.truth().steps;
            until("the session goes on", || place.venue.truth().steps >= before + STEPS);
        }
    };
    play();
    for (place, _) in &running {
        // Venues that announce it have the next connection take over; the others just end the present one.
        let is_announced = place.kind.is_binance() || place.kind == VenueKind::Okx;
        let fault = if is_announced { Fault::Maintenance } else { Fault::Cut };
        place.venue.inject(fault, Class::Book);
        until(fault.name(), || !place.venue.is_fault_armed());
    }
    // The pause before the next attempt is up to half a second, the one of maintenance likewise.
    std::thread::sleep(Duration::from_secs(3));
    play();
    running.iter().for_each(|(place, _)| place.venue.stop_session());
    std::thread::sleep(STILL);
    for (place, recorder) in running {
        recorder.signal(Signal::INT);
        let exit = recorder.wait_for_exit();
        assert!(exit.code == Some(0) && exit.stderr.contains("messages were recorded"), "{}", exit.stderr);
        assert_replays(&place, &path_of(place.kind, folder.path()));
    }
}

#[test]
fn recording_is_continued_and_a_torn_line_is_cut_off() {
    let folder = tempfile::tempdir().expect("a folder");
    let (kind, path) = (VenueKind::Kraken, folder.path().join("kraken"));
    let place = Place::start(kind, |_| {});
    let exit = record(&place, &path, &["--seconds", "2"]).wait_for_exit();
    assert!(exit.code == Some(0), "{}", exit.stderr);
    let exit = record(&place, &path, &[]).wait_for_exit();
    assert!(exit.code == Some(2) && exit.stderr.contains("--append"), "{}", exit.stderr);
    let length = std::fs::metadata(&path).expect("it is there").len();
    std::fs::OpenOptions::new().write(true).open(&path).expect("writable").set_len(length - 9).expect("shorter");

    let recorder = record(&place, &path, &["--append"]);
    recorder.wait_for_stderr("are cut off");
    let before = place.venue.truth().steps;
    until("the session goes on", || place.venue.truth().steps >= before + STEPS);
    place.venue.stop_session();
    std::thread::sleep(STILL);
    recorder.signal(Signal::INT);
    assert!(recorder.wait_for_exit().code == Some(0));
    assert_replays(&place, &path);
}

#[test]
fn what_cannot_be_recorded_is_said_and_leaves_no_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("out.zst");
    let place = Place::start(VenueKind::Binance, |_| {});
    let unknown = place.feed().replace("BTCUSDT", "BTCUSDX");
    let of_path = |feed: &str, more: &[&str]| {
        let line = ["record", "--raw", feed, "--out", path.to_str().expect("UTF-8")];
        Program::run(&[&line, more].concat())
    };
    for (feed, more, expected) in [
        (unknown.as_str(), &[][..], "unknown symbol \"BTCUSDX\""),
        ("sim:instruments=3", &[], "\"sim\" is no live venue: expected binance:"),
        ("binance", &[], "empty symbol"),
        ("binance:BTCUSDT", &["--symbols", "A"], "cannot be used with"),
    ] {
        let exit = of_path(feed, more);
        assert!(exit.code == Some(2) && exit.stderr.contains(expected), "{feed}: {}", exit.stderr);
        assert!(!path.exists(), "{feed}");
    }
}
