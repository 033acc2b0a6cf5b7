//! `tickcast record`, and the replay of what it has recorded.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tickcast_protocol::packet::{HEADER_BYTES, PacketHeader};
use tickcast_protocol::record::{self, Gap, RecordHeader, flags};
use tickcast_protocol::{Channel, RecordKind};
use tickcast_recording::{Reader, packets};
use tickcast_test_support::DEADLINE;
use tickcast_test_support::paths::recordings;
use tickcast_test_support::server::{Program, Server};

const MARKET: &str = "sim:instruments=4,rate=2000,seed=1,shape=even";

/// A record of a recording, with the name of its instrument.
struct Recorded {
    symbol: String,
    header: RecordHeader,
    bytes: Vec<u8>,
}

/// The records of a recording up to its last whole block; none before its header is there.
fn read(path: &Path) -> Vec<Recorded> {
    let Some(mut reader) = File::open(path).ok().and_then(|file| Reader::open(file).ok()) else { return Vec::new() };
    let (mut block, mut names, mut all) = (Vec::new(), HashMap::new(), Vec::new());
    let mut epoch = 0;
    for nth in 0..reader.blocks().len() {
        if reader.read_block(nth, &mut block).expect("intact").is_checkpoint() {
            continue;
        }
        for packet in packets(&block) {
            let header = PacketHeader::read(packet).expect("a packet");
            if std::mem::replace(&mut epoch, header.epoch) != header.epoch {
                names.clear();
            }
            for (header, bytes) in record::records(&packet[HEADER_BYTES..]) {
                if header.known_kind() == Some(RecordKind::Definition) {
                    let instrument = record::read_definition(bytes).expect("a definition");
                    names.insert(instrument.id, instrument.symbol);
                }
                let symbol = names.get(&header.instrument).cloned().unwrap_or_default();
                all.push(Recorded { symbol, header, bytes: bytes.to_vec() });
            }
        }
    }
    all
}

/// The records of channels without what the server assigns: id, sequence, `ts_recv`, and whether it came in a snapshot.
fn masked(records: &[Recorded]) -> Vec<(String, Vec<u8>)> {
    let of_channel = |record: &&Recorded| record.header.known_kind().and_then(RecordKind::channel).is_some();
    let mask = |record: &Recorded| {
        let mut bytes = record.bytes.clone();
        record::patch_sequenced(&mut bytes, 0, 0.into(), 0);
        record::patch_flags(&mut bytes, record.header.flags & !flags::SNAPSHOT);
        (record.symbol.clone(), bytes)
    };
    records.iter().filter(of_channel).map(mask).collect()
}

struct Recorder {
    program: Program,
    path: PathBuf,
}

impl Recorder {
    fn start(server: &Server, path: &Path, flags: &[&str]) -> Self {
        let address = server.address.to_string();
        let line = ["record", "--url", &address, "--out", path.to_str().expect("UTF-8")];
        let program = Program::spawn(Program::command(&[&line, flags].concat()));
        Self { program, path: path.to_owned() }
    }

    fn wait_for(&self, is_enough: impl Fn(&[Recorded]) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !is_enough(&read(&self.path)) {
            assert!(Instant::now() < deadline, "{} records so far", read(&self.path).len());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends it by a signal.
    fn stop(self, signal: Signal) -> Vec<Recorded> {
        self.program.signal(signal);
        let exit = self.program.wait_for_exit();
        assert_eq!(exit.code, Some(0), "{}", exit.stderr);
        assert!(exit.stderr.contains("were recorded, and 0 are missing\n"), "{}", exit.stderr);
        read(&self.path)
    }
}

/// Replays a recording at full speed and records that replay.
fn record_replay_of(path: &Path, to: &Path) -> Vec<Recorded> {
    let feed = format!("replay:{}?speed=max", path.display());
    let server = Server::start(&["--feed", &feed, "--ring-bytes", "268435456"]);
    server.program.wait_for_stderr("has ended");
    let wanted = masked(&read(path)).len();
    let recorder = Recorder::start(&server, to, &["--history"]);
    recorder.wait_for(|records| masked(records).len() >= wanted);
    recorder.stop(Signal::TERM)
}

fn assert_same_records(first: &[Recorded], second: &[Recorded]) {
    let (first, second) = (masked(first), masked(second));
    assert_eq!(first.len(), second.len());
    for (nth, (one, other)) in first.iter().zip(&second).enumerate() {
        assert_eq!(one, other, "record {nth} of {}", first.len());
    }
}

#[test]
fn recording_of_a_replay_has_the_same_records() {
    let folder = tempfile::tempdir().expect("a folder");
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let server = Server::start(&["--feed", MARKET]);
    let recorder = Recorder::start(&server, &first, &[]);
    recorder.wait_for(|records| records.len() > 4_000);
    let recorded = recorder.stop(Signal::INT);
    let kinds = |kind| recorded.iter().filter(|record| record.header.known_kind() == Some(kind)).count();
    let counts = [RecordKind::Quote, RecordKind::Trade, RecordKind::Ticker, RecordKind::Book].map(kinds);
    assert!(counts.iter().all(|count| *count > 10), "{counts:?}");
    assert_same_records(&recorded, &record_replay_of(&first, &second));
}

#[test]
fn real_session_is_recorded_and_replayed_with_the_same_records() {
    let Some(data) = recordings() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let session = data.join("binance_usdm_btcusdt_20240808.gz");
    let feed = format!("replay:{}?speed=max&to=2024-08-08T23:55:00Z", session.display());
    let server = Server::start(&["--feed", &feed, "--ring-bytes", "268435456"]);
    server.program.wait_for_stderr("has ended");
    let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
    let recorder = Recorder::start(&server, &first, &["--history"]);
    let has_ended =
        |record: &Recorded| record.header.known_kind() == Some(RecordKind::Status) && record.header.instrument > 0;
    recorder.wait_for(|records| records.iter().any(has_ended));
    let recorded = recorder.stop(Signal::INT);
    assert!(recorded.len() > 5_000, "{} records", recorded.len());
    assert_same_records(&recorded, &record_replay_of(&first, &second));
}

#[test]
fn killed_recording_is_continued_without_a_missing_or_repeated_trade() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("day");
    let server = Server::start(&["--feed", MARKET]);
    let recorder = Recorder::start(&server, &path, &[]);
    recorder.wait_for(|records| records.len() > 1_000);
    recorder.program.signal(Signal::KILL);
    assert_eq!(recorder.program.wait_for_exit().code, None);
    let before = read(&path).len();
    let recorder = Recorder::start(&server, &path, &["--append"]);
    recorder.wait_for(|records| records.len() > before + 1_000);
    let records = recorder.stop(Signal::INT);
    let mut last: HashMap<u32, u64> = HashMap::new();
    for record in &records {
        assert_ne!(record.header.known_kind(), Some(RecordKind::Gap), "{:?}", Gap::read(&record.bytes));
        if record.header.known_kind() == Some(Channel::Trade.kind()) {
            let sequence = record.header.sequence.get();
            let before = last.insert(record.header.instrument, sequence);
            assert!(before.is_none_or(|before| before + 1 == sequence), "{before:?}, then {sequence}");
        }
    }
    assert_eq!(last.len(), 4);
}

#[test]
fn recordings_that_cannot_be_made_or_played_say_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("day");
    let server = Server::start(&["--feed", MARKET]);
    let address = server.address.to_string();
    let exit = Program::run(&["record", "--url", &address, "--out", "/dev/full", "--append"]);
    assert_eq!(
        (exit.code, exit.stderr.as_str()),
        (Some(2), "tickcast: /dev/full: No space left on device (os error 28)\n")
    );
    std::fs::write(&path, "no recording").expect("written");
    let exit = Program::run(&["record", "--url", &address, "--out", path.to_str().expect("UTF-8")]);
    assert_eq!(exit.code, Some(2));
    assert!(exit.stderr.contains("exists: give another --out, or --append to continue it"), "{}", exit.stderr);
    let exit = Program::run(&["--listen", "127.0.0.1:0", "--feed", &format!("replay:{}", path.display())]);
    assert_eq!(exit.code, Some(2));
    assert!(
        exit.stderr.contains("begins with \"no recording\": expected a recording: a packet log of `tickcast record`"),
        "{}",
        exit.stderr
    );
}
