//! An HTTP request head, and the verdict on its upgrade: pure functions over bytes.
//!
//! Always: a request that is refused learns which header is wrong, what it held and what would be right. The head is
//! parsed by `httparse` and judged here; the answer to a good one is made by `tungstenite`. It does not look at the
//! path, the origin or credentials: those are the door's.
//!
//! Cost: a few microseconds a connection. A head that comes in pieces is parsed anew with each piece; its size limit
//! bounds that.

use std::collections::HashSet;

use http::header::{self, AsHeaderName, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri, Version};
use tungstenite::handshake::server::{create_response, write_response};

pub use super::refusal::Refusal;
use tickcast_protocol::ws::deflate::{self, Agreed, is_token};

/// The version of the WebSocket protocol.
const WEBSOCKET_VERSION: &str = "13";
/// What a key has to be.
const KEY_WANTED: &str = "16 random bytes in base64, once";
/// Characters of a client's header that a refusal repeats.
const QUOTED_CHARS_MAX: usize = 80;
/// The first byte of a TLS handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// What a client may make the door hold before its request is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the request line and the headers together.
    pub head_bytes_max: usize,
    /// Header lines.
    pub headers_max: usize,
}

/// How much of a request head has come.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "made once a read and taken apart at once")]
pub enum Head {
    /// Good so far; read on.
    Partial,
    /// All of it.
    Whole {
        /// Bytes of the head; what follows is the body, or the first frames.
        consumed: usize,
        /// Method, target with its query, version and headers.
        request: Request<()>,
    },
}

/// What an endpoint speaks beyond the plain protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spoken<'a> {
    /// Subprotocols.
    pub protocols: &'a [&'a str],
    /// permessage-deflate, for clients that offer it.
    pub deflate: bool,
}

impl<'a> Spoken<'a> {
    /// These subprotocols, and no compression.
    pub const fn plain(protocols: &'a [&'a str]) -> Self {
        Self { protocols, deflate: false }
    }
}

/// An upgrade that was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The bytes of the 101 response.
    pub response: Vec<u8>,
    /// The subprotocol that was agreed on.
    pub protocol: Option<String>,
    /// permessage-deflate, where it was agreed on.
    pub deflate: Option<Agreed>,
}

/// Reads a request head from the start of `bytes`; call again with more where it is [`Head::Partial`].
///
/// Refuses with 431 what is over a limit, with 505 another HTTP version, with 400 what is not HTTP.
pub fn parse_head(bytes: &[u8], limits: &HeadLimits) -> Result<Head, Refusal> {
    let within = &bytes[..bytes.len().min(limits.head_bytes_max)];
    let mut headers = vec![httparse::EMPTY_HEADER; limits.headers_max];
    let mut head = httparse::Request::new(&mut headers);
    match head.parse(within) {
        Ok(httparse::Status::Complete(consumed)) => Ok(Head::Whole { consumed, request: to_request(&head)? }),
        Ok(httparse::Status::Partial) if bytes.len() < limits.head_bytes_max => Ok(Head::Partial),
        Ok(httparse::Status::Partial) => {
            Err(too_large(format!("request head: no end within {} bytes", limits.head_bytes_max)))
        }
        Err(httparse::Error::TooManyHeaders) => {
            Err(too_large(format!("request head: more than {} headers", limits.headers_max)))
        }
        Err(httparse::Error::Version) => Err(Refusal::new(
            505,
            "http_version",
            "request line: not an HTTP version that is spoken here; want HTTP/1.1",
        )),
        Err(_) if bytes.first() == Some(&TLS_HANDSHAKE) => {
            Err(malformed("this is a TLS handshake; the port speaks plain HTTP"))
        }
        Err(error) => Err(malformed(format!("request head: {error}; want an HTTP/1.1 request"))),
    }
}

/// The request in the words of the `http` crate.
fn to_request(head: &httparse::Request<'_, '_>) -> Result<Request<()>, Refusal> {
    let (Some(method), Some(target), Some(version)) = (head.method, head.path, head.version) else {
        unreachable!("httparse sets all three in a complete head");
    };
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method.as_bytes())
        .map_err(|_| malformed(format!("method {}: not a token", quote(method))))?;
    *request.uri_mut() = target
        .parse::<Uri>()
        .map_err(|error| malformed(format!("request target {}: {error}; want a path", quote(target))))?;
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

/// Judges an upgrade by RFC 6455 section 4.2, and makes the 101 response. The first of the client's subprotocols and
/// extensions that is spoken is chosen; where there is none, the response names none, and it is for the client to fail
/// the connection or to go on.
pub fn upgrade(request: &Request<()>, spoken: &Spoken<'_>) -> Result<Accepted, Refusal> {
    //= RFC 6455 section 4.2.1
    //# "If the server, while reading the handshake, finds that the client did not send a handshake that matches the
    //# description below (note that as per [RFC2616], the order of the header fields is not important), including but
    //# not limited to any violations of the ABNF grammar specified for the components of the handshake, the server MUST
    //# stop processing the client's handshake and return an HTTP response with an appropriate error code (such as 400
    //# Bad Request)."
    check_request_line(request)?;
    let headers = request.headers();
    //= RFC 6455 section 4.2.1
    //# "A |Host| header field containing the server's authority."
    single(headers, header::HOST, "the server's name, once")?;
    //= RFC 6455 section 4.2.1
    //# "An |Upgrade| header field containing the value "websocket", treated as an ASCII case-insensitive value."
    check_token(headers, header::UPGRADE, "websocket")?;
    //= RFC 6455 section 4.2.1
    //# "A |Connection| header field that includes the token "Upgrade", treated as an ASCII case-insensitive value."
    check_token(headers, header::CONNECTION, "Upgrade")?;
    check_version(headers)?;
    //= RFC 6455 section 11.3.1
    //# "The |Sec-WebSocket-Key| header field MUST NOT appear more than once in an HTTP request."
    let key = single(headers, header::SEC_WEBSOCKET_KEY, KEY_WANTED)?;
    check_no_body(headers)?;
    let protocol = choose_protocol(headers, spoken.protocols)?;
    let deflate = choose_deflate(headers)?.filter(|_| spoken.deflate);
    //= RFC 6455 section 4.2.1
    //# "A |Sec-WebSocket-Key| header field with a base64-encoded (see Section 4 of [RFC4648]) value that, when decoded,
    //# is 16 bytes in length."
    let response = respond(key, protocol, deflate)
        .ok_or_else(|| malformed_upgrade(fault(headers, &header::SEC_WEBSOCKET_KEY, KEY_WANTED)))?;
    Ok(Accepted { response, protocol: protocol.map(str::to_owned), deflate })
}

fn check_request_line(request: &Request<()>) -> Result<(), Refusal> {
    //= RFC 6455 section 4.2.1
    //# "An HTTP/1.1 or higher GET request, including a "Request-URI" [RFC2616] that should be interpreted as a
    //# /resource name/ defined in Section 3 (or an absolute HTTP/HTTPS URI containing the /resource name/)."
    if request.method() != Method::GET {
        let message = format!("method {}: a WebSocket is opened with GET", quote(request.method().as_str()));
        return Err(Refusal::new(405, "method_not_allowed", message).with_header("Allow", "GET"));
    }
    if request.version() < Version::HTTP_11 {
        let message = format!("version {:?}: a WebSocket is opened with HTTP/1.1", request.version());
        return Err(malformed_upgrade(message));
    }
    Ok(())
}

/// The version is one that is spoken here, which is one.
fn check_version(headers: &HeaderMap) -> Result<(), Refusal> {
    let name = header::SEC_WEBSOCKET_VERSION;
    //= RFC 6455 section 11.3.5
    //# "However, the |Sec-WebSocket-Version| header field MUST NOT appear more than once in an HTTP request."
    if headers.get_all(&name).iter().count() > 1 {
        return Err(malformed_upgrade(fault(headers, &name, "13, once")));
    }
    //= RFC 6455 section 4.2.2
    //# "If this version does not match a version understood by the server, the server MUST abort the WebSocket
    //# handshake described in this section and instead send an appropriate HTTP error code (such as 426 Upgrade
    //# Required) and a |Sec-WebSocket-Version| header field indicating the version(s) the server is capable of
    //# understanding."
    if headers.get(&name).is_none_or(|version| version != WEBSOCKET_VERSION) {
        let refusal = Refusal::new(426, "websocket_version", fault(headers, &name, WEBSOCKET_VERSION));
        return Err(refusal.with_header("Sec-WebSocket-Version", WEBSOCKET_VERSION));
    }
    Ok(())
}

/// The first subprotocol of the client's list, its most preferred, that is spoken here.
fn choose_protocol<'a>(headers: &HeaderMap, spoken: &[&'a str]) -> Result<Option<&'a str>, Refusal> {
    //= RFC 6455 section 4.1
    //# "The elements that comprise this value MUST be non-empty strings with characters in the range U+0021 to U+007E
    //# not including separator characters as defined in [RFC2616] and MUST all be unique strings."
    let name = header::SEC_WEBSOCKET_PROTOCOL;
    // A set beside the list: a head has room for thousands of names.
    let (mut seen, mut names) = (Vec::new(), HashSet::new());
    for offered in tokens(headers, &name).filter(|offered| !offered.is_empty()) {
        if !offered.iter().all(|byte| is_token(*byte)) || !names.insert(offered) {
            return Err(malformed_upgrade(fault(headers, &name, "names without spaces and separators, each once")));
        }
        seen.push(offered);
    }
    //= RFC 6455 section 4.2.2
    //# "If the client's handshake did not contain such a header field or if the server does not agree to any of the
    //# client's requested subprotocols, the only acceptable value is null."
    Ok(seen.into_iter().find_map(|offered: &[u8]| spoken.iter().find(|spoken| spoken.as_bytes() == offered)).copied())
}

/// The first offer of permessage-deflate that can be taken. A header that is no list of extensions is a fault also
/// where no extension is spoken.
fn choose_deflate(headers: &HeaderMap) -> Result<Option<Agreed>, Refusal> {
    let name = header::SEC_WEBSOCKET_EXTENSIONS;
    //= RFC 6455 section 9.1
    //# "If a value is received by either the client or the server during negotiation that does not conform to the ABNF
    //# below, the recipient of such malformed data MUST immediately _Fail the WebSocket Connection_."
    deflate::negotiate(headers.get_all(&name).iter().map(HeaderValue::as_bytes))
        .map_err(|malformed| malformed_upgrade(fault(headers, &name, &format!("a list of extensions; it {malformed}"))))
}

/// What follows the head is frames. A body would be taken for them, and is nothing that a handshake has.
fn check_no_body(headers: &HeaderMap) -> Result<(), Refusal> {
    let has_length = headers.get_all(header::CONTENT_LENGTH).iter().any(|length| length != "0");
    for (name, is_there) in [
        (header::CONTENT_LENGTH, has_length),
        (header::TRANSFER_ENCODING, headers.contains_key(header::TRANSFER_ENCODING)),
    ] {
        if is_there {
            return Err(malformed_upgrade(fault(headers, &name, "no body")));
        }
    }
    Ok(())
}

/// The 101 response; `None` where the key is no key. tungstenite decodes the key and derives the answer to it; it is
/// shown a request in the one form that it takes, because it does not know lists and repeated lines.
fn respond(key: &HeaderValue, protocol: Option<&str>, deflate: Option<Agreed>) -> Option<Vec<u8>> {
    let request = Request::builder()
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, WEBSOCKET_VERSION)
        .header(header::SEC_WEBSOCKET_KEY, key)
        .body(())
        .expect("every part of it is legal");
    let mut response = create_response(&request).ok()?;
    if let Some(protocol) = protocol {
        let value = HeaderValue::from_str(protocol).expect("a subprotocol of ours is a token");
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    }
    if let Some(agreed) = deflate {
        let value = HeaderValue::from_str(&agreed.to_string()).expect("names and numbers");
        response.headers_mut().insert(header::SEC_WEBSOCKET_EXTENSIONS, value);
    }
    let mut bytes = Vec::new();
    write_response(&mut bytes, &response).expect("a Vec takes all, and every value is visible ASCII");
    Some(bytes)
}

/// The value of a header that must be there exactly once.
fn single<'a>(headers: &'a HeaderMap, name: HeaderName, right: &str) -> Result<&'a HeaderValue, Refusal> {
    let mut values = headers.get_all(&name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value),
        _ => Err(malformed_upgrade(fault(headers, &name, right))),
    }
}

/// `name` has `token` among its values, whatever the case.
fn check_token(headers: &HeaderMap, name: HeaderName, token: &str) -> Result<(), Refusal> {
    if tokens(headers, &name).any(|given| given.eq_ignore_ascii_case(token.as_bytes())) {
        return Ok(());
    }
    Err(malformed_upgrade(fault(headers, &name, token)))
}

/// The elements of a comma-separated header, over all its lines.
fn tokens(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(name).iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
}

/// Names the header, what was given and what would be right.
fn fault(headers: &HeaderMap, name: &HeaderName, right: &str) -> String {
    let lines: Vec<_> = headers.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes())).collect();
    if lines.is_empty() {
        return format!("{}: missing; want {right}", title(name));
    }
    let given: Vec<_> = lines.iter().map(|line| quote(line)).collect();
    format!("{}: given {}; want {right}", title(name), given.join(" and "))
}

/// The client's own words, no longer than a log line likes.
fn quote(given: &str) -> String {
    let cut = given.char_indices().nth(QUOTED_CHARS_MAX).map_or(given.len(), |(at, _)| at);
    format!("{:?}{}", &given[..cut], if cut < given.len() { "…" } else { "" })
}

/// A header's name as the RFCs write it.
fn title(name: &HeaderName) -> String {
    let word = |word: &str| match word.split_at_checked(1) {
        Some(_) if word == "websocket" => "WebSocket".to_owned(),
        Some((initial, rest)) => initial.to_ascii_uppercase() + rest,
        None => String::new(),
    };
    name.as_str().split('-').map(word).collect::<Vec<_>>().join("-")
}

fn malformed(message: impl Into<String>) -> Refusal {
    Refusal::new(400, "malformed_request", message)
}

fn malformed_upgrade(message: impl Into<String>) -> Refusal {
    Refusal::new(400, "malformed_upgrade", message)
}

fn too_large(message: impl Into<String>) -> Refusal {
    Refusal::new(431, "head_too_large", message)
}
