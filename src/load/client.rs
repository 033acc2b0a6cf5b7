//! One connection to a server, blocking: subscribe, then packets and replies one after another.
//!
//! What always holds: errors are sentences that say what happened and, where it is known, what mends it; a quiet
//! server never blocks a caller for longer than [`QUIET_AFTER`]. Not here: reconnecting, resuming, TLS.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde::Deserialize;
use tungstenite::handshake::HandshakeError;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Message, WebSocketConfig};
use tungstenite::{Bytes, Error, WebSocket};

use super::decode::DecodeError;
use super::target::{CONNECT_TIMEOUT, Target};
use crate::market::Channel;

/// After this much silence [`Client::receive`] returns, so that its caller can look at the clock and at signals.
pub const QUIET_AFTER: Duration = Duration::from_millis(100);
/// Tungstenite would take 128 KiB; packets are mostly shorter than this.
pub const READ_BUFFER_BYTES: usize = 4096;

/// Why a client cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{url:?}: {problem}")]
    Url { url: String, problem: String },
    #[error("{0}")]
    Arguments(String),
    #[error("cannot resolve {host:?}: {error}")]
    Resolve { host: String, error: std::io::Error },
    #[error("cannot connect to {address}: {}", connect_problem(error))]
    Connect { address: SocketAddr, error: std::io::Error },
    #[error("the server did not answer the {0} within {limit} s", limit = CONNECT_TIMEOUT.as_secs())]
    Silent(&'static str),
    #[error("the server refused the connection: {0}")]
    Refused(String),
    #[error("the server refused the subscription: {0}")]
    Rejected(String),
    #[error("the server closed the connection: {}", close_text(*code, reason))]
    Closed { code: u16, reason: String },
    #[error("the connection ended without a close frame")]
    Dropped,
    #[error("the connection failed: {0}")]
    Protocol(String),
    #[error("the server sent a malformed packet: {0}")]
    Decode(#[from] DecodeError),
    #[error("GET /v1/instruments: {0}")]
    Directory(String),
    #[error(
        "{need} open files are needed, and this process may have {have}; raise the limit of this shell with \
         `sudo prlimit --pid $$ --nofile={need}:{need}` and start again"
    )]
    Descriptors { need: u64, have: u64 },
    #[error(
        "{connections} connections are more than the {ports} local ports that there are for them; give {sources} \
         source addresses, such as --source 127.0.0.1,127.0.0.2,…"
    )]
    Ports { connections: u64, ports: u64, sources: u64 },
    #[error("the publisher could not go on: {0}")]
    Publish(String),
    #[error("the server that was to be started: {0}")]
    Serve(String),
    #[error("{0}")]
    Probe(#[from] super::probe::ProbeError),
    #[error("a load process could not go on: {0}")]
    Worker(String),
    #[error("interrupted before there was anything to report")]
    Interrupted,
    #[error("cannot write the output: {0}")]
    Output(std::io::Error),
    #[error("{what}: {error}")]
    System { what: &'static str, error: std::io::Error },
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    pub channels: Vec<Channel>,
    /// Names, or patterns with one `*` at the end.
    pub symbols: Vec<String>,
    /// 0: every update.
    pub conflate_ms: u32,
    /// State before live.
    pub snapshot: bool,
}

impl Subscription {
    /// The request as JSON text.
    pub fn request(&self, id: u64) -> String {
        let channels: Vec<_> = self.channels.iter().map(|channel| channel.name()).collect();
        serde_json::json!({
            "op": "subscribe", "id": id, "channels": channels, "symbols": self.symbols,
            "conflate_ms": self.conflate_ms, "snapshot": self.snapshot,
        })
        .to_string()
    }
}

/// A control message of the server, as far as a client needs it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Reply {
    Welcome {
        epoch: u32,
    },
    Subscribed {
        id: u64,
        conflate_ms: u32,
        count: u64,
        #[serde(default)]
        unknown: Vec<String>,
        #[serde(default)]
        denied: Vec<String>,
    },
    Error {
        code: String,
        message: String,
    },
    Closing {
        reason: String,
    },
    /// What this client did not ask for, or does not know: ignored.
    #[serde(other)]
    Other,
}

/// What comes out of a connection.
#[derive(Debug)]
pub enum Received {
    /// A binary message, for a [`super::Decoder`].
    Packet(Bytes),
    Reply(Reply),
    /// Nothing for [`QUIET_AFTER`], or a message that concerns nobody.
    Quiet,
}

/// A connection after its upgrade.
#[derive(Debug)]
pub struct Client {
    socket: WebSocket<TcpStream>,
    last_id: u64,
}

impl Client {
    /// Connects and upgrades.
    pub fn connect(target: &Target) -> Result<Self, ClientError> {
        let system = |what| move |error| ClientError::System { what, error };
        let stream = target.connect()?;
        stream.set_nodelay(true).map_err(system("TCP_NODELAY"))?;
        stream.set_read_timeout(Some(CONNECT_TIMEOUT)).map_err(system("read timeout"))?;
        let rest = stream.try_clone().map_err(system("the connection's descriptor"))?;
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
        let socket = match tungstenite::client::client_with_config(&target.uri, stream, Some(config)) {
            Ok((socket, _)) => socket,
            Err(HandshakeError::Interrupted(_)) => return Err(ClientError::Silent("upgrade request")),
            Err(HandshakeError::Failure(Error::Http(response))) => return Err(refusal(*response, rest)),
            Err(HandshakeError::Failure(error)) => return Err(failure(error)),
        };
        socket.get_ref().set_read_timeout(Some(QUIET_AFTER)).map_err(system("read timeout"))?;
        Ok(Self { socket, last_id: 0 })
    }

    /// Asks for a subscription; the reply comes from [`Self::receive`], and carries the id that this returns.
    pub fn subscribe(&mut self, subscription: &Subscription) -> Result<u64, ClientError> {
        self.last_id += 1;
        self.socket.send(Message::text(subscription.request(self.last_id))).map_err(failure)?;
        Ok(self.last_id)
    }

    /// Waits for the next message, at most [`QUIET_AFTER`]. Pings are answered on the way.
    pub fn receive(&mut self) -> Result<Received, ClientError> {
        match self.socket.read() {
            Ok(Message::Binary(packet)) => Ok(Received::Packet(packet)),
            Ok(Message::Text(text)) => reply(&text).map(Received::Reply),
            Ok(Message::Close(frame)) => {
                // The answer to the close is queued; what becomes of it changes nothing any more.
                let _ = self.socket.flush();
                Err(closed(frame))
            }
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => Ok(Received::Quiet),
            Err(Error::Io(error)) if is_timeout(&error) => Ok(Received::Quiet),
            Err(error) => Err(failure(error)),
        }
    }

    /// Says goodbye with 1000, and waits a moment for the server's answer.
    pub fn close(mut self) {
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        if self.socket.close(Some(frame)).is_err() {
            return;
        }
        // The stream goes on until the server has read the close: bounded, so that a busy one cannot hold us here.
        for _ in 0..CLOSE_READS_MAX {
            if self.socket.read().is_err() {
                return;
            }
        }
    }
}

/// Messages that may still come between our close and the server's answer.
const CLOSE_READS_MAX: usize = 1024;

/// Reads a control message.
pub fn reply(text: &str) -> Result<Reply, ClientError> {
    serde_json::from_str(text)
        .map_err(|error| ClientError::Protocol(format!("reply {text:?} is not understood: {error}")))
}

/// A read that ran into its timeout, or was interrupted by a signal.
pub fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// The error that a close frame of the server is.
pub fn closed(frame: Option<CloseFrame>) -> ClientError {
    // 1005 stands for "no code was given" (RFC 6455, section 7.1.5).
    let (code, reason) = frame.map_or((1005, String::new()), |frame| (frame.code.into(), frame.reason.to_string()));
    ClientError::Closed { code, reason }
}

/// A library's error in our words.
pub fn failure(error: Error) -> ClientError {
    use tungstenite::error::ProtocolError::{HandshakeIncomplete, ResetWithoutClosingHandshake};
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => ClientError::Dropped,
        Error::Protocol(HandshakeIncomplete | ResetWithoutClosingHandshake) => ClientError::Dropped,
        Error::Io(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
            ClientError::Dropped
        }
        error => ClientError::Protocol(error.to_string()),
    }
}

/// The sentence for an upgrade that was answered with another status; `rest` yields what is left of the body.
fn refusal(response: http::Response<Option<Vec<u8>>>, rest: TcpStream) -> ClientError {
    let (parts, body) = response.into_parts();
    let mut body = body.unwrap_or_default();
    let number = |name| parts.headers.get(name)?.to_str().ok()?.parse::<u64>().ok();
    let length = number(http::header::CONTENT_LENGTH).unwrap_or(0).min(REFUSAL_BYTES_MAX);
    // A body that does not come leaves the status, which says enough.
    let _ = rest.take(length.saturating_sub(body.len() as u64)).read_to_end(&mut body);
    let mut text = format!("{}{}", parts.status, refusal_message(&body));
    if let Some(seconds) = number(http::header::RETRY_AFTER) {
        text += &format!(" (try again in {seconds} s)");
    }
    ClientError::Refused(text)
}

/// No refusal of the server comes near this.
const REFUSAL_BYTES_MAX: u64 = 64 * 1024;

/// `: message` of a body `{"error":{"code":"..","message":".."}}`; nothing where the body is something else.
pub fn refusal_message(body: &[u8]) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let message = json.as_ref().and_then(|json| json["error"]["message"].as_str());
    message.map_or_else(String::new, |message| format!(": {message}"))
}

/// `4002 (slow consumer): owes too much`.
pub fn close_text(code: u16, reason: &str) -> String {
    let meaning = match code {
        1000 => "normal",
        1001 => "going away",
        1002 => "protocol error",
        1005 => "no code given",
        1007 => "bad UTF-8",
        1008 => "policy",
        1009 => "too big",
        1011 => "internal error",
        4001 => "credentials expired",
        4002 => "slow consumer",
        4003 => "no longer entitled",
        _ => "unknown code",
    };
    if reason.is_empty() { format!("{code} ({meaning})") } else { format!("{code} ({meaning}): {reason}") }
}

fn connect_problem(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused; no server listens there".to_owned(),
        ErrorKind::TimedOut => format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::load::fake::{self, PacketBuilder};

    fn connect(address: SocketAddr) -> Result<Client, ClientError> {
        Client::connect(&Target::parse(&address.to_string()).expect("an address is a good URL"))
    }

    fn receive_what_matters(client: &mut Client) -> Result<Received, ClientError> {
        loop {
            match client.receive() {
                Ok(Received::Quiet) => {}
                other => return other,
            }
        }
    }

    fn subscription() -> Subscription {
        let channels = vec![Channel::Quote, Channel::Trade];
        Subscription { channels, symbols: vec!["BTC-*".to_owned()], conflate_ms: 50, snapshot: false }
    }

    #[test]
    fn a_subscription_is_sent_as_the_protocol_says_and_replies_and_packets_come_back() {
        let packet = PacketBuilder::new().definition(1, "BTC-USD").quote(1, 0);
        let (sent, script) = (packet.bytes(), packet.clone());
        let address = fake::serve("", move |mut peer| {
            let request = fake::subscribe_request(&mut peer);
            let want = serde_json::json!({"op": "subscribe", "id": 1, "channels": ["quote", "trade"],
                "symbols": ["BTC-*"], "conflate_ms": 50, "snapshot": false});
            let good = if request == want { "yes" } else { "no" };
            let welcome = r#"{"type":"welcome","epoch":7,"version":"0.1.0","heartbeat_ms":1000,"limits":{}}"#;
            peer.send(Message::text(welcome)).expect("the client reads");
            peer.send(Message::text(format!(r#"{{"type":"closing","reason":"{good}"}}"#))).expect("the client reads");
            peer.send(Message::text(r#"{"type":"news"}"#)).expect("the client reads");
            peer.send(script.message()).expect("the client reads");
            fake::wait_for_end(&mut peer);
        });
        let mut client = connect(address).expect("a server is there");
        assert_eq!(client.subscribe(&subscription()).expect("sent"), 1);
        let mut reply = || match receive_what_matters(&mut client) {
            Ok(Received::Reply(reply)) => reply,
            other => panic!("want a reply, have {other:?}"),
        };
        assert_eq!(reply(), Reply::Welcome { epoch: 7 });
        assert_eq!(reply(), Reply::Closing { reason: "yes".to_owned() });
        assert_eq!(reply(), Reply::Other);
        match receive_what_matters(&mut client) {
            Ok(Received::Packet(packet)) => assert_eq!(packet, sent),
            other => panic!("want a packet, have {other:?}"),
        }
        client.close();
    }

    #[test]
    fn a_refused_upgrade_shows_status_message_and_when_to_try_again() {
        let address = fake::refuse(concat!(
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 72\r\n",
            "Retry-After: 5\r\n\r\n",
            "{\"error\":{\"code\":\"full\",\"message\":\"this server has its 1000 connections\"}}"
        ));
        let error = connect(address).expect_err("refused");
        assert_eq!(
            error.to_string(),
            "the server refused the connection: 503 Service Unavailable: this server has its 1000 connections \
             (try again in 5 s)"
        );
    }

    #[test]
    fn a_refusal_without_a_body_still_tells_its_status() {
        let address = fake::refuse("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        let error = connect(address).expect_err("refused");
        assert_eq!(error.to_string(), "the server refused the connection: 404 Not Found");
    }

    #[test]
    fn nobody_listening_is_told_with_the_address() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        drop(listener);
        let error = connect(address).expect_err("nobody is there");
        let want = format!("cannot connect to {address}: connection refused; no server listens there");
        assert_eq!(error.to_string(), want);
    }

    #[test]
    fn a_close_shows_code_meaning_and_reason() {
        let address = fake::serve("", |mut peer| {
            let frame = CloseFrame { code: CloseCode::from(4002), reason: "owes 4 MiB".into() };
            peer.close(Some(frame)).expect("the client reads");
            fake::wait_for_end(&mut peer);
        });
        let error = receive_what_matters(&mut connect(address).expect("a server is there")).expect_err("closed");
        assert_eq!(error.to_string(), "the server closed the connection: 4002 (slow consumer): owes 4 MiB");
    }

    #[test]
    fn a_connection_that_just_ends_is_told_as_such() {
        let address = fake::serve("", drop);
        let error = receive_what_matters(&mut connect(address).expect("a server is there")).expect_err("ended");
        assert!(matches!(error, ClientError::Dropped), "{error}");
    }
}
