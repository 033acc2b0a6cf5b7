//! Publishers are not each other: identities with tokens, owners of instruments, backups, wrong tokens, rotation, and
//! requests that would cost too much.

use std::path::Path;

use rustix::process::Signal;
use tickcast_test_support::client::Client;
use tickcast_test_support::publisher::{Publisher, numbers, quote, record, trade};
use tickcast_test_support::server::{Program, Server};

const GAP: u8 = 18;
const STATUS: u8 = 19;
const MAKER_A: &str = "token-of-the-maker-a";
const MAKER_B: &str = "token-of-the-maker-b";
const BACKUP: &str = "token-of-the-backup-of-a";

struct Makers {
    folder: tempfile::TempDir,
    server: Server,
}

impl Makers {
    /// A server with two publishers and a backup.
    fn start(args: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tickcast.toml");
        write(&path, &settings(MAKER_A));
        let file = path.to_str().expect("a path in UTF-8");
        let all = [&["--listen", "127.0.0.1:0", "--feed", "none", "--config", file], args].concat();
        let server = Server::spawn(Program::command(&all));
        Self { folder, server }
    }

    fn publisher(&self, token: &str) -> Publisher {
        Publisher::connect(&self.server, token)
    }

    fn status(&self, token: &str) -> u16 {
        let bearer = format!("Bearer {token}");
        let opened = Client::try_connect(self.server.address, "/v1/publish", &[("Authorization", &bearer)]);
        opened.map_or_else(|refused| refused.status, |_| 101)
    }
}

fn settings(maker_a: &str) -> String {
    format!(
        "[[publisher]]\nname = 'maker-a'\ntoken = '{maker_a}'\nsymbols = ['BTC-*', 'SHARED']\ninstruments_max = 3\n\
         [[publisher]]\nname = 'maker-b'\ntoken = '{MAKER_B}'\nvenues = ['test']\n\
         [[publisher]]\nname = 'backup'\ntoken = '{BACKUP}'\nbackup_of = 'maker-a'\n"
    )
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("the folder is writable");
}

fn gap(instrument: u32, to: i64) -> Vec<u8> {
    record(GAP, instrument, 0, &[numbers(&[1, to]), vec![2, b'F', 0, 0, 0, 0, 0, 0]].concat())
}

fn halt(instrument: u32) -> Vec<u8> {
    record(STATUS, instrument, 0, b"H\0\0\0\0\0\0\0")
}

#[test]
fn publisher_cannot_define_what_is_another_publishers() {
    let makers = Makers::start(&[]);
    let mut a = makers.publisher(MAKER_A);
    a.define(&["BTC-USD", "SHARED"]);
    let mut subscriber = makers.server.subscriber(&["quote"], &["*"]);
    let mut b = makers.publisher(MAKER_B);
    let request = Publisher::define_request(&["ETH-USD", "SHARED"]);
    let parts = ["instruments[1]: SHARED belongs to another publisher or feed", "nothing of this request"];
    b.0.send_and_expect_error(&request, Some(9), "bad_request", &parts);
    b.publish(&[halt(2)]);
    b.0.expect_close(1008, &["instrument 2 was not defined on this connection"]);
    // Names outside of its own lists.
    let parts = [r#"instruments[0].symbol: "ETH-USD" is not of publisher "maker-a": expected BTC-*, SHARED"#];
    a.0.send_and_expect_error(&Publisher::define_request(&["ETH-USD"]), Some(9), "bad_request", &parts);
    let mut b = makers.publisher(MAKER_B);
    let elsewhere = r#"{"op":"define","id":9,"instruments":[{"symbol":"X","venue":"moon","px_exp":0,"sz_exp":0}]}"#;
    b.0.send_and_expect_error(elsewhere, Some(9), "bad_request", &[r#"venue: "moon" is not of publisher "maker-b""#]);
    // The quota is that of the publisher, over its connections.
    let mut other = makers.publisher(MAKER_A);
    let request = Publisher::define_request(&["BTC-1", "BTC-2"]);
    other.0.send_and_expect_error(&request, Some(9), "limit", &["instruments[1]", "more than 3 instruments"]);
    a.publish(&[quote(1, 5)]);
    let received = subscriber.record();
    assert_eq!((received.header.sequence.get(), received.header.ts_event), (1, 5));
}

#[test]
fn backup_takes_over_when_the_primary_is_lost() {
    let makers = Makers::start(&[]);
    let (mut primary, mut backup) = (makers.publisher(MAKER_A), makers.publisher(BACKUP));
    let (of_primary, of_backup) = (primary.define(&["BTC-USD"])[0], backup.define(&["BTC-USD"])[0]);
    let mut subscriber = makers.server.subscriber(&["quote"], &["BTC-USD"]);
    backup.publish(&[quote(of_backup, 100)]);
    backup.define(&["BTC-USD"]);
    primary.publish(&[quote(of_primary, 1)]);
    assert_eq!(subscriber.record().header.ts_event, 1, "the backup is standby");
    drop(primary);
    makers.server.wait_for_metric("tickcast_source_losses_total", |losses| losses == 1);
    backup.publish(&[quote(of_backup, 101)]);
    assert_eq!(subscriber.record().header.ts_event, 101);
    assert_eq!(makers.server.metric_values("tickcast_sequencer_standby_total"), [1]);
}

#[test]
fn withdrawn_token_ends_the_connections_that_came_with_it() {
    let makers = Makers::start(&[]);
    let (mut a, mut b) = (makers.publisher(MAKER_A), makers.publisher(MAKER_B));
    a.define(&["BTC-USD"]);
    let id = b.define(&["ETH-USD"])[0];
    write(&makers.folder.path().join("tickcast.toml"), &settings("another-token-of-the-maker-a"));
    makers.server.program.signal(Signal::HUP);
    a.0.expect_close(1008, &["the publish token was withdrawn"]);
    assert_eq!((makers.status(MAKER_A), makers.status("another-token-of-the-maker-a")), (401, 101));
    b.publish(&[quote(id, 1)]);
    b.define(&["ETH-USD"]);
    assert_eq!(makers.server.metric_values("tickcast_publishers_withdrawn_total"), [1]);
    // The instrument is still that of the maker, not of its token.
    let request = Publisher::define_request(&["BTC-USD"]);
    b.0.send_and_expect_error(&request, Some(9), "bad_request", &["BTC-USD belongs to another publisher"]);
    assert_eq!(makers.publisher("another-token-of-the-maker-a").define(&["BTC-USD"]), [1]);
}

#[test]
fn tokens_cannot_be_guessed_without_end() {
    let makers = Makers::start(&["--operator-token", "token-of-the-operators"]);
    let wrong = |nth: u32| makers.status(&format!("wrong-token-number-{nth}"));
    assert_eq!((0..10).map(wrong).collect::<Vec<_>>(), [401; 10]);
    assert_eq!((wrong(10), makers.status(MAKER_A)), (429, 429), "no answer shows whether a guess is right");
    assert_eq!(makers.server.get("/v1/operator").status, 401, "a missing token is no guess");
    assert_eq!(makers.server.metric_values("tickcast_publish_auth_failures_total"), [10]);
    assert_eq!(makers.server.metric_values("tickcast_auth_refused_total"), [2]);
}

#[test]
fn gap_that_skips_too_much_closes_the_publisher_and_freezes_nothing() {
    let makers = Makers::start(&[]);
    let mut subscriber = makers.server.subscriber(&["trade"], &["BTC-USD"]);
    let mut a = makers.publisher(MAKER_A);
    let id = a.define(&["BTC-USD"])[0];
    a.publish(&[trade(id, 1), gap(id, 1 << 53)]);
    a.0.expect_close(1008, &["BTC-USD: a Gap of 9007199254740992 records", "expected at most 1000010"]);
    let mut again = makers.publisher(MAKER_A);
    let id = again.define(&["BTC-USD"])[0];
    again.publish(&[trade(id, 2)]);
    let sequences: Vec<u64> = subscriber.records(2).iter().map(|record| record.header.sequence.get()).collect();
    assert_eq!(sequences, [1, 2]);
}

#[test]
fn request_to_define_takes_little_memory_however_long_it_is() {
    const MIB: usize = 1 << 20;
    let makers = Makers::start(&[]);
    let before = peak_bytes(&makers.server);
    let mut b = makers.publisher(MAKER_B);
    for text in
        ["[".repeat(15 * MIB), format!("{{\"op\":\"define\",\"id\":1,\"instruments\":[{}1]}}", "1,".repeat(7 * MIB))]
    {
        b.0.send_and_expect_error(&text, None, "limit", &["request: 1", "at most 1048576 (define_bytes_max)"]);
    }
    // The dearest of what is permitted: many small values.
    let longest = format!("{{\"op\":\"define\",\"id\":1,\"instruments\":[{}1]}}", "1,".repeat(MIB / 2 - 50));
    b.0.send_and_expect_error(&longest, Some(1), "limit", &["instruments: "]);
    let taken = peak_bytes(&makers.server) - before;
    assert!(taken < 110 * MIB, "{} MiB", taken / MIB);
    b.define(&["ETH-USD"]);
}

/// The most resident memory that the server has had.
fn peak_bytes(server: &Server) -> usize {
    let path = format!("/proc/{}/status", server.program.id());
    let text = std::fs::read_to_string(path).expect("the server runs");
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel reports it");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}
