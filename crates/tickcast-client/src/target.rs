//! Where a server is.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use http::Uri;

use super::error::Error;

/// Where a client connects when nothing is said.
pub const DEFAULT_URL: &str = "ws://127.0.0.1:9001/v1/stream";
/// The port of a `HOST` without scheme and port: the server's default.
const DEFAULT_PORT: u16 = 9001;
const STREAM_PATH: &str = "/v1/stream";
/// How long connecting, the upgrade and plain requests may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A server's address, proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The whole URL, as it goes into the upgrade request.
    pub uri: Uri,
    /// Host without the brackets of an IPv6 address.
    pub host: String,
    pub port: u16,
}

impl Target {
    /// Reads `ws://host[:port][/path]` or `host[:port][/path]`; the path is `/v1/stream` where none is given, the
    /// port 80 with a scheme (RFC 6455, section 3) and the server's own 9001 without one.
    pub fn parse(url: &str) -> Result<Self, Error> {
        let error = |problem: &str| Error::Url { url: url.to_owned(), problem: problem.to_owned() };
        let (rest, default_port) = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("ws") => (rest, 80),
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("wss") => {
                return Err(error("wss:// is not supported here; connect to the server's plain port with ws://"));
            }
            Some(_) => return Err(error("the scheme must be ws://")),
            None => (url, DEFAULT_PORT),
        };
        let malformed = |_| error("want ws://HOST[:PORT][/PATH] or HOST[:PORT]");
        let given: Uri = format!("ws://{rest}").parse().map_err(malformed)?;
        let authority = given.authority().ok_or_else(|| error("the host is missing"))?;
        if authority.as_str().contains('@') {
            return Err(error("a user name in the URL is not supported"));
        }
        let host = authority.host();
        // `http` keeps a port that is no number for the caller to find.
        let port_text = authority.as_str().strip_prefix(host).and_then(|rest| rest.strip_prefix(':'));
        let port = port_text.map_or(Some(default_port), |text| text.parse().ok().filter(|port| *port != 0));
        let port = port.ok_or_else(|| error("the port must be a number from 1 to 65535"))?;
        let path = match given.path_and_query() {
            Some(path) if path.path() != "/" => path.as_str().to_owned(),
            Some(path) => {
                STREAM_PATH.to_owned() + path.query().map(|query| format!("?{query}")).as_deref().unwrap_or("")
            }
            None => STREAM_PATH.to_owned(),
        };
        let uri = format!("ws://{host}:{port}{path}").parse().map_err(malformed)?;
        Ok(Self { uri, host: host.trim_matches(['[', ']']).to_owned(), port })
    }

    /// The same server at another path.
    pub fn with_path(&self, path: &str) -> Self {
        let uri = format!("ws://{}{path}", self.authority()).parse().expect("a path of ours behind a proven authority");
        Self { uri, ..self.clone() }
    }

    /// `host:port`, for messages and the `Host` header.
    pub fn authority(&self) -> &str {
        self.uri.authority().expect("parse always sets one").as_str()
    }

    /// Resolves the host's name.
    pub fn addresses(&self) -> Result<Vec<SocketAddr>, Error> {
        let error = |error| Error::Resolve { host: self.host.clone(), error };
        let addresses: Vec<_> = (self.host.as_str(), self.port).to_socket_addrs().map_err(error)?.collect();
        if addresses.is_empty() { Err(error(std::io::ErrorKind::NotFound.into())) } else { Ok(addresses) }
    }

    /// Opens a TCP connection to the first address that takes one.
    pub fn connect(&self) -> Result<TcpStream, Error> {
        let mut last = None;
        for address in self.addresses()? {
            match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(Error::Connect { address, error }),
            }
        }
        Err(last.expect("addresses are never empty"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> (String, String, u16) {
        let target = Target::parse(url).expect("a good URL");
        (target.uri.to_string(), target.host, target.port)
    }

    #[test]
    fn a_host_alone_gets_scheme_port_and_path() {
        for (url, uri, host, port) in [
            (DEFAULT_URL, "ws://127.0.0.1:9001/v1/stream", "127.0.0.1", 9001),
            ("example.org", "ws://example.org:9001/v1/stream", "example.org", 9001),
            ("example.org:9100", "ws://example.org:9100/v1/stream", "example.org", 9100),
            ("example.org:9100/other", "ws://example.org:9100/other", "example.org", 9100),
            ("ws://example.org", "ws://example.org:80/v1/stream", "example.org", 80),
            ("WS://example.org:81/", "ws://example.org:81/v1/stream", "example.org", 81),
            ("[::1]:9001", "ws://[::1]:9001/v1/stream", "::1", 9001),
            ("ws://h:1/v1/stream?token=x", "ws://h:1/v1/stream?token=x", "h", 1),
            ("h:1/?token=x", "ws://h:1/v1/stream?token=x", "h", 1),
        ] {
            assert_eq!(parsed(url), (uri.to_owned(), host.to_owned(), port), "{url}");
        }
    }

    #[test]
    fn a_bad_url_is_refused_with_what_is_wrong() {
        for (url, problem) in [
            ("wss://example.org", "wss:// is not supported"),
            ("http://example.org", "scheme must be ws://"),
            ("ws://", "want ws://HOST"),
            ("", "want ws://HOST"),
            ("host:0", "port must be a number from 1 to 65535"),
            ("host:99999", "port must be a number from 1 to 65535"),
            ("host:", "port must be a number"),
            ("ws://user@host", "user name"),
            ("two words", "want ws://HOST"),
        ] {
            let error = Target::parse(url).expect_err(url).to_string();
            assert!(error.contains(problem), "{url}: {error}");
        }
    }
}
