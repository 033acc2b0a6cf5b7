//! Names that requests may give for the server (`Host`).
//!
//! A foreign page can have its own name resolve to any address that its visitor reaches (DNS rebinding). The page is then
//! of the server's own origin, as far as the browser can tell. Only the name gives it away: it is not one of the server's.
//! An address and `localhost` need no list, since they cannot be made to resolve elsewhere.

use std::fmt;
use std::net::Ipv6Addr;

/// The names, besides addresses and `localhost`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AllowedHosts {
    /// None where the server listens on a loopback address, else all.
    #[default]
    ByListener,
    Any,
    /// These, in lower case.
    Listed(Vec<String>),
}

impl AllowedHosts {
    /// Parses a list such as `quotes.example.com,localhost`, or `*`.
    ///
    /// # Errors
    /// The invalid part, and what was expected.
    pub fn parse(list: &str) -> Result<Self, String> {
        if list.trim() == "*" {
            return Ok(Self::Any);
        }
        let one = |text: &str| {
            let name = text.trim().to_ascii_lowercase();
            let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
            if name.is_empty() || !name.bytes().all(is_letter) {
                return Err(format!(
                    "invalid name {text:?}: expected a list like quotes.example.com,prices.example.com without ports, or * \
                     for all"
                ));
            }
            Ok(name)
        };
        Ok(Self::Listed(list.split(',').map(one).collect::<Result<_, _>>()?))
    }

    /// True if a request may give this name, with or without a port, to a listener on loopback or elsewhere.
    pub fn allows(&self, authority: &str, listens_on_loopback: bool) -> bool {
        let name = host_of(authority).to_ascii_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        match self {
            Self::Any => true,
            Self::ByListener if !listens_on_loopback => true,
            _ if is_address(name) || name == "localhost" || name.ends_with(".localhost") => true,
            Self::ByListener => false,
            Self::Listed(names) => names.iter().any(|listed| listed == name),
        }
    }
}

fn host_of(authority: &str) -> &str {
    let end = match authority.starts_with('[') {
        true => authority.find(']').map_or(authority.len(), |at| at + 1),
        false => authority.find(':').unwrap_or(authority.len()),
    };
    &authority[..end]
}

/// True for an address in any form that a browser takes for one: such a name is never resolved.
fn is_address(name: &str) -> bool {
    let v6 = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    v6.is_some_and(|text| text.parse::<Ipv6Addr>().is_ok()) || name.parse::<std::net::Ipv4Addr>().is_ok()
}

impl fmt::Display for AllowedHosts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByListener => out.write_str("addresses and localhost on a loopback listener, else all"),
            Self::Any => out.write_str("*"),
            Self::Listed(names) => out.write_str(&names.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_loopback_only_addresses_and_localhost_are_allowed_by_default() {
        let default = AllowedHosts::default();
        for name in ["127.0.0.1:9001", "[::1]:9001", "[::1]", "192.0.2.7", "localhost", "LocalHost:1", "a.localhost."] {
            assert!(default.allows(name, true), "{name}");
        }
        for name in ["rebound.example", "127.0.0.1.example:9001", "localhost.example", "here", "1.2.3", "[x]", ""] {
            assert!(!default.allows(name, true), "{name}");
            assert!(default.allows(name, false) && AllowedHosts::Any.allows(name, true), "{name}");
        }
    }

    #[test]
    fn a_list_holds_for_every_listener() {
        let listed = AllowedHosts::parse("Quotes.example.com, b.example").unwrap();
        for loopback in [true, false] {
            assert!(listed.allows("quotes.example.com:443", loopback) && listed.allows("B.EXAMPLE.", loopback));
            assert!(listed.allows("127.0.0.1", loopback) && listed.allows("localhost:9001", loopback));
            assert!(!listed.allows("rebound.example", loopback) && !listed.allows("a.b.example", loopback));
        }
        assert_eq!(AllowedHosts::parse(" * "), Ok(AllowedHosts::Any));
        for wrong in ["", "a,", "http://a.example", "a.example:80", "*.example", "a b"] {
            assert!(AllowedHosts::parse(wrong).unwrap_err().contains("invalid name"), "{wrong}");
        }
    }
}
