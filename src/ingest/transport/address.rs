//! Addresses of servers that sources connect to, and connections to them.

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tungstenite::http::Uri;

use crate::tls::Connector;

/// The longest wait for a connection, with its TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A server, and the path of a resource there: a URL without user, query and fragment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// TLS is used.
    pub is_secure: bool,
    /// A name or an IP address; one of version 6 in brackets.
    pub host: String,
    pub port: u16,
    /// Begins with a slash.
    pub path: String,
}

impl Address {
    /// Parses a URL of one of these schemes, of which the second is that with TLS.
    ///
    /// # Errors
    /// What is wrong, and what was expected.
    pub fn parse(url: &str, schemes: [&str; 2]) -> Result<Self, String> {
        let [plain, secure] = schemes;
        let expected = |problem: &str| format!("invalid URL {url:?}: {problem}: expected {secure}://HOST:PORT");
        if url.contains('@') {
            // Not shown: it may be a password.
            return Err(format!("invalid URL: a user is not allowed in it: expected {secure}://HOST:PORT"));
        }
        if !url.starts_with(&format!("{plain}://")) && !url.starts_with(&format!("{secure}://")) {
            return Err(expected(&format!("the scheme is neither {secure} nor {plain}")));
        }
        let uri: Uri = url.parse().map_err(|error| expected(&format!("{error}")))?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| expected("there is no host"))?;
        if uri.query().is_some() || url.contains('#') {
            return Err(expected("a query is not allowed in it"));
        }
        let is_secure = uri.scheme_str() == Some(secure);
        let has_port = uri.authority().is_some_and(|authority| authority.as_str() != host);
        let port = match uri.port_u16() {
            Some(0) => return Err(expected("port 0")),
            Some(port) => port,
            None if has_port => return Err(expected("the port is not 1 to 65535")),
            None if is_secure => 443,
            None => 80,
        };
        let path = if uri.path().is_empty() { "/" } else { uri.path() };
        Ok(Self { is_secure, host: host.to_owned(), port, path: path.to_owned() })
    }

    /// The same resource at another server.
    #[must_use]
    pub fn at(&self, server: &Self) -> Self {
        Self { path: self.path.clone(), ..server.clone() }
    }

    /// Host and port: what a limit of a venue counts for, and what messages name.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The URL with one of these schemes.
    pub fn url(&self, schemes: [&str; 2]) -> String {
        let scheme = schemes[usize::from(self.is_secure)];
        let is_usual = self.port == if self.is_secure { 443 } else { 80 };
        let port = if is_usual { String::new() } else { format!(":{}", self.port) };
        format!("{scheme}://{}{port}{}", self.host, self.path)
    }
}

/// A failure of a connection or a request, in words that name the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub reason: String,
    /// Not again before this has passed, as the server has asked for; zero if it has not.
    pub after: Duration,
}

impl Failure {
    /// A failure at this address.
    pub fn at(address: &Address, problem: impl fmt::Display) -> Self {
        Self { reason: format!("{}: {problem}", address.authority()), after: Duration::ZERO }
    }
}

/// A connection, plain or with TLS.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Connects to a server.
pub(super) async fn dial(address: &Address, connector: &Connector) -> Result<Box<dyn Duplex>, Failure> {
    match timeout(CONNECT_TIMEOUT, dial_unbounded(address, connector)).await {
        Ok(result) => result.map_err(|problem| Failure::at(address, problem)),
        Err(_) => Err(Failure::at(address, format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()))),
    }
}

async fn dial_unbounded(address: &Address, connector: &Connector) -> Result<Box<dyn Duplex>, String> {
    let host = address.host.trim_start_matches('[').trim_end_matches(']');
    let found = lookup_host((host, address.port)).await.map_err(|error| format!("the host was not found: {error}"))?;
    let mut problem = "the host has no address".to_owned();
    for peer in found {
        match TcpStream::connect(peer).await {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(|error| error.to_string())?;
                return encrypt(address, stream, connector).await;
            }
            Err(error) => problem = connect_problem(&error),
        }
    }
    Err(problem)
}

async fn encrypt(address: &Address, stream: TcpStream, connector: &Connector) -> Result<Box<dyn Duplex>, String> {
    if !address.is_secure {
        return Ok(Box::new(stream));
    }
    let handshake = connector.connect(&address.host, stream).map_err(|error| error.to_string())?;
    let stream = handshake.await.map_err(|error| connector.reason(&error))?;
    Ok(Box::new(stream))
}

fn connect_problem(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused: nothing listens there".to_owned(),
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => format!("it cannot be reached: {error}"),
        _ => format!("no connection: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMES: [&str; 2] = ["ws", "wss"];

    #[test]
    fn url_is_server_and_path() {
        let parse = |url| Address::parse(url, SCHEMES).map(|address| (address.authority(), address.path));
        let expected = |authority: &str, path: &str| Ok((authority.to_owned(), path.to_owned()));
        assert_eq!(parse("wss://a.example"), expected("a.example:443", "/"));
        assert_eq!(parse("ws://127.0.0.1"), expected("127.0.0.1:80", "/"));
        assert_eq!(parse("wss://[::1]:9443/v5/public"), expected("[::1]:9443", "/v5/public"));
        let venue = Address::parse("wss://a.example:9443/stream", SCHEMES).expect("a URL");
        let other = Address::parse("ws://127.0.0.1:8080", SCHEMES).expect("a URL");
        assert_eq!(venue.at(&other).url(SCHEMES), "ws://127.0.0.1:8080/stream");
        assert_eq!(venue.url(SCHEMES), "wss://a.example:9443/stream");
        assert_eq!(venue.at(&venue).url(["http", "https"]), "https://a.example:9443/stream");
    }

    #[test]
    fn bad_url_is_rejected_with_what_was_expected_and_without_a_password() {
        for (url, part) in [
            ("http://a", "the scheme is neither wss nor ws"),
            ("a.example:443", "the scheme is neither wss nor ws"),
            ("wss://", "expected wss://HOST:PORT"),
            ("wss://a:0", "port 0"),
            ("wss://a:99999", "the port is not 1 to 65535"),
            ("wss://a b", "expected wss://HOST:PORT"),
            ("wss://a/?x=1", "a query is not allowed"),
            ("wss://u:secret@a", "a user is not allowed"),
        ] {
            let error = Address::parse(url, SCHEMES).expect_err(url);
            assert!(error.contains(part) && !error.contains("secret"), "{url}: {error}");
        }
    }
}
