//! Whose connection one of a proxy is. A proxy that is trusted names its client in `X-Forwarded-For`; what anybody else
//! says there is not looked at.
//!
//! The header is a list to which each proxy on the way has added whom it was called by, so that its end is the part that
//! is known: what stands left of the first address that is not trusted is that client's own word.

use std::net::{IpAddr, SocketAddr};

use http::header::HeaderMap;
use ipnet::IpNet;

const HEADER: &str = "x-forwarded-for";

/// What a trusted proxy has said of its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Its address.
    Client(IpAddr),
    /// Nothing that can be read beyond this address, which is the last that is known: the proxy's own, or that of another
    /// trusted one behind it.
    NoMoreThan(IpAddr),
}

impl Said {
    pub(crate) fn address(self) -> IpAddr {
        match self {
            Self::Client(address) | Self::NoMoreThan(address) => address,
        }
    }
}

/// True for a proxy whose word counts.
pub(crate) fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address))
}

/// The client of this trusted proxy: the rightmost address of its list that is not trusted itself, or the leftmost where
/// all are.
pub(crate) fn client(proxy: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Said {
    let lines: Vec<_> = headers.get_all(HEADER).iter().collect();
    // Lines are one list, in their order.
    let entries = lines.iter().rev().flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    let mut last = Said::NoMoreThan(proxy);
    for entry in entries {
        match address(entry) {
            Some(address) if is_trusted(address, trusted) => last = Said::Client(address),
            Some(address) => return Said::Client(address),
            None => return Said::NoMoreThan(last.address()),
        }
    }
    last
}

/// An address, which may have a port.
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

    fn said(lines: &[&str]) -> Said {
        let name = http::HeaderName::from_static(HEADER);
        let headers = lines.iter().map(|line| (name.clone(), HeaderValue::from_bytes(line.as_bytes()).unwrap()));
        client("10.0.0.1".parse().unwrap(), &headers.collect(), &trusted())
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_not_trusted() {
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
            // All are trusted: somebody of the own network.
            (&["10.9.9.9, 10.2.3.4"], "10.9.9.9"),
        ] {
            assert_eq!(said(lines), Said::Client(address.parse().unwrap()), "{lines:?}");
        }
    }

    #[test]
    fn where_the_list_cannot_be_read_the_last_address_that_is_known_stands() {
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
            assert_eq!(said(lines), Said::NoMoreThan(address.parse().unwrap()), "{lines:?}");
        }
    }
}
