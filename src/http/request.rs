//! Request heads: bytes to a parsed request, and what several handlers read from one. Pure functions over bytes.
//!
//! The head is parsed by `httparse`. A refused head is answered with what was wrong and what was expected.
//!
//! Cost: a few microseconds a request. A head that arrives in pieces is parsed again with each piece; its size limit
//! bounds that.

use http::header::{self, AsHeaderName, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri, Version};

use super::refusal::Refusal;

/// Characters of a client's text that a refusal repeats.
const QUOTED_CHARS_MAX: usize = 80;
/// The first byte of a TLS handshake record.
const TLS_HANDSHAKE: u8 = 0x16;
/// Bytes of the longest request target that the `http` crate takes.
const TARGET_BYTES_MAX: usize = u16::MAX as usize - 1;

/// What a client may make the server buffer before its request is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the request line and the headers together.
    pub head_bytes_max: usize,
    /// Header lines.
    pub headers_max: usize,
}

/// How much of a request head has arrived.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "made once a read and taken apart at once")]
pub enum RequestHead {
    /// Valid so far; read more.
    Partial,
    Complete {
        /// Bytes of the head. The body or the first frames follow it.
        consumed: usize,
        /// Method, target with its query, version and headers.
        request: Request<()>,
    },
}

/// Parses a request head from the start of `bytes`. On [`RequestHead::Partial`] call it again with more bytes.
///
/// # Errors
/// 431 for a head over a limit, 414 if its first line alone is, 505 for another HTTP version, 400 for anything that is not
/// HTTP.
pub fn parse_head(bytes: &[u8], limits: &HeadLimits) -> Result<RequestHead, Refusal> {
    let within = &bytes[..bytes.len().min(limits.head_bytes_max)];
    let mut headers = vec![httparse::EMPTY_HEADER; limits.headers_max];
    let mut head = httparse::Request::new(&mut headers);
    match head.parse(within) {
        Ok(httparse::Status::Complete(consumed)) => Ok(RequestHead::Complete { consumed, request: to_request(&head)? }),
        Ok(httparse::Status::Partial) if bytes.len() < limits.head_bytes_max => Ok(RequestHead::Partial),
        Ok(httparse::Status::Partial) if !within.trim_ascii_start().contains(&b'\n') => {
            Err(too_long(format!("request line: no end within {} bytes", limits.head_bytes_max)))
        }
        Ok(httparse::Status::Partial) => {
            Err(too_large(format!("request head: no end within {} bytes", limits.head_bytes_max)))
        }
        Err(httparse::Error::TooManyHeaders) => {
            Err(too_large(format!("request head: more than {} headers", limits.headers_max)))
        }
        Err(httparse::Error::Version) if names_a_version(within) => {
            Err(Refusal::new(505, "http_version", "request line: unsupported HTTP version: expected HTTP/1.1"))
        }
        Err(_) if bytes.first() == Some(&TLS_HANDSHAKE) => {
            Err(malformed("request head: found a TLS handshake: expected plain HTTP"))
        }
        Err(error) => Err(malformed(format!("request head: {error}: expected an HTTP/1.1 request"))),
    }
}

/// True if the third word of the request line is a version of HTTP, or begins one.
fn names_a_version(bytes: &[u8]) -> bool {
    let line = bytes.trim_ascii_start().split(|byte| *byte == b'\n').next().unwrap_or_default();
    let word = line.splitn(3, |byte| *byte == b' ').nth(2).unwrap_or_default().trim_ascii_end();
    word.len() > b"HTTP/".len()
        && word.len() <= b"HTTP/1.1".len()
        && word.iter().zip(b"HTTP/1.1").all(
            |(byte, form)| {
                if form.is_ascii_digit() { byte.is_ascii_digit() } else { byte == form }
            },
        )
}

/// The parsed head as a type of the `http` crate.
fn to_request(head: &httparse::Request<'_, '_>) -> Result<Request<()>, Refusal> {
    let (Some(method), Some(target), Some(version)) = (head.method, head.path, head.version) else {
        unreachable!("httparse sets all three in a complete head");
    };
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method.as_bytes())
        .map_err(|_| malformed(format!("method {}: expected a token", quote(method))))?;
    *request.uri_mut() = to_uri(target, request.method())?;
    *request.version_mut() = if version == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    for line in head.headers.iter() {
        let name = HeaderName::from_bytes(line.name.as_bytes())
            .map_err(|error| malformed(format!("header name {}: {error}", quote(line.name))))?;
        let value =
            HeaderValue::from_bytes(line.value).map_err(|error| malformed(format!("{}: {error}", title(&name))))?;
        request.headers_mut().try_append(name, value).map_err(|error| too_large(format!("request head: {error}")))?;
    }
    Ok(request)
}

/// The request target. The forms are those of RFC 9112 section 3.2: a path, a URI, `*` for OPTIONS and a host with a port
/// for CONNECT.
fn to_uri(target: &str, method: &Method) -> Result<Uri, Refusal> {
    //= RFC 9112 section 3
    //# "A server that receives a request-target longer than any URI it wishes to parse MUST respond with a 414 (URI Too
    //# Long) status code"
    if target.len() > TARGET_BYTES_MAX {
        return Err(too_long(format!("request target: longer than {TARGET_BYTES_MAX} bytes")));
    }
    let uri = target
        .parse::<Uri>()
        .map_err(|error| malformed(format!("request target {}: {error}: expected a path", quote(target))))?;
    let is_form = match (uri.scheme_str(), uri.authority()) {
        // A name before the host is a known way to disguise the host (RFC 9110 section 4.2.4).
        (Some("http" | "https"), Some(authority)) => !authority.as_str().contains('@'),
        (Some(_), _) => false,
        (None, Some(_)) => *method == Method::CONNECT,
        (None, None) if target == "*" => *method == Method::OPTIONS,
        (None, None) => target.starts_with('/'),
    };
    // A fragment is for the client alone; the parser would drop it.
    if is_form && !target.contains('#') {
        return Ok(uri);
    }
    Err(malformed(format!("request target {}: expected a path, or a URI of http with a path", quote(target))))
}

/// The token of `Authorization: Bearer TOKEN`.
pub(super) fn bearer_token(request: &Request<()>) -> Option<&[u8]> {
    let header = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().as_bytes())
}

/// A client's text in quotes, cut to the length of a log line.
pub(super) fn quote(given: &str) -> String {
    let cut = given.char_indices().nth(QUOTED_CHARS_MAX).map_or(given.len(), |(at, _)| at);
    format!("{:?}{}", &given[..cut], if cut < given.len() { "…" } else { "" })
}

/// A header's name as the RFCs write it.
pub(super) fn title(name: &HeaderName) -> String {
    let word = |word: &str| match word.split_at_checked(1) {
        Some(_) if word == "websocket" => "WebSocket".to_owned(),
        Some((initial, rest)) => initial.to_ascii_uppercase() + rest,
        None => String::new(),
    };
    name.as_str().split('-').map(word).collect::<Vec<_>>().join("-")
}

/// A message with the header, its value and what was expected.
pub(super) fn fault(headers: &HeaderMap, name: &HeaderName, expected: &str) -> String {
    let lines: Vec<_> = headers.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes())).collect();
    if lines.is_empty() {
        return format!("{}: missing: expected {expected}", title(name));
    }
    let given: Vec<_> = lines.iter().map(|line| quote(line)).collect();
    format!("{}: invalid value {}: expected {expected}", title(name), given.join(" and "))
}

/// The elements of a comma-separated header, over all its lines.
pub(super) fn tokens(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(name).iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

/// 400: the request breaks the rules of HTTP.
pub(super) fn malformed(message: impl Into<String>) -> Refusal {
    Refusal::new(400, "malformed_request", message)
}

fn too_long(message: impl Into<String>) -> Refusal {
    Refusal::new(414, "uri_too_long", message)
}

fn too_large(message: impl Into<String>) -> Refusal {
    Refusal::new(431, "head_too_large", message)
}
