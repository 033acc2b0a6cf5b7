//! Origins of web pages, and the list of those whose pages may use the server.

use std::fmt;

/// The origin of a page: scheme, host and port. The port is absent if it is the scheme's default, or the scheme has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl Origin {
    /// Parses `https://example.com` or `http://[::1]:8080`. `None` for other text, such as `null`, which browsers send for
    /// pages without an origin.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        if scheme.is_empty() || !scheme.bytes().all(is_scheme) {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let (host, port) = split_authority(authority)?;
        let port = port.filter(|port| Some(*port) != default_port(&scheme));
        Some(Self { scheme, host, port })
    }

    /// In lower case, without a colon.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// True if `host` is the host of this origin. Without a port it has the default of the origin's scheme: behind a proxy
    /// that terminates TLS, the origin is `https` although the request arrives as plain HTTP.
    pub fn is_of_host(&self, host: &str) -> bool {
        let default = default_port(&self.scheme);
        split_authority(host).is_some_and(|(host, port)| {
            host == self.host && port.or(default) == self.port.or(default) && default.is_some()
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}://{}", self.scheme, self.host)?;
        self.port.map_or(Ok(()), |port| write!(out, ":{port}"))
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// Host, in lower case, and port; `None` if the text is invalid.
fn split_authority(text: &str) -> Option<(String, Option<u16>)> {
    let host_end = if text.starts_with('[') { text.find(']')? + 1 } else { text.find(':').unwrap_or(text.len()) };
    let (host, rest) = text.split_at(host_end);
    let is_host = |byte: u8| byte.is_ascii_graphic() && !br#"/?#@,"<>\*"#.contains(&byte);
    if host.is_empty() || !host.bytes().all(is_host) {
        return None;
    }
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
        _ => return None,
    };
    Some((host.to_ascii_lowercase(), port))
}

/// The origins, beside the server's own, whose pages may use the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    any: bool,
    /// In the form of browsers.
    listed: Vec<String>,
}

impl Origins {
    /// Parses a list such as `https://example.com,http://localhost:3000`, or `*`, or `none`. It may contain `null`, which
    /// browsers send for pages without an origin, such as files.
    ///
    /// # Errors
    /// The invalid part, and what was expected.
    pub fn parse(list: &str) -> Result<Self, String> {
        match list.trim() {
            "none" => return Ok(Self::default()),
            "*" => return Ok(Self { any: true, listed: Vec::new() }),
            _ => {}
        }
        let one = |text: &str| {
            match text.trim() {
            "null" => Ok("null".to_owned()),
            text => Origin::parse(text).map(|origin| origin.to_string()).ok_or_else(|| {
                format!(
                    "invalid origin {text:?}: expected a list like https://example.com,http://localhost:3000 without paths, \
                     or * for all, or none"
                )
            }),
        }
        };
        Ok(Self { any: false, listed: list.split(',').map(one).collect::<Result<_, _>>()? })
    }

    /// True if every origin is allowed.
    pub fn any(&self) -> bool {
        self.any
    }

    /// True if only the server's own origin is allowed.
    pub fn none(&self) -> bool {
        !self.any && self.listed.is_empty()
    }

    /// The entry that allows an origin, given as browsers write it.
    pub fn entry(&self, origin: &str) -> Option<&str> {
        if self.any { Some("*") } else { self.listed.iter().map(String::as_str).find(|listed| *listed == origin) }
    }
}

impl fmt::Display for Origins {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(if self.any {
            "*"
        } else if self.listed.is_empty() {
            "none"
        } else {
            ""
        })?;
        out.write_str(&self.listed.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_of_host(origin: &str, host: &str) -> bool {
        Origin::parse(origin).is_some_and(|origin| origin.is_of_host(host))
    }

    #[test]
    fn a_page_of_the_requested_host_has_the_same_origin() {
        for (origin, host) in [
            ("http://127.0.0.1:9001", "127.0.0.1:9001"),
            ("http://example.com", "example.com"),
            ("http://example.com", "example.com:80"),
            ("https://example.com", "example.com"),
            ("https://example.com", "example.com:443"),
            ("https://example.com:443", "EXAMPLE.com"),
            ("https://example.com:8443", "example.com:8443"),
            ("http://[::1]:9001", "[::1]:9001"),
            ("http://[::1]", "[::1]"),
        ] {
            assert!(is_of_host(origin, host), "{origin} at {host}");
        }
    }

    #[test]
    fn another_host_or_port_is_another_origin() {
        for (origin, host) in [
            ("http://evil.example", "example.com"),
            ("http://example.com.evil.example", "example.com"),
            ("http://evilexample.com", "example.com"),
            ("http://example.com", "example.com:9001"),
            ("http://example.com:9001", "example.com"),
            ("https://example.com", "example.com:80"),
            ("http://example.com", "example.com:443"),
            ("http://example.com@evil.example", "example.com"),
            ("http://evil.example#example.com", "example.com"),
            ("chrome-extension://abc", "abc"),
            ("null", "null"),
            ("", ""),
            ("http://", ""),
            ("example.com", "example.com"),
            ("http://example.com/", "example.com"),
            ("http://example.com:x", "example.com:x"),
            ("http://example.com:99999", "example.com:99999"),
            ("http://a http://example.com", "example.com"),
            ("http://[::1", "[::1"),
            ("http://::1", "::1"),
        ] {
            assert!(!is_of_host(origin, host), "{origin} at {host}");
        }
    }

    #[test]
    fn a_list_of_origins_is_parsed_and_its_errors_named() {
        let list = Origins::parse("https://Example.com:443, http://localhost:3000,null").expect("a list");
        assert_eq!(list.to_string(), "https://example.com, http://localhost:3000, null");
        assert_eq!(list.entry("https://example.com"), Some("https://example.com"));
        assert_eq!(list.entry("null"), Some("null"));
        for other in ["http://example.com", "https://example.com:8443", "http://localhost", "", "*"] {
            assert_eq!(list.entry(other), None, "{other}");
        }
        let any = Origins::parse(" * ").expect("all");
        assert!(any.any() && !any.none() && any.entry("null") == Some("*"));
        assert!(Origins::parse("none").expect("none").none());
        for wrong in
            ["example.com", "https://example.com/app", "*,https://a.example", "https://*.example.com", "", "a b"]
        {
            let problem = Origins::parse(wrong).expect_err(wrong);
            assert!(problem.contains("invalid origin") && problem.contains("https://example.com"), "{problem}");
        }
    }
}
