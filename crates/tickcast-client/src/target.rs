//! The address of a server.

use std::fmt;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};

use http::Uri;

use crate::error::Error;
use crate::timeouts::CONNECT_TIMEOUT;

/// Where a client connects by default.
pub const DEFAULT_URL: &str = "ws://127.0.0.1:9001/v1/stream";
/// The port of a `HOST` without scheme and port: the server's default.
const DEFAULT_PORT: u16 = 9001;
const STREAM_PATH: &str = "/v1/stream";
const WANTED: &str = "expected ws://HOST[:PORT][/PATH] or HOST[:PORT]";

/// A server's URL, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    uri: Uri,
    host: String,
    port: u16,
    is_secured: bool,
}

impl Target {
    /// Reads `ws://host[:port][/path]`, `wss://` or `host[:port][/path]`; `http://` and `https://` are read as these. The
    /// default path is `/v1/stream`; the default
    /// port is 80, or 443, with a scheme (RFC 6455, section 3) and the server's own 9001 without one.
    ///
    /// # Errors
    /// [`Error::Url`] for any other text.
    pub fn parse(url: &str) -> Result<Self, Error> {
        Self::parse_with_path(url, STREAM_PATH)
    }

    /// The same with another default path.
    pub(crate) fn parse_with_path(url: &str, default_path: &str) -> Result<Self, Error> {
        let error = |problem| Error::Url { url: url.to_owned(), problem };
        let (rest, scheme, default_port) = match url.split_once("://") {
            // The page's address is the one that people copy.
            Some((scheme, rest)) if ["ws", "http"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) => {
                (rest, "ws", 80)
            }
            Some((scheme, rest)) if ["wss", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) => {
                (rest, "wss", 443)
            }
            Some(_) => return Err(error("expected the scheme ws://, wss://, http:// or https://")),
            None => (url, "ws", DEFAULT_PORT),
        };
        let malformed = |_| error(WANTED);
        let given: Uri = format!("ws://{rest}").parse().map_err(malformed)?;
        let authority = given.authority().ok_or_else(|| error(WANTED))?;
        if authority.as_str().contains('@') {
            return Err(error("expected no user name"));
        }
        let host = authority.host();
        // `http` keeps a port that is not a number for the caller to find.
        let port_text = authority.as_str().strip_prefix(host).and_then(|rest| rest.strip_prefix(':'));
        let port = port_text.map_or(Some(default_port), |text| text.parse().ok().filter(|port| *port != 0));
        let port = port.ok_or_else(|| error("expected a port from 1 to 65535"))?;
        let path = match given.path_and_query() {
            Some(path) if path.path() != "/" => path.as_str().to_owned(),
            Some(path) => {
                default_path.to_owned() + path.query().map(|query| format!("?{query}")).as_deref().unwrap_or("")
            }
            None => default_path.to_owned(),
        };
        let uri = format!("{scheme}://{host}:{port}{path}").parse().map_err(malformed)?;
        Ok(Self { uri, host: host.trim_matches(['[', ']']).to_owned(), port, is_secured: scheme == "wss" })
    }

    /// The same server at another path, which begins with `/`.
    ///
    /// # Panics
    /// When `path` is not the path of a URL.
    pub fn with_path(&self, path: &str) -> Self {
        let scheme = if self.is_secured { "wss" } else { "ws" };
        let uri = format!("{scheme}://{}{path}", self.authority()).parse().expect("the caller gives a valid path");
        Self { uri, ..self.clone() }
    }

    /// The same path at another port of the server.
    ///
    /// # Panics
    /// When `port` is 0.
    #[must_use]
    pub fn at_port(&self, port: u16) -> Self {
        assert!(port != 0, "no server listens on port 0");
        let scheme = if self.is_secured { "wss" } else { "ws" };
        let host = self.uri.host().expect("parse always sets one");
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let uri = format!("{scheme}://{host}:{port}{path}").parse().expect("all parts were parsed before");
        Self { uri, port, ..self.clone() }
    }

    /// `host:port`, as messages and the `Host` header have it.
    pub fn authority(&self) -> &str {
        self.uri.authority().expect("parse always sets one").as_str()
    }

    /// True for `wss://`.
    pub fn is_secured(&self) -> bool {
        self.is_secured
    }

    #[cfg(feature = "tls")]
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The path without the query.
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// Resolves the host's name.
    ///
    /// # Errors
    /// [`Error::Resolve`] where it has no address.
    pub fn addresses(&self) -> Result<Vec<SocketAddr>, Error> {
        let error = |error| Error::Resolve { host: self.host.clone(), error };
        let addresses: Vec<_> = (self.host.as_str(), self.port).to_socket_addrs().map_err(error)?.collect();
        if addresses.is_empty() { Err(error(std::io::ErrorKind::NotFound.into())) } else { Ok(addresses) }
    }

    /// Opens a TCP connection to the first address that accepts one.
    ///
    /// # Errors
    /// [`Error::Resolve`], or [`Error::Connect`] for the last address.
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

    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }
}

/// The whole URL.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> (String, String, u16) {
        let target = Target::parse(url).expect("a good URL");
        (target.to_string(), target.host, target.port)
    }

    #[test]
    fn scheme_port_and_path_have_defaults() {
        for (url, uri, host, port) in [
            (DEFAULT_URL, "ws://127.0.0.1:9001/v1/stream", "127.0.0.1", 9001),
            ("example.org", "ws://example.org:9001/v1/stream", "example.org", 9001),
            ("example.org:9100", "ws://example.org:9100/v1/stream", "example.org", 9100),
            ("example.org:9100/other", "ws://example.org:9100/other", "example.org", 9100),
            ("ws://example.org", "ws://example.org:80/v1/stream", "example.org", 80),
            ("WS://example.org:81/", "ws://example.org:81/v1/stream", "example.org", 81),
            ("wss://example.org", "wss://example.org:443/v1/stream", "example.org", 443),
            ("WSS://example.org:81/x", "wss://example.org:81/x", "example.org", 81),
            ("http://127.0.0.1:9001", "ws://127.0.0.1:9001/v1/stream", "127.0.0.1", 9001),
            ("https://example.org/", "wss://example.org:443/v1/stream", "example.org", 443),
            ("[::1]:9001", "ws://[::1]:9001/v1/stream", "::1", 9001),
            ("ws://h:1/v1/stream?token=x", "ws://h:1/v1/stream?token=x", "h", 1),
            ("h:1/?token=x", "ws://h:1/v1/stream?token=x", "h", 1),
        ] {
            assert_eq!(parsed(url), (uri.to_owned(), host.to_owned(), port), "{url}");
            assert_eq!(parsed(uri).0, uri, "a whole URL is read as itself");
        }
    }

    #[test]
    fn target_at_another_port_or_path_keeps_the_rest() {
        for url in ["wss://example.org/x?y=1", "ws://[::1]:81/x?y=1"] {
            let target = Target::parse(url).expect("a good URL").at_port(99);
            let other = target.with_path("/z");
            assert_eq!((target.port, other.port, other.is_secured), (99, 99, url.starts_with("wss")), "{url}");
            assert!(target.to_string().ends_with(":99/x?y=1") && other.to_string().ends_with(":99/z"), "{target}");
        }
    }

    #[test]
    fn an_invalid_url_is_refused_with_what_was_expected() {
        for (url, problem) in [
            ("ftp://example.org", "expected the scheme ws://, wss://, http:// or https://"),
            ("ws://", "expected ws://HOST"),
            ("", "expected ws://HOST"),
            ("host:0", "expected a port from 1 to 65535"),
            ("host:99999", "expected a port from 1 to 65535"),
            ("host:", "expected a port"),
            ("ws://user@host", "expected no user name"),
            ("two words", "expected ws://HOST"),
        ] {
            let error = Target::parse(url).expect_err(url).to_string();
            assert!(error.starts_with(&format!("invalid URL {url:?}: ")) && error.contains(problem), "{error}");
        }
    }
}
