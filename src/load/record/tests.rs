//! Recordings of servers that a test scripts, and files in every state.

use std::io::BufReader;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use tungstenite::protocol::Message;

use super::*;
use tickcast_protocol::RecordKind;
use tickcast_protocol::packet;
use tickcast_protocol::record::{Gap, records};
use tickcast_recording::{Reader, packets};
use tickcast_test_support::packets::PacketBuilder;
use tickcast_test_support::scripted_server;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    record: RecordArgs,
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("day.tcrec")
    }

    /// What a recording of this server says, and its result.
    fn record(&self, address: SocketAddr, flags: &[&str]) -> (String, Result<(), LoadError>) {
        let (address, file) = (address.to_string(), self.file());
        let line = ["record", "--url", &address, "--out", file.to_str().expect("UTF-8")];
        let args = Cli::try_parse_from(line.into_iter().chain(flags.iter().copied())).unwrap_or_else(|e| panic!("{e}"));
        let mut notices = Vec::new();
        let ended = record_until(&args.record, &mut notices, &AtomicBool::new(false));
        (String::from_utf8(notices).expect("UTF-8"), ended)
    }

    /// The kinds and sequences of what is in the file; of a Gap, how many it covers. And the bytes of a torn tail.
    fn read(&self) -> (Vec<(RecordKind, u64)>, u64) {
        let file = File::open(self.file()).expect("it was recorded");
        let mut reader = Reader::open(BufReader::new(file)).expect("a log");
        let (mut block, mut shown) = (Vec::new(), Vec::new());
        for nth in 0..reader.blocks().len() {
            reader.read_block(nth, &mut block).expect("intact");
            for bytes in packets(&block) {
                for (header, record) in records(&bytes[packet::HEADER_BYTES..]) {
                    let kind = header.known_kind().expect("known");
                    let gap = Gap::read(record).filter(|_| kind == RecordKind::Gap);
                    shown.push((kind, gap.map_or(header.sequence.get(), |gap| gap.missing())));
                }
            }
        }
        (shown, reader.torn_bytes())
    }
}

/// A server that answers the first request, sends these packets, and closes with 1000. Returns the request.
fn serve(packets: Vec<PacketBuilder>, how: &'static str) -> (SocketAddr, std::sync::mpsc::Receiver<serde_json::Value>) {
    let (sender, requests) = std::sync::mpsc::channel();
    let address = scripted_server::serve("", move |mut peer| {
        let welcome = r#"{"type":"welcome","epoch":1,"version":"0","heartbeat_ms":5000,"limits":{"symbols":9,"requests_per_s":9}}"#;
        peer.send(Message::text(welcome)).expect("the client reads");
        let request = scripted_server::subscribe_request(&mut peer);
        let kind = if request["op"] == "resume" { "resumed" } else { "subscribed" };
        let reply = format!(r#"{{"type":"{kind}","id":1,"how":"{how}","from":2,"conflate_ms":0,"count":1}}"#);
        let _ = sender.send(request);
        peer.send(Message::text(reply)).expect("the client reads");
        for packet in &packets {
            peer.send(packet.message()).expect("the client reads");
        }
        let normal = tungstenite::protocol::CloseFrame { code: 1000.into(), reason: "".into() };
        peer.close(Some(normal)).expect("the client reads");
        scripted_server::wait_for_end(&mut peer);
    });
    (address, requests)
}

fn first() -> Vec<PacketBuilder> {
    let snapshot = PacketBuilder::new().definition(1, "BTC-USD").trade(1, 0x20).caught_up().position(5);
    vec![snapshot, PacketBuilder::new().heartbeat().position(5), PacketBuilder::new().trade(2, 0).position(6)]
}

#[test]
fn recording_has_what_was_sent_without_heartbeats_and_is_continued_with_its_token() {
    use RecordKind::{Definition, Gap, Trade};
    let folder = Folder::new();
    let (address, requests) = serve(first(), "");
    let (notices, ended) = folder.record(address, &["--symbols", "BTC-*", "--channels", "trade"]);
    assert!(ended.is_ok(), "{ended:?}");
    assert!(notices.ends_with("day.tcrec: 3 records in 2 packets were recorded, and 0 are missing\n"), "{notices}");
    let request = requests.recv().expect("a request");
    let expected = (&"subscribe".into(), &serde_json::json!(["BTC-*"]), &serde_json::json!(["trade"]));
    assert_eq!((&request["op"], &request["symbols"], &request["channels"]), expected);
    assert_eq!(folder.read(), (vec![(Definition, 0), (Trade, 1), (Trade, 2)], 0));

    // A file that exists is continued on request only.
    let (address, _requests) = serve(first(), "");
    let (_, ended) = folder.record(address, &[]);
    let error = ended.expect_err("refused").to_string();
    assert!(error.ends_with("day.tcrec exists: give another --out, or --append to continue it"), "{error}");

    // The server has no history any more: what is missing is a Gap. A crash has left a part of a block.
    let mut torn = std::fs::read(folder.file()).expect("readable");
    torn.extend_from_slice(b"half a block");
    std::fs::write(folder.file(), torn).expect("writable");
    let snapshot = PacketBuilder::new().definition(1, "BTC-USD").trade(7, 0x20).caught_up().position(20);
    let (address, requests) = serve(vec![snapshot], "snapshot");
    let (notices, ended) = folder.record(address, &["--append"]);
    assert!(ended.is_ok(), "{ended:?}");
    assert!(notices.contains("bytes are no whole block, as after a crash: they are cut off\n"), "{notices}");
    assert!(notices.contains("4 trade records of BTC-USD are missing: "), "{notices}");
    assert!(notices.contains("a snapshot follows\n") && notices.ends_with("and 4 are missing\n"), "{notices}");
    let request = requests.recv().expect("a request");
    assert_eq!((&request["op"], &request["position"]), (&"resume".into(), &6.into()));
    let expected = [(Definition, 0), (Trade, 1), (Trade, 2), (Definition, 0), (Gap, 4), (Trade, 7)];
    assert_eq!(folder.read(), (expected.to_vec(), 0));
}

#[test]
fn history_is_a_resume_from_the_first_position_of_the_server() {
    let folder = Folder::new();
    let (address, requests) = serve(first(), "replay");
    let (_, ended) = folder.record(address, &["--history", "--append"]);
    assert!(ended.is_ok(), "{ended:?}");
    let request = requests.recv().expect("a request");
    assert_eq!((&request["op"], &request["epoch"], &request["position"]), (&"resume".into(), &1.into(), &0.into()));
    assert_eq!(folder.read().0.len(), 3);
}

#[test]
fn files_that_are_no_recordings_are_refused_and_left_as_they_are() {
    for (content, reason) in [
        (&b"1723161254 {}\n"[..], "is no packet log: it begins with [31, 37"),
        (b"\x8aTCREC\x09\x00", "is a packet log of version 9: expected 1"),
        (b"\x8aTC", "is no packet log"),
    ] {
        let folder = Folder::new();
        std::fs::write(folder.file(), content).expect("writable");
        let (address, _requests) = serve(first(), "");
        let (_, ended) = folder.record(address, &["--append"]);
        let error = ended.expect_err("refused").to_string();
        assert!(error.contains(reason) && error.ends_with("; it is left as it is"), "{error}");
        assert_eq!(std::fs::read(folder.file()).expect("readable"), content);
    }
    // Two recorders of one file.
    let folder = Folder::new();
    let Opened { writer: _writer, .. } = file::open(&folder.file(), false).unwrap_or_else(|error| panic!("{error}"));
    let error = file::open(&folder.file(), true).err().expect("refused");
    assert!(error.ends_with("is being recorded by another process"), "{error}");
}

#[test]
fn server_that_is_not_there_leaves_no_file() {
    let folder = Folder::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let (_, ended) = folder.record(address, &[]);
    assert!(matches!(ended, Err(LoadError::Client(_))), "{ended:?}");
    assert!(!folder.file().exists());
}

#[test]
fn error_of_the_file_ends_the_recording_and_what_was_written_is_whole() {
    let folder = Folder::new();
    let Opened { mut writer, .. } = file::open(&folder.file(), false).unwrap_or_else(|error| panic!("{error}"));
    writer.packet(&PacketBuilder::new().definition(1, "A").caught_up().bytes()).expect("a packet");
    writer.finish().expect("an index");
    // A file that takes nothing more.
    let file = File::open(folder.file()).expect("it is there");
    let at = tickcast_recording::ResumeAt::end_of(&mut Reader::open(&file).expect("a log")).expect("intact");
    let mut notices = Vec::new();
    let mut recorder = Recorder::new(Path::new("x"), Writer::resume(file, at).expect("memory"), &mut notices);
    let trade = PacketBuilder::new().trade(1, 0).bytes();
    recorder.write(|writer| writer.packet(&trade)).expect("it waits for its block");
    let error = recorder.write(|writer| Ok(writer.flush()?)).expect_err("not writable");
    let expected = "x: the recording has ended, and what was written before is whole: Bad file descriptor (os error 9)";
    assert_eq!(error.to_string(), expected);
    recorder.write(|writer| writer.packet(&trade)).expect("nothing more is written");
    assert!(recorder.finish().is_ok());
    assert_eq!(folder.read(), (vec![(RecordKind::Definition, 0)], 0));
}
