//! A server for the tests of clients: it plays a script to every client that connects.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use tungstenite::{Message, WebSocket};

/// The server's end of an upgraded connection.
pub type Peer = WebSocket<TcpStream>;

/// A server on loopback: responds to `/v1/instruments` with `directory`, upgrades all other requests, and plays `script`
/// on a thread of its own to each. The listening thread ends with the test process.
pub fn serve(directory: &'static str, script: impl Fn(Peer) + Clone + Send + 'static) -> SocketAddr {
    serve_each(move |mut stream| {
        let Some(request) = peek_request_line(&stream) else { return };
        if request.starts_with("GET /v1/instruments ") {
            let length = directory.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n");
            read_request(&mut stream);
            stream.write_all((head + directory).as_bytes()).expect("the client waits for the response");
        } else {
            script(tungstenite::accept(stream).expect("an upgrade request"));
        }
    })
}

/// A server on loopback: responds to a request with the body that `answer` has for its path, upgrades all other requests,
/// and plays `script` on a thread of its own to each. The listening thread ends with the test process.
pub fn serve_api(
    answer: impl Fn(&str) -> Option<String> + Clone + Send + 'static,
    script: impl Fn(Peer) + Clone + Send + 'static,
) -> SocketAddr {
    serve_each(move |mut stream| {
        let Some(request) = peek_request_line(&stream) else { return };
        let Some(body) = answer(request.split(' ').nth(1).unwrap_or_default()) else {
            return script(tungstenite::accept(stream).expect("an upgrade request"));
        };
        read_request(&mut stream);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).expect("the client waits for the response");
    })
}

/// A server that responds to every request with these bytes.
pub fn respond(response: &'static str) -> SocketAddr {
    serve_each(move |mut stream| {
        read_request(&mut stream);
        // A client that only probes the port does not wait for a response.
        let _ = stream.write_all(response.as_bytes());
    })
}

/// Reads the subscribe request.
pub fn subscribe_request(peer: &mut Peer) -> serde_json::Value {
    let request = peer.read().expect("the client subscribes");
    serde_json::from_str(request.to_text().expect("requests are text")).expect("requests are JSON")
}

/// Reads the subscribe request, and replies with one instrument and `unknown`.
pub fn accept_subscription(peer: &mut Peer, unknown: &[&str]) {
    let id = subscribe_request(peer)["id"].clone();
    let reply = serde_json::json!({"type": "subscribed", "id": id, "conflate_ms": 0, "count": 1, "unknown": unknown});
    peer.send(Message::text(reply.to_string())).expect("the client reads");
}

/// Reads until the client ends the connection.
pub fn wait_for_end(peer: &mut Peer) {
    while peer.read().is_ok() {}
}

fn serve_each(handle: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener.local_addr().expect("a bound listener has an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let handle = handle.clone();
            // A script ends right after its last message, which must not wait for an acknowledgement.
            stream.set_nodelay(true).expect("a TCP socket");
            stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a positive timeout");
            std::thread::spawn(move || handle(stream));
        }
    });
    address
}

/// The first line of the request, which stays in the socket; `None` if the client sends nothing.
fn peek_request_line(stream: &TcpStream) -> Option<String> {
    let mut head = [0; 256];
    loop {
        let length = stream.peek(&mut head).expect("the client sends a request");
        let text = String::from_utf8_lossy(&head[..length]);
        if let Some((line, _)) = text.split_once("\r\n") {
            return Some(line.to_owned());
        }
        if length == 0 {
            return None;
        }
        assert!(length < head.len(), "no request line: {text:?}");
    }
}

fn read_request(stream: &mut TcpStream) {
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    while !request.ends_with(b"\r\n\r\n") {
        let length = stream.read(&mut chunk).expect("the client sends a request");
        if length == 0 {
            return;
        }
        request.extend_from_slice(&chunk[..length]);
    }
}
