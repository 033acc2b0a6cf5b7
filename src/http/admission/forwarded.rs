//! The client behind a proxy. A trusted proxy names its client in `X-Forwarded-For`; the header of any other peer is
//! ignored.
//!
//! The header is a list to which each proxy appends the address it was called by, so only its end is trustworthy: entries
//! left of the last untrusted address were written by that client itself.

use std::net::{IpAddr, SocketAddr};

use http::header::HeaderMap;
use ipnet::IpNet;

const HEADER: &str = "x-forwarded-for";

/// The client's address as a trusted proxy names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forwarded {
    /// The address of the client.
    Client(IpAddr),
    /// The header is missing or invalid. This is the last known address: the proxy's own, or that of another trusted proxy
    /// behind it.
    LastKnown(IpAddr),
}

impl Forwarded {
    pub(crate) fn address(self) -> IpAddr {
        match self {
            Self::Client(address) | Self::LastKnown(address) => address,
        }
    }
}

/// The scheme with which a client has reached a trusted proxy, as the proxy names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientScheme {
    Http,
    Https,
}

impl ClientScheme {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The scheme of a trusted proxy's client: the last element of `X-Forwarded-Proto`, which that proxy has written.
pub(crate) fn scheme(headers: &HeaderMap) -> Option<ClientScheme> {
    let line = headers.get_all("x-forwarded-proto").iter().next_back()?;
    let last = line.as_bytes().rsplit(|byte| *byte == b',').next()?.trim_ascii();
    match last {
        _ if last.eq_ignore_ascii_case(b"https") => Some(ClientScheme::Https),
        _ if last.eq_ignore_ascii_case(b"http") => Some(ClientScheme::Http),
        _ => None,
    }
}

/// True for the address of a trusted proxy.
pub(crate) fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address))
}

/// The client of this trusted proxy: the rightmost untrusted address of the list, or the leftmost if all are trusted.
pub(crate) fn client(proxy: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Forwarded {
    let lines: Vec<_> = headers.get_all(HEADER).iter().collect();
    // All lines are one list, in their order.
    let entries = lines.iter().rev().flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    let mut last = Forwarded::LastKnown(proxy);
    for entry in entries {
        match address(entry) {
            Some(address) if is_trusted(address, trusted) => last = Forwarded::Client(address),
            Some(address) => return Forwarded::Client(address),
            None => return Forwarded::LastKnown(last.address()),
        }
    }
    last
}

/// An address with or without a port.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    bare.parse::<IpAddr>().ok().or_else(with_port).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn trusted() -> Vec<IpNet> {
        ["10.0.0.0/8", "127.0.0.1/32", "2001:db8::/32"].map(|network| network.parse().unwrap()).to_vec()
    }

    fn parse(lines: &[&str]) -> Forwarded {
        let name = http::HeaderName::from_static(HEADER);
        let headers = lines.iter().map(|line| (name.clone(), HeaderValue::from_bytes(line.as_bytes()).unwrap()));
        client("10.0.0.1".parse().unwrap(), &headers.collect(), &trusted())
    }

    #[test]
    fn client_is_the_rightmost_untrusted_address() {
        for (lines, address) in [
            (&["192.0.2.7"][..], "192.0.2.7"),
            (&["198.51.100.1, 192.0.2.7"], "192.0.2.7"),
            (&["127.0.0.1, 192.0.2.7"], "192.0.2.7"),
            (&["garbage, 192.0.2.7"], "192.0.2.7"),
            (&["198.51.100.1, 192.0.2.7, 10.2.3.4,127.0.0.1"], "192.0.2.7"),
            (&["198.51.100.1", "192.0.2.7", "10.2.3.4"], "192.0.2.7"),
            (&["192.0.2.7:51234"], "192.0.2.7"),
            (&[" 192.0.2.7\t"], "192.0.2.7"),
            (&["::ffff:192.0.2.7"], "192.0.2.7"),
            (&["2001:0DB9::7"], "2001:db9::7"),
            (&["[2001:db9::7]"], "2001:db9::7"),
            (&["192.0.2.7, [2001:db9::7]:443, [2001:db8::1]:80"], "2001:db9::7"),
            // All are trusted: a client in the local network.
            (&["10.9.9.9, 10.2.3.4"], "10.9.9.9"),
        ] {
            assert_eq!(parse(lines), Forwarded::Client(address.parse().unwrap()), "{lines:?}");
        }
    }

    #[test]
    fn the_scheme_is_what_the_last_proxy_says() {
        let of = |lines: &[&str]| {
            let name = http::HeaderName::from_static("x-forwarded-proto");
            scheme(&lines.iter().map(|line| (name.clone(), HeaderValue::from_str(line).unwrap())).collect())
        };
        for lines in [&["https"][..], &["http, HTTPS "], &["http", "https"]] {
            assert_eq!(of(lines), Some(ClientScheme::Https), "{lines:?}");
        }
        assert_eq!(of(&["https,http"]), Some(ClientScheme::Http));
        assert_eq!((of(&[]), of(&["wss"]), of(&["https,"])), (None, None, None));
    }

    #[test]
    fn an_invalid_entry_yields_the_last_known_address() {
        for (lines, address) in [
            (&[][..], "10.0.0.1"),
            (&[""], "10.0.0.1"),
            (&["unknown"], "10.0.0.1"),
            (&["192.0.2.7, unknown"], "10.0.0.1"),
            (&["192.0.2.7,"], "10.0.0.1"),
            (&["192.0.2.7, _hidden, 10.2.3.4"], "10.2.3.4"),
            (&["192.0.2.7", ""], "10.0.0.1"),
            (&["192.0.2.777"], "10.0.0.1"),
            (&["192.0.2.7:99999"], "10.0.0.1"),
            (&["[192.0.2.7"], "10.0.0.1"),
            (&["fe80::1%eth0"], "10.0.0.1"),
            (&["192.0.2.7 10.2.3.4"], "10.0.0.1"),
            (&["grüße"], "10.0.0.1"),
        ] {
            assert_eq!(parse(lines), Forwarded::LastKnown(address.parse().unwrap()), "{lines:?}");
        }
    }
}
