//! Negotiates permessage-deflate: the client's offers in `Sec-WebSocket-Extensions`, and the one that is accepted.
//!
//! ```text
//! permessage-deflate; server_max_window_bits=10; client_max_window_bits, permessage-deflate
//! ^ the preferred offer                                                 ^ the next, if the first is declined
//! ```
//!
//! A header that breaks the grammar fails the handshake. An offer that this endpoint does not support, or that breaks a
//! rule of RFC 7692, is declined and the next one is tried; without an acceptable offer, the connection is uncompressed.

use std::borrow::Cow;
use std::fmt;

use super::WindowBits;

/// The name of the extension.
const NAME: &str = "permessage-deflate";

/// The accepted parameters, always without context takeover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The window that this server compresses with, if the client limits it.
    pub server_window: Option<WindowBits>,
}

impl Agreed {
    /// The window to compress with.
    pub fn window(&self) -> WindowBits {
        self.server_window.unwrap_or(WindowBits::MOST)
    }
}

/// The value of the response header.
impl fmt::Display for Agreed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        //= RFC 7692 section 7.1.1.1
        //# "A server MAY include the "server_no_context_takeover" extension parameter in an extension negotiation
        //# response even if the extension negotiation offer being accepted by the extension negotiation response didn't
        //# include the "server_no_context_takeover" extension parameter."
        //= RFC 7692 section 7.1.1.2
        //# "By including the "client_no_context_takeover" extension parameter in an extension negotiation response, a
        //# server prevents the peer client from using context takeover."
        write!(f, "{NAME}; server_no_context_takeover; client_no_context_takeover")?;
        // Without `client_max_window_bits` the client may use any window: the inflater of a thread has the full size.
        match self.server_window {
            Some(bits) => write!(f, "; server_max_window_bits={}", bits.get()),
            None => Ok(()),
        }
    }
}

/// A header that is not a list of extensions; the message follows the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("breaks the grammar at byte {at} (RFC 6455 section 9.1)")]
pub struct ExtensionsError {
    /// Index in its line.
    pub at: usize,
}

/// The first acceptable offer in the lines of the header. All lines are read even after an acceptable offer, because a
/// syntax error fails the handshake.
///
/// # Errors
/// When a line breaks the grammar.
pub fn negotiate<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Result<Option<Agreed>, ExtensionsError> {
    let mut agreed = None;
    //= RFC 6455 section 9.1
    //# "Note that like other HTTP header fields, this header field MAY be split or combined across multiple lines."
    for line in lines {
        let mut reader = Reader { line, at: 0 };
        while let Some(extension) = reader.extension()? {
            //= RFC 7692 section 5
            //# "The order of elements is important as it specifies the client's preference."
            agreed = agreed.or_else(|| accept(&extension));
        }
    }
    Ok(agreed)
}

/// One offered extension.
struct Extension<'a> {
    name: &'a str,
    params: Vec<(&'a str, Option<Cow<'a, str>>)>,
}

/// The parameters if the offer is accepted; `None` if it is declined.
fn accept(extension: &Extension<'_>) -> Option<Agreed> {
    if !extension.name.eq_ignore_ascii_case(NAME) {
        return None;
    }
    let mut server_window = None;
    let mut seen: Vec<&str> = Vec::new();
    for (name, value) in &extension.params {
        //= RFC 7692 section 7
        //# "A server MUST decline an extension negotiation offer for this extension if any of the following conditions
        //# are met: [...] The negotiation offer contains an extension parameter not defined for use in an offer. [...]
        //# The negotiation offer contains an extension parameter with an invalid value. [...] The negotiation offer
        //# contains multiple extension parameters with the same name. [...] The server doesn't support the offered
        //# configuration."
        if seen.contains(name) {
            return None;
        }
        seen.push(name);
        match (*name, value.as_deref()) {
            ("server_no_context_takeover" | "client_no_context_takeover", None) => {}
            ("server_max_window_bits", Some(bits)) => server_window = Some(window_bits(bits)?),
            ("client_max_window_bits", None) => {}
            ("client_max_window_bits", Some(bits)) => drop(window_bits(bits)?),
            _ => return None,
        }
    }
    Some(Agreed { server_window })
}

/// A decimal number from 8 to 15 without leading zeroes.
fn window_bits(value: &str) -> Option<WindowBits> {
    let plain = value.bytes().all(|byte| byte.is_ascii_digit()) && !value.starts_with('0');
    WindowBits::new(value.parse().ok().filter(|_| plain)?)
}

/// Reads one line of the header.
///
/// ```text
/// extension-list  = 1#extension
/// extension       = token *( ";" extension-param )
/// extension-param = token [ "=" ( token / quoted-string ) ]
/// ```
struct Reader<'a> {
    line: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// The next extension; `None` at the end of the line. Empty elements of the list are skipped.
    fn extension(&mut self) -> Result<Option<Extension<'a>>, ExtensionsError> {
        self.skip_space();
        while self.take(b',') {
            self.skip_space();
        }
        if self.at == self.line.len() {
            return Ok(None);
        }
        let mut extension = Extension { name: self.token()?, params: Vec::new() };
        loop {
            self.skip_space();
            if self.take(b';') {
                self.skip_space();
                extension.params.push(self.param()?);
            } else if self.at == self.line.len() || self.take(b',') {
                return Ok(Some(extension));
            } else {
                return Err(self.malformed());
            }
        }
    }

    fn param(&mut self) -> Result<(&'a str, Option<Cow<'a, str>>), ExtensionsError> {
        let name = self.token()?;
        self.skip_space();
        if !self.take(b'=') {
            return Ok((name, None));
        }
        self.skip_space();
        let value = if self.take(b'"') { Cow::Owned(self.quoted()?) } else { Cow::Borrowed(self.token()?) };
        Ok((name, Some(value)))
    }

    fn token(&mut self) -> Result<&'a str, ExtensionsError> {
        let rest = &self.line[self.at..];
        let length = rest.iter().position(|byte| !is_token(*byte)).unwrap_or(rest.len());
        let token = std::str::from_utf8(&rest[..length]).ok().filter(|token| !token.is_empty());
        let token = token.ok_or(self.malformed())?;
        self.at += length;
        Ok(token)
    }

    /// The rest of a quoted string, behind its opening quote.
    fn quoted(&mut self) -> Result<String, ExtensionsError> {
        let mut value = String::new();
        loop {
            if self.take(b'"') {
                break;
            }
            self.take(b'\\');
            //= RFC 6455 section 9.1
            //# "When using the quoted-string syntax variant, the value after quoted-string unescaping MUST conform to the
            //# 'token' ABNF."
            let byte = self.line.get(self.at).copied().filter(|byte| is_token(*byte)).ok_or(self.malformed())?;
            value.push(char::from(byte));
            self.at += 1;
        }
        if value.is_empty() { Err(self.malformed()) } else { Ok(value) }
    }

    fn skip_space(&mut self) {
        while self.take(b' ') || self.take(b'\t') {}
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.line.get(self.at) == Some(&byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn malformed(&self) -> ExtensionsError {
        ExtensionsError { at: self.at }
    }
}

/// A character of a token (RFC 2616 section 2.2): visible ASCII without separators.
pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    fn negotiated(lines: &[&str]) -> Result<Option<String>, ExtensionsError> {
        negotiate(lines.iter().map(|line| line.as_bytes())).map(|agreed| agreed.map(|agreed| agreed.to_string()))
    }

    #[test]
    fn offer_is_accepted_without_context_takeover() {
        let with = |bits: u8| format!("{BOTH}; server_max_window_bits={bits}");
        for (offer, response) in [
            ("permessage-deflate", BOTH.to_owned()),
            ("PerMessage-Deflate", BOTH.to_owned()),
            ("permessage-deflate; client_max_window_bits", BOTH.to_owned()),
            ("permessage-deflate;client_max_window_bits=8", BOTH.to_owned()),
            ("permessage-deflate ; server_no_context_takeover ;\tclient_no_context_takeover", BOTH.to_owned()),
            ("permessage-deflate; server_max_window_bits=15", with(15)),
            ("permessage-deflate; server_max_window_bits=8; client_max_window_bits", with(8)),
            ("permessage-deflate; server_max_window_bits=\"10\"", with(10)),
            ("permessage-deflate; server_max_window_bits = \"1\\0\"", with(10)),
            (", ,permessage-deflate,", BOTH.to_owned()),
            ("x-webkit-deflate-frame, permessage-deflate; client_max_window_bits", BOTH.to_owned()),
        ] {
            assert_eq!(negotiated(&[offer]), Ok(Some(response)), "{offer}");
        }
    }

    #[test]
    fn unsupported_or_invalid_offer_is_declined() {
        for offer in [
            "",
            "permessage-bzip2",
            "permessage-deflate; unknown",
            "permessage-deflate; Server_No_Context_Takeover",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover=\"\\1\"",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=010",
            "permessage-deflate; server_max_window_bits=+9",
            "permessage-deflate; server_max_window_bits=9; server_max_window_bits=9",
            "permessage-deflate; client_max_window_bits=16",
            "permessage-deflate; client_max_window_bits=x",
            "permessage-deflate; client_max_window_bits; client_max_window_bits=15",
        ] {
            assert_eq!(negotiated(&[offer]), Ok(None), "{offer}");
        }
    }

    #[test]
    fn first_acceptable_offer_of_all_lines_wins() {
        let nine = Ok(Some(format!("{BOTH}; server_max_window_bits=9")));
        let (bad, good) =
            ("permessage-deflate; server_max_window_bits=99", "permessage-deflate; server_max_window_bits=9");
        assert_eq!(negotiated(&[&format!("{bad}, {good}, permessage-deflate")]), nine);
        assert_eq!(negotiated(&["foo; bar=1", bad, good, "permessage-deflate"]), nine);
        assert_eq!(negotiated(&[good, "permessage-deflate; server_max_window_bits=12"]), nine);
    }

    #[test]
    fn syntax_error_has_its_index() {
        for (line, at) in [
            ("permessage-deflate;", 19),
            ("permessage-deflate; ;", 20),
            ("permessage-deflate; a=", 22),
            ("permessage-deflate; a=\"\"", 24),
            ("permessage-deflate; a=\"b c\"", 24),
            ("permessage-deflate; a=\"b", 24),
            ("permessage-deflate foo", 19),
            ("permessage-deflate; a=b=c", 23),
            ("=", 0),
            ("permessage-d\u{e9}flate", 12),
        ] {
            assert_eq!(negotiated(&[line]), Err(ExtensionsError { at }), "{line}");
            assert_eq!(
                negotiated(&["permessage-deflate", line]),
                Err(ExtensionsError { at }),
                "a good line before {line}"
            );
        }
    }
}
