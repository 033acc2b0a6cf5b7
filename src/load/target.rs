//! Where a server is, and what this machine must allow to reach it: URLs, the directory, descriptors, ports.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use http::Uri;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::args::Sources;
use super::client::{ClientError, refusal_message};

/// Where `tap` and `load` connect when nothing is said.
pub const DEFAULT_URL: &str = "ws://127.0.0.1:9001/v1/stream";
/// The port of a `HOST` without scheme and port: the server's default.
const DEFAULT_PORT: u16 = 9001;
const STREAM_PATH: &str = "/v1/stream";
/// How long connecting, the upgrade and plain requests may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// More than any directory: 100,000 instruments at some 200 bytes.
const DIRECTORY_BYTES_MAX: u64 = 64 << 20;
/// Descriptors that a process has open beside its connections: standard streams, epoll, resolver, log.
const DESCRIPTORS_BESIDE: u64 = 64;

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
    pub fn parse(url: &str) -> Result<Self, ClientError> {
        let error = |problem: &str| ClientError::Url { url: url.to_owned(), problem: problem.to_owned() };
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
    pub fn addresses(&self) -> Result<Vec<SocketAddr>, ClientError> {
        let error = |error| ClientError::Resolve { host: self.host.clone(), error };
        let addresses: Vec<_> = (self.host.as_str(), self.port).to_socket_addrs().map_err(error)?.collect();
        if addresses.is_empty() { Err(error(std::io::ErrorKind::NotFound.into())) } else { Ok(addresses) }
    }

    /// Opens a TCP connection to the first address that takes one.
    pub fn connect(&self) -> Result<TcpStream, ClientError> {
        let mut last = None;
        for address in self.addresses()? {
            match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(ClientError::Connect { address, error }),
            }
        }
        Err(last.expect("addresses are never empty"))
    }
}

/// The symbols of the server's directory, from `GET /v1/instruments`, in its order.
pub fn fetch_symbols(target: &Target) -> Result<Vec<String>, ClientError> {
    #[derive(serde::Deserialize)]
    struct Directory {
        instruments: Vec<Entry>,
    }
    #[derive(serde::Deserialize)]
    struct Entry {
        symbol: String,
    }
    let body = get(target, "/v1/instruments")?;
    let directory: Directory =
        serde_json::from_slice(&body).map_err(|error| ClientError::Directory(error.to_string()))?;
    Ok(directory.instruments.into_iter().map(|entry| entry.symbol).collect())
}

/// One HTTP/1.1 request on a connection of its own; the body of a 200 answer.
fn get(target: &Target, path: &str) -> Result<Vec<u8>, ClientError> {
    let mut stream = target.connect()?;
    let failed = |error: std::io::Error| ClientError::Directory(error.to_string());
    stream.set_read_timeout(Some(CONNECT_TIMEOUT)).map_err(failed)?;
    let host = target.authority();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = Vec::new();
    stream.take(DIRECTORY_BYTES_MAX).read_to_end(&mut answer).map_err(failed)?;
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let malformed = |problem: &str| ClientError::Directory(problem.to_owned());
    let Ok(httparse::Status::Complete(head_bytes)) = response.parse(&answer) else {
        return Err(malformed("the answer is not HTTP"));
    };
    let (status, reason) = (response.code.unwrap_or(0), response.reason.unwrap_or(""));
    let header = |name: &str| response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    let chunked = header("Transfer-Encoding").is_some();
    let body = &answer[head_bytes..];
    if status != 200 {
        return Err(ClientError::Directory(format!("{status} {reason}{}", refusal_message(body))));
    }
    if chunked {
        return Err(malformed("the answer is chunked, which this client does not read"));
    }
    Ok(body.to_vec())
}

/// Sees to it that `connections` descriptors can be opened: raises the soft limit as far as the hard one allows.
pub fn ensure_descriptors(connections: u64) -> Result<(), ClientError> {
    let limit = getrlimit(Resource::Nofile);
    let need = connections + DESCRIPTORS_BESIDE;
    match descriptors(need, limit.current, limit.maximum) {
        Descriptors::Enough => Ok(()),
        Descriptors::Raise => setrlimit(Resource::Nofile, Rlimit { current: Some(need), maximum: limit.maximum })
            .map_err(|_| ClientError::Descriptors { need, have: limit.current.unwrap_or(u64::MAX) }),
        Descriptors::Short { have } => Err(ClientError::Descriptors { need, have }),
    }
}

/// The most connections that [`ensure_descriptors`] can grant.
pub fn descriptors_max() -> u64 {
    getrlimit(Resource::Nofile).maximum.map_or(u64::MAX, |most| most.saturating_sub(DESCRIPTORS_BESIDE))
}

/// What to do about the limit of open descriptors.
#[derive(Debug, PartialEq, Eq)]
enum Descriptors {
    Enough,
    Raise,
    Short { have: u64 },
}

/// `None` is "unlimited".
fn descriptors(need: u64, soft: Option<u64>, hard: Option<u64>) -> Descriptors {
    match (soft, hard) {
        (None, _) => Descriptors::Enough,
        (Some(soft), _) if soft >= need => Descriptors::Enough,
        (_, Some(hard)) if hard < need => Descriptors::Short { have: hard },
        _ => Descriptors::Raise,
    }
}

/// The source addresses for so many connections: those given, or where the server is on this machine and one address
/// has not ports enough, as many of 127.0.0.0/8 as are needed. Empty where the kernel shall choose.
pub fn sources_for(connections: u64, given: &[IpAddr], server: IpAddr) -> Result<Vec<IpAddr>, ClientError> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    sources(connections, given, server, ports_of(&range))
}

fn sources(connections: u64, given: &[IpAddr], server: IpAddr, ports_each: u64) -> Result<Vec<IpAddr>, ClientError> {
    // Ports that others use, or that wait for late segments, are not free: an address gets four fifths of its own.
    let comfortable = (ports_each * 4 / 5).max(1);
    let spreads = given.is_empty() && server.is_ipv4() && server.is_loopback() && connections > comfortable;
    if spreads {
        // 127.0.0.1 has its ports used by everything else here.
        let count = u32::try_from(connections.div_ceil(comfortable)).unwrap_or(u32::MAX).min(1 << 20);
        return Ok((0..count).map(|nth| IpAddr::from((0x7f00_0002 + nth).to_be_bytes())).collect());
    }
    ports(connections, given.len().max(1) as u64, ports_each).map(|()| given.to_vec())
}

/// Reads `127.0.0.1,127.0.0.4-9`: the last number of an IPv4 address may be a range.
pub fn parse_sources(text: &str) -> Result<Sources, String> {
    let mut sources = Vec::new();
    for part in text.split(',').map(str::trim) {
        let bad = || format!("{part:?} is no address, and no range like 127.0.0.4-9");
        match part.split_once('-') {
            None => sources.push(part.parse().map_err(|_| bad())?),
            Some((first, last)) => {
                let first: Ipv4Addr = first.parse().map_err(|_| bad())?;
                let [a, b, c, from] = first.octets();
                let to: u8 = last.parse().ok().filter(|to| *to >= from).ok_or_else(bad)?;
                sources.extend((from..=to).map(|d| IpAddr::from([a, b, c, d])));
            }
        }
    }
    Ok(Sources(sources))
}

/// The size of `"32768\t60999"`; the kernel's default range where that cannot be read.
fn ports_of(range: &str) -> u64 {
    let mut bounds = range.split_whitespace().map(str::parse::<u64>);
    match (bounds.next(), bounds.next()) {
        (Some(Ok(low)), Some(Ok(high))) if high >= low => high - low + 1,
        _ => 28_232,
    }
}

fn ports(connections: u64, sources: u64, ports_each: u64) -> Result<(), ClientError> {
    let enough = connections <= sources * ports_each;
    let need = connections.div_ceil(ports_each.max(1));
    if enough { Ok(()) } else { Err(ClientError::Ports { connections, ports: sources * ports_each, sources: need }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::fake;

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

    #[test]
    fn the_directory_is_read_and_its_refusal_told() {
        let directory = r#"{"instruments":[{"instrument":1,"symbol":"BTC-USD","venue":"sim","px_exp":-2,"sz_exp":-8},
            {"instrument":2,"symbol":"AAPL","venue":"sim","px_exp":-2,"sz_exp":0}]}"#;
        let address = fake::serve(directory, |_| {});
        let symbols = fetch_symbols(&Target::parse(&address.to_string()).expect("an address")).expect("a directory");
        assert_eq!(symbols, ["BTC-USD", "AAPL"]);
        let address = fake::refuse(
            "HTTP/1.1 503 Service Unavailable\r\n\r\n{\"error\":{\"code\":\"draining\",\"message\":\"shutting down\"}}",
        );
        let error = fetch_symbols(&Target::parse(&address.to_string()).expect("an address")).expect_err("refused");
        assert_eq!(error.to_string(), "GET /v1/instruments: 503 Service Unavailable: shutting down");
    }

    #[test]
    fn descriptor_limits_are_raised_where_the_hard_limit_allows_it() {
        assert_eq!(descriptors(100, Some(100), Some(100)), Descriptors::Enough);
        assert_eq!(descriptors(101, None, None), Descriptors::Enough);
        assert_eq!(descriptors(101, Some(100), Some(101)), Descriptors::Raise);
        assert_eq!(descriptors(101, Some(100), None), Descriptors::Raise);
        assert_eq!(descriptors(102, Some(100), Some(101)), Descriptors::Short { have: 101 });
        let error = ClientError::Descriptors { need: 102, have: 101 }.to_string();
        assert!(error.contains("sudo prlimit --pid $$ --nofile=102:102"), "{error}");
    }

    #[test]
    fn a_server_on_this_machine_gets_clients_from_as_many_addresses_as_they_need() {
        let home = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(sources(800, &[], home, 1000).expect("enough"), Vec::<IpAddr>::new());
        let spread = sources(2000, &[], home, 1000).expect("loopback has many");
        assert_eq!(spread, [[127, 0, 0, 2], [127, 0, 0, 3], [127, 0, 0, 4]].map(IpAddr::from));
        assert!(sources(2000, &[], IpAddr::from([10, 0, 0, 1]), 1000).is_err());
        assert!(sources(2000, &[home], home, 1000).is_err(), "what was given is what is used");
    }

    #[test]
    fn ranges_of_sources_are_read() {
        let sources = parse_sources("127.0.0.1,127.0.0.4-6,::1").expect("addresses").0;
        let want = ["127.0.0.1", "127.0.0.4", "127.0.0.5", "127.0.0.6", "::1"];
        assert_eq!(sources.iter().map(IpAddr::to_string).collect::<Vec<_>>(), want);
        for bad in ["", "localhost", "127.0.0.4-2", "127.0.0.4-", "::1-4", "127.0.0.1-256"] {
            assert!(parse_sources(bad).expect_err(bad).contains("is no address"), "{bad}");
        }
    }

    #[test]
    fn too_few_local_ports_name_the_flag_that_mends_it() {
        assert_eq!(ports_of("32768\t60999\n"), 28_232);
        assert_eq!(ports_of(""), 28_232);
        assert!(ports(28_232, 1, 28_232).is_ok());
        let error = ports(60_000, 2, 28_232).expect_err("too few").to_string();
        assert!(error.contains("3 source addresses") && error.contains("--source"), "{error}");
    }
}
