//! A client of NATS, written from its text protocol.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

pub struct NatsClient {
    stream: BufReader<TcpStream>,
}

impl NatsClient {
    /// Connects; `credentials` are more fields of CONNECT.
    pub fn connect(address: SocketAddr, credentials: Value) -> Self {
        Self::try_connect(address, credentials).expect("the broker answers")
    }

    pub fn try_connect(address: SocketAddr, credentials: Value) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_nodelay(true)?;
        let mut client = Self { stream: BufReader::new(stream) };
        client.line()?;
        let mut fields = json!({"verbose": false, "pedantic": false, "headers": true, "no_responders": true});
        fields.as_object_mut().expect("an object").extend(credentials.as_object().expect("an object").clone());
        client.send(format!("CONNECT {fields}\r\n").as_bytes())?;
        client.round_trip()?;
        Ok(client)
    }

    /// Publishes; the broker has it once a later round trip is complete.
    pub fn publish(&mut self, subject: &str, payload: &[u8]) -> std::io::Result<()> {
        self.send(&Self::frame(subject, payload))
    }

    /// The bytes that publish.
    pub fn frame(subject: &str, payload: &[u8]) -> Vec<u8> {
        [format!("PUB {subject} {}\r\n", payload.len()).as_bytes(), payload, b"\r\n"].concat()
    }

    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Waits until the broker has what was sent.
    pub fn round_trip(&mut self) -> std::io::Result<()> {
        self.send(b"PING\r\n")?;
        loop {
            let line = self.line()?;
            match line.as_str() {
                "PONG" => return Ok(()),
                "PING" => self.send(b"PONG\r\n")?,
                "+OK" => {}
                _ if line.starts_with("INFO ") => {}
                _ => return Err(std::io::Error::other(line)),
            }
        }
    }

    /// Publishes into a stream with an id, and waits for the acknowledgement.
    pub fn publish_acknowledged(&mut self, subject: &str, id: &str, payload: &[u8]) -> std::io::Result<()> {
        let header = format!("NATS/1.0\r\nNats-Msg-Id: {id}\r\n\r\n");
        let head = format!("HPUB {subject} _REPLY {} {}\r\n{header}", header.len(), header.len() + payload.len());
        let answer = self.ask(&[head.as_bytes(), payload, b"\r\n"].concat())?;
        if answer.get("seq").is_some() { Ok(()) } else { Err(std::io::Error::other(answer.to_string())) }
    }

    /// A request to the API of JetStream.
    pub fn request(&mut self, subject: &str, body: &Value) -> std::io::Result<Value> {
        let body = body.to_string();
        self.ask(format!("PUB {subject} _REPLY {}\r\n{body}\r\n", body.len()).as_bytes())
    }

    /// Makes a stream for subjects. The file storage of a broker that is just started may not be ready.
    pub fn make_stream(&mut self, name: &str, subjects: &[&str]) {
        let config = json!({"name": name, "subjects": subjects, "retention": "limits", "storage": "file", "max_consumers": -1,
            "max_msgs": -1, "max_bytes": -1, "max_age": 0, "num_replicas": 1, "discard": "old"});
        let answer = self.request(&format!("$JS.API.STREAM.CREATE.{name}"), &config).expect("an answer");
        assert!(answer.get("error").is_none(), "{answer}");
    }

    fn ask(&mut self, bytes: &[u8]) -> std::io::Result<Value> {
        self.send(b"SUB _REPLY 1\r\nUNSUB 1 1\r\n")?;
        self.send(bytes)?;
        loop {
            let line = self.line()?;
            let words: Vec<&str> = line.split(' ').collect();
            match words[0] {
                "MSG" | "HMSG" => {
                    let length: usize = words[words.len() - 1].parse().map_err(std::io::Error::other)?;
                    let mut body = vec![0; length + 2];
                    self.stream.read_exact(&mut body)?;
                    // Headers come before the payload, with their length before that of all.
                    let is_with_headers = words[0] == "HMSG";
                    let headers = if is_with_headers { words[words.len() - 2].parse().unwrap_or(0) } else { 0 };
                    let payload = body.get(headers..length).unwrap_or_default();
                    return serde_json::from_slice(payload).map_err(std::io::Error::other);
                }
                "PING" => self.send(b"PONG\r\n")?,
                "+OK" | "PONG" | "INFO" => {}
                _ => return Err(std::io::Error::other(line)),
            }
        }
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}
