//! The client's end of a secured connection: the client of rustls, which fails on any byte that is lost, repeated or
//! changed in what the server has sealed.

use std::io::{Read, Write};
use std::sync::{Arc, LazyLock};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tickcast::tls::{CertificateFiles, ServerSettings, Session, Step, TlsServer, TlsVersion};

/// One server for all worlds, and clients of both versions of TLS.
struct Ends {
    server: TlsServer,
    clients: [Arc<ClientConfig>; 2],
}

static ENDS: LazyLock<Ends> = LazyLock::new(|| {
    let pair = rcgen::generate_simple_self_signed(vec!["sim.test".to_owned()]).expect("a certificate");
    let folder = tempfile::tempdir().expect("a folder");
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, pair.cert.pem()).expect("written");
    std::fs::write(&key, pair.signing_key.serialize_pem()).expect("written");
    let pairs = vec![CertificateFiles { cert, key, names: vec![] }];
    let settings = ServerSettings { pairs, min_version: TlsVersion::Tls12, client_ca: None };
    let server = TlsServer::load(&settings, 1_900_000_000).expect("a server");
    let client = |version| {
        let mut roots = RootCertStore::empty();
        roots.add(pair.cert.der().clone()).expect("an authority");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]);
        Arc::new(builder.expect("a version").with_root_certificates(roots).with_no_client_auth())
    };
    Ends { server, clients: [client(&rustls::version::TLS13), client(&rustls::version::TLS12)] }
});

/// See the module.
pub struct Peer {
    connection: ClientConnection,
    /// It has sent what is no record: the server may end the connection with an alert.
    pub has_lied: bool,
    /// The server has ended the connection as TLS asks for.
    pub was_closed: bool,
}

impl Peer {
    /// Both ends after a handshake.
    pub fn connect(nth: usize) -> (Self, Box<Session>) {
        let name = ServerName::try_from("sim.test").expect("a name");
        let connection = ClientConnection::new(ENDS.clients[nth % 2].clone(), name).expect("a client");
        let mut peer = Self { connection, has_lied: false, was_closed: false };
        let mut handshake = ENDS.server.begin();
        for _ in 0..4 {
            let (sent, mut answer) = (peer.sealed(), Vec::new());
            let step = handshake.feed(&sent, &mut answer).expect("a handshake");
            peer.open(&answer);
            if step == Step::Done {
                return (peer, handshake.into_session());
            }
        }
        panic!("the handshake does not end");
    }

    /// What is to be sent for these bytes.
    pub fn seal(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.connection.writer().write_all(bytes).expect("no limit");
        self.sealed()
    }

    /// Changes the keys; what is to be sent.
    pub fn update_keys(&mut self) -> Vec<u8> {
        // An error is TLS 1.2, which has no such message.
        let _ = self.connection.refresh_traffic_keys();
        self.sealed()
    }

    fn sealed(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut out).expect("a Vec takes all");
        }
        out
    }

    /// What was sealed in these bytes.
    pub fn open(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let (mut plain, mut buffer) = (Vec::new(), [0; 4096]);
        while !bytes.is_empty() && !self.was_closed {
            self.connection.read_tls(&mut bytes).expect("a slice");
            match self.connection.process_new_packets() {
                Ok(state) => self.was_closed |= state.peer_has_closed(),
                Err(error) => {
                    assert!(self.has_lied, "what the server has sealed cannot be read: {error}");
                    return plain;
                }
            }
            while let Ok(len @ 1..) = self.connection.reader().read(&mut buffer) {
                plain.extend_from_slice(&buffer[..len]);
            }
        }
        plain
    }
}
