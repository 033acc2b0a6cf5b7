//! One connection of a client: the handshake, then a [`Session`], which seals what is sent and opens what is received.
//!
//! What always holds:
//! * What was sealed has to be sent, whole and in order: its number in the sequence of records is used.
//! * What is held of input is a part of one record, or of one message of the handshake, within [`HANDSHAKE_INPUT_MAX`].
//!   The library remembers where messages are in it, and panics without it: so it is passed to every call.
//! * A fault ends the connection. What it appends to the output is an alert, which tells the peer why.
//!
//! Memory: some 3.5 kB a session, of which 1.1 kB are the struct; there are no buffers in it. Cost: 0.2 to 0.5 µs to seal
//! a record of 100 B, 2.5 µs for one of 16 kB; a full handshake takes some 100 µs.

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};
use rustls::{AlertDescription, Error, HandshakeKind, InvalidMessage, PeerIncompatible};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificates::subject_names;

/// Plaintext of one record at most.
pub const RECORD_BYTES_MAX: usize = 16 * 1024;
/// What a record takes beside its plaintext: 22 B in TLS 1.3, 29 B in TLS 1.2.
const RECORD_OVERHEAD_MAX: usize = 32;
/// What may go before a record: the answer to an update of keys.
const PREFIX_BYTES_MAX: usize = 64;
/// Input that is held during a handshake at most: a hello takes some 2 kB, a chain of client certificates some more.
pub const HANDSHAKE_INPUT_MAX: usize = 24 * 1024;
/// Input that a session holds at most: a record.
const HELD_MAX: usize = RECORD_BYTES_MAX + 2048;
/// First byte of a record of the handshake.
const HANDSHAKE_RECORD: u8 = 22;
/// Pieces that a connection has to send at once at the most: a flight of the handshake has some five.
const STATES_MAX: usize = 16;
/// An alert, or a flight of the handshake, takes less.
const FLIGHT_BYTES: usize = 8 * 1024;

/// Bytes that sealing so many may take.
pub const fn sealed_bytes_max(plain: usize) -> usize {
    plain + (plain.div_ceil(RECORD_BYTES_MAX) + 1) * RECORD_OVERHEAD_MAX + PREFIX_BYTES_MAX
}

/// Why a connection cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A request of plain HTTP.
    #[error("plain HTTP on a port for TLS: expected https:// or wss://")]
    PlainHttp,
    #[error("the first bytes are not those of a TLS handshake")]
    NotTls,
    #[error("no version of TLS in common: {0}")]
    Version(String),
    #[error("no application protocol in common: expected http/1.1")]
    Protocol,
    #[error("no certificate for the server name that was asked for")]
    Name,
    #[error("the client's certificate is refused: {0}")]
    Certificate(String),
    /// The peer has refused what this server sent.
    #[error("the client has sent the alert {0}")]
    Alert(String),
    #[error("more input than a handshake or a record takes")]
    TooLarge,
    #[error("{0}")]
    Broken(String),
}

impl Fault {
    fn of(error: Error) -> Self {
        match error {
            Error::AlertReceived(alert) => Self::Alert(alert_name(alert)),
            Error::NoApplicationProtocol => Self::Protocol,
            Error::InvalidCertificate(problem) => Self::Certificate(problem.to_string()),
            // What rustls says if there is no pair for a name.
            Error::General(text) if text.starts_with("no server certificate chain") => Self::Name,
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::NotTls,
            Error::PeerIncompatible(
                why @ (PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                | PeerIncompatible::SupportedVersionsExtensionRequired
                // Which every client since TLS 1.2 sends.
                | PeerIncompatible::SignatureAlgorithmsExtensionRequired),
            ) => Self::Version(format!("{why:?}")),
            error => Self::Broken(error.to_string()),
        }
    }

    /// A word for a metric.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::PlainHttp => "plain_http",
            Self::NotTls => "not_tls",
            Self::Version(_) => "version",
            Self::Protocol => "protocol",
            Self::Name => "name",
            Self::Certificate(_) => "certificate",
            Self::Alert(_) => "alert",
            Self::TooLarge | Self::Broken(_) => "broken",
        }
    }
}

fn alert_name(alert: AlertDescription) -> String {
    alert.as_str().map_or_else(|| format!("{alert:?}"), str::to_owned)
}

/// How far a handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It needs more input.
    More,
    /// It is complete; what is left of the input is for the session.
    Done,
}

/// A handshake under way.
pub struct Handshake {
    connection: Box<UnbufferedServerConnection>,
    held: Vec<u8>,
    has_begun: bool,
}

impl std::fmt::Debug for Handshake {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Handshake").finish_non_exhaustive()
    }
}

impl Handshake {
    pub(super) fn new(connection: UnbufferedServerConnection) -> Self {
        Self { connection: Box::new(connection), held: Vec::new(), has_begun: false }
    }

    /// Takes input, and appends to `output` what is to be sent now, also with a fault.
    ///
    /// # Errors
    /// The handshake has failed.
    pub fn feed(&mut self, input: &[u8], output: &mut Vec<u8>) -> Result<Step, Fault> {
        if !self.has_begun
            && let Some(first) = input.first()
        {
            self.has_begun = true;
            if *first != HANDSHAKE_RECORD {
                return Err(if first.is_ascii_uppercase() { Fault::PlainHttp } else { Fault::NotTls });
            }
        }
        self.held.extend_from_slice(input);
        let step = self.advance(output).map_err(|error| {
            push_alert(&mut self.connection, &mut self.held, output);
            Fault::of(error)
        })?;
        if step == Step::More && self.held.len() > HANDSHAKE_INPUT_MAX { Err(Fault::TooLarge) } else { Ok(step) }
    }

    fn advance(&mut self, output: &mut Vec<u8>) -> Result<Step, Error> {
        loop {
            let UnbufferedStatus { discard, state, .. } = self.connection.process_tls_records(&mut self.held);
            let outcome = match state {
                // Data behind the end of the handshake is left in the connection: the session reads it.
                Ok(ConnectionState::ReadTraffic(_) | ConnectionState::PeerClosed) => Ok(true),
                Ok(state) => Ok(push_state(state, output)),
                Err(error) => Err(error),
            };
            self.held.drain(..discard);
            if !outcome? {
                continue;
            }
            return Ok(if self.connection.is_handshaking() { Step::More } else { Step::Done });
        }
    }

    /// The session of a handshake that is done. There may be data in it: [`Session::open`] has to be called, if without
    /// input.
    pub fn into_session(self) -> Box<Session> {
        let Self { connection, held, .. } = self;
        Box::new(Session { connection: *connection, held, is_broken: false })
    }
}

/// Handles a state that has something to send. True if there is none: the connection waits for input or can be written.
fn push_state(state: ConnectionState<'_, '_, ServerConnectionData>, output: &mut Vec<u8>) -> bool {
    match state {
        ConnectionState::EncodeTlsData(mut encoding) => {
            let start = output.len();
            output.resize(start + FLIGHT_BYTES, 0);
            let written = match encoding.encode(&mut output[start..]) {
                Err(EncodeError::InsufficientSize(needed)) => {
                    output.resize(start + needed.required_size, 0);
                    encoding.encode(&mut output[start..])
                }
                written => written,
            };
            output.truncate(start + written.unwrap_or(0));
            false
        }
        ConnectionState::TransmitTlsData(transmitting) => {
            transmitting.done();
            false
        }
        _ => true,
    }
}

/// Appends the alert that a failed connection has for its peer. While there is something to send, the library does not
/// look at the input: it would find the same fault in it again.
fn push_alert(connection: &mut UnbufferedServerConnection, held: &mut Vec<u8>, output: &mut Vec<u8>) {
    while connection.wants_write() {
        let UnbufferedStatus { discard, state, .. } = connection.process_tls_records(held);
        match state {
            Ok(ConnectionState::ReadTraffic(mut reading)) => while reading.next_record().is_some() {},
            Ok(state) => drop(push_state(state, output)),
            Err(_) => return,
        }
        held.drain(..discard);
    }
}

/// A secured connection.
pub struct Session {
    connection: UnbufferedServerConnection,
    /// Input that is not a whole record, or not a whole message.
    held: Vec<u8>,
    /// It has had a fault.
    is_broken: bool,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    /// Seals `plain` as records at the start of `out`, which has [`sealed_bytes_max`] bytes; returns how many it took.
    ///
    /// # Errors
    /// The keys are used up, or the connection has had a fault before.
    pub fn seal(&mut self, plain: &[u8], out: &mut [u8]) -> Result<usize, Fault> {
        let sealed = self.write(out, |writing, out| writing.encrypt(plain, out));
        self.is_broken |= sealed.is_err();
        sealed
    }

    /// Seals the end of the connection (close_notify); returns how many bytes of `out` it took, 0 if there is none.
    pub fn close(&mut self, out: &mut [u8]) -> usize {
        self.write(out, |writing, out| writing.queue_close_notify(out)).unwrap_or(0)
    }

    fn write(
        &mut self,
        out: &mut [u8],
        write: impl FnOnce(&mut WriteTraffic<'_, ServerConnectionData>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> Result<usize, Fault> {
        if self.is_broken {
            return Err(Fault::Broken("the session has ended".to_owned()));
        }
        let mut at = 0;
        // Something else to send goes first; there is nothing as a rule.
        for _ in 0..STATES_MAX {
            // What is held is not whole: nothing of it is used here.
            match self.connection.process_tls_records(&mut self.held).state.map_err(Fault::of)? {
                ConnectionState::EncodeTlsData(mut encoding) => {
                    let encoded = encoding.encode(&mut out[at..]);
                    at += encoded.map_err(|error| Fault::Broken(error.to_string()))?;
                }
                ConnectionState::TransmitTlsData(transmitting) => transmitting.done(),
                ConnectionState::WriteTraffic(mut writing) => {
                    let written = write(&mut writing, &mut out[at..]);
                    return written.map(|len| at + len).map_err(|error| Fault::Broken(error.to_string()));
                }
                state => return Err(Fault::Broken(format!("the session cannot be written: {state:?}"))),
            }
        }
        Err(Fault::Broken("the session has too much to send".to_owned()))
    }

    /// Appends the plaintext of the whole records that have come with `input` to `plain`, and to `output` what is to be
    /// sent now, also with a fault. True if the peer sends nothing more.
    ///
    /// # Errors
    /// The input is not what the peer has sealed, or asks for too much.
    pub fn open(&mut self, input: &mut [u8], plain: &mut Vec<u8>, output: &mut Vec<u8>) -> Result<bool, Fault> {
        if self.is_broken {
            return Err(Fault::Broken("the session has ended".to_owned()));
        }
        // Whole records, as they come as a rule, are opened where they are.
        let mut held = std::mem::take(&mut self.held);
        let mut used = 0;
        let opened = if held.is_empty() {
            let opened = self.open_records(input, &mut used, plain, output);
            held.extend_from_slice(&input[used..]);
            opened
        } else {
            held.extend_from_slice(input);
            let opened = self.open_records(&mut held, &mut used, plain, output);
            held.drain(..used);
            opened
        };
        self.held = held;
        let outcome = match opened {
            Ok(false) if self.held.len() > HELD_MAX => Err(Fault::TooLarge),
            opened => opened,
        };
        match outcome {
            Err(fault) => {
                self.is_broken = true;
                push_alert(&mut self.connection, &mut self.held, output);
                self.held = Vec::new();
                Err(fault)
            }
            Ok(is_end) => {
                if self.held.is_empty() || is_end {
                    // An idle connection has no memory for it, and what follows the end is not read.
                    self.held = Vec::new();
                }
                Ok(is_end)
            }
        }
    }

    fn open_records(
        &mut self,
        input: &mut [u8],
        used: &mut usize,
        plain: &mut Vec<u8>,
        output: &mut Vec<u8>,
    ) -> Result<bool, Fault> {
        loop {
            let UnbufferedStatus { mut discard, state, .. } = self.connection.process_tls_records(&mut input[*used..]);
            let mut is_done = Ok(None);
            match state {
                Err(error) => is_done = Err(Fault::of(error)),
                Ok(ConnectionState::ReadTraffic(mut reading)) => {
                    while let Some(record) = reading.next_record() {
                        let record = record.map_err(Fault::of)?;
                        discard += record.discard;
                        plain.extend_from_slice(record.payload);
                    }
                }
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => is_done = Ok(Some(true)),
                Ok(state) => {
                    if push_state(state, output) {
                        is_done = Ok(Some(false));
                    }
                }
            }
            *used += discard;
            if let Some(is_end) = is_done? {
                return Ok(is_end);
            }
        }
    }

    /// Input that is held because it is not whole.
    pub fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// True if the client has resumed an earlier session.
    pub fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The certificate that the client has presented, which is valid and of a configured authority.
    pub fn client_certificate(&self) -> Option<ClientCertificate> {
        let der = self.connection.peer_certificates()?.first()?;
        let (_, certificate) = X509Certificate::from_der(der.as_ref()).ok()?;
        Some(ClientCertificate {
            subject: certificate.subject().to_string(),
            common_name: certificate
                .subject()
                .iter_common_name()
                .next()
                .and_then(|name| name.as_str().ok())
                .map(str::to_owned),
            names: subject_names(&certificate),
        })
    }
}

/// Whom a client certificate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The whole subject, such as `CN=feed, O=Example`.
    pub subject: String,
    pub common_name: Option<String>,
    /// DNS names, mail addresses, URIs and addresses of its subjectAltName.
    pub names: Vec<String>,
}

impl ClientCertificate {
    /// True if one of its names, or its common name, is among these.
    pub fn is_named(&self, configured: &[String]) -> bool {
        self.names.iter().chain(&self.common_name).any(|name| configured.contains(name))
    }
}
