//! Servers with a certificate of a test's own authority, and tunnels to them: a tunnel is a listener whose connections
//! are carried to the server over TLS, by the client of rustls. So the plain clients of the tests speak to it as they are.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustix::event::{PollFd, PollFlags, poll};
use rustls::client::WantsClientCert;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ConfigBuilder, RootCertStore};
use tempfile::TempDir;

use crate::DEADLINE;
use crate::server::Server;

/// An authority, and the certificate of a server that it has signed.
pub struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        // Clients find an authority by its name.
        let name = format!("authority of a test {:?}", &key.public_key_raw()[1..9]);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, key).expect("signed");
        let authority = Self { folder: tempfile::tempdir().expect("a folder"), issuer };
        replace(&authority.path("ca.pem"), &authority.issuer.pem());
        authority.renew(&["localhost"]);
        authority
    }

    /// `ca.pem`, `cert.pem`, `key.pem`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces the pair by one for these names. The certificate comes last.
    pub fn renew(&self, names: &[&str]) {
        self.replace_pair(names, CertificateParams::default());
    }

    /// The same, with a certificate that has expired.
    pub fn expire(&self, names: &[&str]) {
        let mut times = CertificateParams::default();
        (times.not_before, times.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2020, 2, 1));
        self.replace_pair(names, times);
    }

    fn replace_pair(&self, names: &[&str], times: CertificateParams) {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        (params.not_before, params.not_after) = (times.not_before, times.not_after);
        // OpenSSL takes a certificate whose issuer has its own name for one that has signed itself.
        params.distinguished_name.push(DnType::CommonName, "server of a test");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        replace(&self.path("key.pem"), &key.serialize_pem());
        replace(&self.path("cert.pem"), &certificate.pem());
    }

    /// A server with the pair.
    pub fn start(&self, args: &[&str]) -> Server {
        let (cert, key) = (self.path("cert.pem"), self.path("key.pem"));
        let pair = ["--tls-cert", cert.to_str().expect("UTF-8"), "--tls-key", key.to_str().expect("UTF-8")];
        Server::start(&[&["--tls-listen", "127.0.0.1:0"], &pair[..], args].concat())
    }

    fn client(&self) -> Arc<ClientConfig> {
        Arc::new(self.builder().with_no_client_auth())
    }

    /// A client with a certificate of this authority.
    fn client_as(&self, names: &[&str]) -> Arc<ClientConfig> {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, "client of a test");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let config = self.builder().with_client_auth_cert(vec![certificate.der().clone()], key);
        Arc::new(config.expect("a pair"))
    }

    fn builder(&self) -> ConfigBuilder<ClientConfig, WantsClientCert> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("an authority");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        builder.expect("versions").with_root_certificates(roots)
    }

    /// The handshake with a server of this name; the certificate that it has shown.
    pub fn shake(&self, server: &Server, name: &str) -> Result<Vec<u8>, String> {
        let mut client = client_of(&self.client(), name);
        let mut socket = TcpStream::connect(tls_address(server)).expect("it listens");
        while client.is_handshaking() {
            client.complete_io(&mut socket).map_err(|error| error.to_string())?;
        }
        Ok(client.peer_certificates().expect("certificates")[0].to_vec())
    }

    /// A connection to a server; its handshake is still to be made.
    pub fn connect(&self, server: &Server) -> (ClientConnection, TcpStream) {
        let socket = TcpStream::connect(tls_address(server)).expect("it listens");
        socket.set_read_timeout(Some(DEADLINE)).expect("not 0");
        (client_of(&self.client(), "localhost"), socket)
    }

    /// A tunnel to a server; the address of its plain end.
    pub fn tunnel(&self, server: &Server) -> SocketAddr {
        Self::tunnel_of(self.client(), server)
    }

    /// The same with a client certificate for these names.
    pub fn tunnel_as(&self, server: &Server, names: &[&str]) -> SocketAddr {
        Self::tunnel_of(self.client_as(names), server)
    }

    fn tunnel_of(config: Arc<ClientConfig>, server: &Server) -> SocketAddr {
        let to = tls_address(server);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        std::thread::spawn(move || {
            for plain in listener.incoming() {
                let (plain, config) = (plain.expect("a connection"), config.clone());
                // An error is the end of one of both.
                std::thread::spawn(move || carry(plain, TcpStream::connect(to)?, &config));
            }
        });
        address
    }
}

/// Where a server listens for TLS.
pub fn tls_address(server: &Server) -> SocketAddr {
    server.program.wait_for_address("serving TLS on https://")
}

fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("the folder is writable");
    std::fs::rename(new, path).expect("the folder is writable");
}

fn client_of(config: &Arc<ClientConfig>, name: &str) -> ClientConnection {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    ClientConnection::new(config.clone(), name).expect("a client")
}

fn carry(mut plain: TcpStream, mut sealed: TcpStream, config: &Arc<ClientConfig>) -> std::io::Result<()> {
    let mut client = client_of(config, "localhost");
    let mut buffer = vec![0; 64 * 1024];
    let (mut plain_ended, mut has_ended) = (false, false);
    while !has_ended {
        while client.wants_write() {
            client.write_tls(&mut sealed)?;
        }
        let is_open = !client.is_handshaking() && !plain_ended;
        let mut sockets = [PollFd::new(&sealed, PollFlags::IN), PollFd::new(&plain, PollFlags::IN)];
        poll(&mut sockets[..1 + usize::from(is_open)], None)?;
        let [from_server, from_plain] = sockets.map(|socket| !socket.revents().is_empty());
        if from_server {
            has_ended = client.read_tls(&mut sealed)? == 0;
            let state = client.process_new_packets().map_err(std::io::Error::other);
            if state.is_err() {
                // The alert tells the server why.
                client.write_tls(&mut sealed)?;
            }
            has_ended |= state?.peer_has_closed();
            loop {
                match client.reader().read(&mut buffer) {
                    Ok(0) => break,
                    Ok(len) => plain.write_all(&buffer[..len])?,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        if is_open && from_plain {
            let len = plain.read(&mut buffer)?;
            client.writer().write_all(&buffer[..len])?;
            if len == 0 {
                client.send_close_notify();
                plain_ended = true;
            }
        }
    }
    plain.shutdown(Shutdown::Write)
}
