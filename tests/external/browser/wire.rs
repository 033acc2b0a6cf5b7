//! A wire between a browser and a server that can be cut, or carry pages but no streams; and an empty page on it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// What a proxy says where its server is gone.
const GONE: &str = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const SMALL: &str = "<!doctype html><html lang=en><title>test</title><link rel=icon href=data:,><body></body></html>";

/// Carries bytes between whoever connects to `address` and the server. `/small.html` is an empty page, of the same
/// origin as all that the server has.
pub struct Wire {
    pub address: SocketAddr,
    connections: Mutex<Vec<TcpStream>>,
    refuses_streams: AtomicBool,
}

impl Wire {
    pub fn to(server: SocketAddr) -> Arc<Self> {
        Self::with_policy(server, "")
    }

    /// The small page has this Content-Security-Policy, or none.
    pub fn with_policy(server: SocketAddr, policy: &str) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let policy = if policy.is_empty() { String::new() } else { format!("Content-Security-Policy: {policy}\r\n") };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n{policy}Connection: close\r\n");
        let small = format!("{head}Content-Length: {}\r\n\r\n{SMALL}", SMALL.len());
        let wire = Arc::new(Self { address, connections: Mutex::default(), refuses_streams: AtomicBool::new(false) });
        let serving = wire.clone();
        // Ends with the test's process.
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let (serving, small) = (serving.clone(), small.clone());
                // Browsers connect in advance, and say something later or never.
                std::thread::spawn(move || serving.take(near, server, &small));
            }
        });
        wire
    }

    /// Answers for the server that it is gone, where a stream is asked for.
    pub fn refuse_streams(&self, refuse: bool) {
        self.refuses_streams.store(refuse, Ordering::Relaxed);
    }

    /// Ends all connections at both sides, in the middle of whatever they carry.
    pub fn cut(&self) {
        for stream in self.connections.lock().expect("no thread has panicked").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn take(&self, mut near: TcpStream, server: SocketAddr, small: &str) {
        // A browser's request is there whole: it is far below what one segment of loopback holds.
        let mut head = [0; 16];
        let read = near.peek(&mut head).unwrap_or(0);
        let asks = |path: &str| head[..read].starts_with(path.as_bytes());
        if asks("GET /small.html") || asks("GET /v1/stream") && self.refuses_streams.load(Ordering::Relaxed) {
            let mut request = [0; 1 << 14];
            let _ = near.read(&mut request);
            let _ = near.write_all(if asks("GET /small.html") { small } else { GONE }.as_bytes());
            return;
        }
        let Ok(far) = TcpStream::connect(server) else { return };
        let copy = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
        self.connections.lock().expect("no thread has panicked").extend([copy(&near), copy(&far)]);
        let back = (copy(&far), copy(&near));
        std::thread::spawn(move || carry(back.0, back.1));
        carry(near, far);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
