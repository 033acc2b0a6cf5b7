//! A TCP proxy between a browser and a server: it can close connections and refuse streams, and serves an empty page.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// A proxy's answer for an unreachable server.
const BAD_GATEWAY: &str = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const EMPTY: &str = "<!doctype html><html lang=en><title>test</title><link rel=icon href=data:,><body></body></html>";

/// Forwards connections to `address` to the server. `/empty.html` is an empty page of the same origin as the server's
/// resources.
pub struct Proxy {
    pub address: SocketAddr,
    connections: Mutex<Vec<TcpStream>>,
    refuses_streams: AtomicBool,
}

impl Proxy {
    pub fn to(server: SocketAddr) -> Arc<Self> {
        Self::with_policy(server, "")
    }

    /// The empty page has this Content-Security-Policy, or none if it is empty.
    pub fn with_policy(server: SocketAddr, policy: &str) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let policy = if policy.is_empty() { String::new() } else { format!("Content-Security-Policy: {policy}\r\n") };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n{policy}Connection: close\r\n");
        let empty_page = format!("{head}Content-Length: {}\r\n\r\n{EMPTY}", EMPTY.len());
        let proxy = Arc::new(Self { address, connections: Mutex::default(), refuses_streams: AtomicBool::new(false) });
        let serving = proxy.clone();
        // Ends with the test's process.
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let (serving, empty_page) = (serving.clone(), empty_page.clone());
                // Browsers open connections in advance, and use them later or never.
                std::thread::spawn(move || serving.serve(near, server, &empty_page));
            }
        });
        proxy
    }

    /// Answers requests for a stream with 502, or forwards them again.
    pub fn refuse_streams(&self, refuse: bool) {
        self.refuses_streams.store(refuse, Ordering::Relaxed);
    }

    /// Closes all connections on both sides, also in the middle of a message.
    pub fn cut(&self) {
        for stream in self.connections.lock().expect("no thread has panicked").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn serve(&self, mut near: TcpStream, server: SocketAddr, empty_page: &str) {
        // A browser's request comes in one piece: it is far smaller than a segment of loopback.
        let mut head = [0; 16];
        let read = near.peek(&mut head).unwrap_or(0);
        let requests = |path: &str| head[..read].starts_with(path.as_bytes());
        if requests("GET /empty.html") || requests("GET /v1/stream") && self.refuses_streams.load(Ordering::Relaxed) {
            let mut request = [0; 1 << 14];
            let _ = near.read(&mut request);
            let _ = near.write_all(if requests("GET /empty.html") { empty_page } else { BAD_GATEWAY }.as_bytes());
            return;
        }
        let Ok(far) = TcpStream::connect(server) else { return };
        let copy = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
        self.connections.lock().expect("no thread has panicked").extend([copy(&near), copy(&far)]);
        let back = (copy(&far), copy(&near));
        std::thread::spawn(move || forward(back.0, back.1));
        forward(near, far);
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
