//! What hostile clients make the server hold in memory, and what an innocent client notices of it.

use std::fs;
use std::io::Write;

use tickcast_test_support::client::Client;
use tickcast_test_support::server::{SMALL_MARKET, Server};

const MIB: u64 = 1 << 20;

/// Resident memory of the server, bytes.
fn resident_bytes(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.program.id())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it is there");
    1024 * line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("a number")
}

fn grown(server: &Server, before: u64) -> u64 {
    resident_bytes(server).saturating_sub(before)
}

fn names(prefix: &str, count: usize, end: &str) -> String {
    let names: Vec<String> = (0..count).map(|nth| format!("\"{prefix}-{nth:05}{end}\"")).collect();
    format!(r#"{{"op":"subscribe","id":7,"channels":["quote"],"symbols":[{}]}}"#, names.join(","))
}

/// The reply of this type, which follows the welcome.
fn reply_to(client: &mut Client, kind: &str) -> serde_json::Value {
    let reply = client.reply();
    let reply = if reply["type"] == "welcome" { client.reply() } else { reply };
    assert_eq!(reply["type"], kind, "{reply}");
    reply
}

/// The beginning of a text frame of a mebibyte.
fn begun_message(sent: usize) -> Vec<u8> {
    let mut bytes = vec![0x81, 0x80 | 127];
    bytes.extend(MIB.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(vec![b' '; sent]);
    bytes
}

#[test]
fn messages_that_are_never_finished_have_a_limit_in_memory_and_in_time() {
    let limits = ["--input-bytes-max", "8388608", "--message-timeout-ms", "5000", "--request-bytes-max", "1048576"];
    let server = Server::start(&[&["--feed", SMALL_MARKET, "--cores", "0"][..], &limits].concat());
    let mut innocent = server.client();
    innocent.ping();
    let before = resident_bytes(&server);
    let hostile: Vec<Client> = (0..100).map(|_| server.client()).collect();
    for client in &hostile {
        // A server that has closed the connection does not take the rest.
        let _ = client.tcp().write_all(&begun_message(600_000));
    }
    server.wait_for_metric("tickcast_input_shed_total", |count| count >= 80);
    assert!(grown(&server, before) < 32 * MIB, "{} MiB", grown(&server, before) / MIB);
    innocent.ping();
    server.wait_for_metric("tickcast_message_timeouts_total", |count| count >= 5);
    innocent.ping();
    drop(hostile);
    server.wait_for_metric("tickcast_input_bytes", |bytes| bytes == 0);
    server.wait_for_metric("tickcast_clients", |clients| clients == 1);
}

#[test]
fn names_of_their_own_cost_what_is_documented_and_are_given_back() {
    const CLIENTS: usize = 30;
    let server = Server::start(&["--feed", SMALL_MARKET, "--cores", "0", "--request-work-per-s", "0"]);
    let mut innocent = server.client();
    innocent.ping();
    let subscribe = |round: usize| {
        let clients: Vec<Client> = (0..CLIENTS)
            .map(|nth| {
                let mut client = server.client();
                client.send_text(&names(&format!("R{round}C{nth:02}"), 10_000, ""));
                reply_to(&mut client, "subscribed");
                client
            })
            .collect();
        clients
    };
    // The first round pays for what every later one uses.
    drop(subscribe(0));
    server.wait_for_metric("tickcast_clients", |clients| clients == 1);
    server.wait_for_metric("tickcast_audiences", |audiences| audiences == 1);
    let before = resident_bytes(&server);
    let clients = subscribe(1);
    let each = grown(&server, before) / (CLIENTS * 10_000) as u64;
    assert!(each < 160, "{each} B a name");
    innocent.ping();
    drop(clients);
    server.wait_for_metric("tickcast_clients", |clients| clients == 1);
    drop(subscribe(2));
    server.wait_for_metric("tickcast_clients", |clients| clients == 1);
    innocent.ping();
    assert!(grown(&server, before) < 24 * MIB, "{} MiB after all have left", grown(&server, before) / MIB);
}

#[test]
fn many_patterns_in_one_request_are_refused() {
    let server = Server::start(&["--feed", SMALL_MARKET, "--cores", "0"]);
    let before = resident_bytes(&server);
    let mut clients: Vec<Client> = (0..30).map(|_| server.client()).collect();
    for (nth, client) in clients.iter_mut().enumerate() {
        client.send_text(&names(&format!("C{nth:02}"), 10_000, "*"));
        let reply = reply_to(client, "error");
        assert_eq!(reply["code"], "limit", "{reply}");
    }
    assert!(grown(&server, before) < 32 * MIB, "{} MiB", grown(&server, before) / MIB);
}
