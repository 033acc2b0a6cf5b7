//! The verdict on a WebSocket upgrade, by RFC 6455 section 4.2. Pure functions over a parsed request.
//!
//! A refused upgrade is answered with the header that is wrong, its value and what was expected. The 101 response is made
//! by `tungstenite`. Path, origin and credentials are not examined here.

use std::collections::HashSet;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Version};
use tungstenite::handshake::server::{create_response, write_response};

use super::refusal::Refusal;
use super::request::{fault, quote, tokens};
use tickcast_protocol::ws::deflate::{self, Agreed, is_token};

/// The version of the WebSocket protocol.
const WEBSOCKET_VERSION: &str = "13";
const KEY_EXPECTED: &str = "16 random bytes in base64, once";

/// What an endpoint supports beyond the plain protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Supported<'a> {
    /// Subprotocols.
    pub protocols: &'a [&'a str],
    /// permessage-deflate, for clients that offer it.
    pub deflate: bool,
}

impl<'a> Supported<'a> {
    /// These subprotocols without compression.
    pub const fn plain(protocols: &'a [&'a str]) -> Self {
        Self { protocols, deflate: false }
    }
}

/// An accepted upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// The bytes of the 101 response.
    pub response: Vec<u8>,
    /// The negotiated subprotocol.
    pub protocol: Option<String>,
    /// permessage-deflate, if it was negotiated.
    pub deflate: Option<Agreed>,
}

/// Checks an upgrade by RFC 6455 section 4.2 and makes the 101 response. It selects the first of the client's subprotocols
/// and extensions that is supported. If none is, the response names none, and the client decides whether to continue.
///
/// # Errors
/// 400, 405 or 426: the header that is wrong, its value and what was expected.
pub fn accept_upgrade(request: &Request<()>, supported: &Supported<'_>) -> Result<Upgrade, Refusal> {
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
    let key = single(headers, header::SEC_WEBSOCKET_KEY, KEY_EXPECTED)?;
    check_no_body(headers)?;
    let protocol = choose_protocol(headers, supported.protocols)?;
    let deflate = choose_deflate(headers)?.filter(|_| supported.deflate);
    //= RFC 6455 section 4.2.1
    //# "A |Sec-WebSocket-Key| header field with a base64-encoded (see Section 4 of [RFC4648]) value that, when decoded,
    //# is 16 bytes in length."
    let response = respond(key, protocol, deflate)
        .ok_or_else(|| malformed_upgrade(fault(headers, &header::SEC_WEBSOCKET_KEY, KEY_EXPECTED)))?;
    Ok(Upgrade { response, protocol: protocol.map(str::to_owned), deflate })
}

fn check_request_line(request: &Request<()>) -> Result<(), Refusal> {
    //= RFC 6455 section 4.2.1
    //# "An HTTP/1.1 or higher GET request, including a "Request-URI" [RFC2616] that should be interpreted as a
    //# /resource name/ defined in Section 3 (or an absolute HTTP/HTTPS URI containing the /resource name/)."
    if request.method() != Method::GET {
        let message = format!("method {}: expected GET to open a WebSocket", quote(request.method().as_str()));
        return Err(Refusal::new(405, "method_not_allowed", message).with_header("Allow", "GET"));
    }
    if request.version() < Version::HTTP_11 {
        let message = format!("version {:?}: expected HTTP/1.1 to open a WebSocket", request.version());
        return Err(malformed_upgrade(message));
    }
    Ok(())
}

/// The version must be the only one that is supported.
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

/// The first supported subprotocol of the client's list, which is in its order of preference.
fn choose_protocol<'a>(headers: &HeaderMap, supported: &[&'a str]) -> Result<Option<&'a str>, Refusal> {
    //= RFC 6455 section 4.1
    //# "The elements that comprise this value MUST be non-empty strings with characters in the range U+0021 to U+007E
    //# not including separator characters as defined in [RFC2616] and MUST all be unique strings."
    let name = header::SEC_WEBSOCKET_PROTOCOL;
    // A set beside the list keeps the check linear: a head has room for thousands of names.
    let (mut offers, mut names) = (Vec::new(), HashSet::new());
    for offered in tokens(headers, &name).filter(|offered| !offered.is_empty()) {
        if !offered.iter().all(|byte| is_token(*byte)) || !names.insert(offered) {
            return Err(malformed_upgrade(fault(headers, &name, "names without spaces and separators, each once")));
        }
        offers.push(offered);
    }
    //= RFC 6455 section 4.2.2
    //# "If the client's handshake did not contain such a header field or if the server does not agree to any of the
    //# client's requested subprotocols, the only acceptable value is null."
    let find = |offered: &[u8]| supported.iter().find(|name| name.as_bytes() == offered);
    Ok(offers.into_iter().find_map(find).copied())
}

/// The first acceptable offer of permessage-deflate. A header that is no list of extensions is refused even if no
/// extension is supported.
fn choose_deflate(headers: &HeaderMap) -> Result<Option<Agreed>, Refusal> {
    let name = header::SEC_WEBSOCKET_EXTENSIONS;
    //= RFC 6455 section 9.1
    //# "If a value is received by either the client or the server during negotiation that does not conform to the ABNF
    //# below, the recipient of such malformed data MUST immediately _Fail the WebSocket Connection_."
    deflate::negotiate(headers.get_all(&name).iter().map(HeaderValue::as_bytes)).map_err(|malformed| {
        malformed_upgrade(fault(headers, &name, &format!("a list of extensions, but it {malformed}")))
    })
}

/// Frames follow the head. A handshake has no body, and one would be parsed as frames.
fn check_no_body(headers: &HeaderMap) -> Result<(), Refusal> {
    let has_length = headers.get_all(header::CONTENT_LENGTH).iter().any(|length| length != "0");
    for (name, is_present) in [
        (header::CONTENT_LENGTH, has_length),
        (header::TRANSFER_ENCODING, headers.contains_key(header::TRANSFER_ENCODING)),
    ] {
        if is_present {
            return Err(malformed_upgrade(fault(headers, &name, "no body")));
        }
    }
    Ok(())
}

/// The 101 response; `None` for an invalid key. tungstenite decodes the key and derives the accept value. It gets a
/// normalised request, because it supports neither lists nor repeated lines.
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
        let value = HeaderValue::from_str(protocol).expect("supported subprotocols are tokens");
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

/// The value of a header that must occur exactly once.
fn single<'a>(headers: &'a HeaderMap, name: HeaderName, expected: &str) -> Result<&'a HeaderValue, Refusal> {
    let mut values = headers.get_all(&name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value),
        _ => Err(malformed_upgrade(fault(headers, &name, expected))),
    }
}

/// `name` must have `token` among its values, compared without case.
fn check_token(headers: &HeaderMap, name: HeaderName, token: &str) -> Result<(), Refusal> {
    if tokens(headers, &name).any(|given| given.eq_ignore_ascii_case(token.as_bytes())) {
        return Ok(());
    }
    Err(malformed_upgrade(fault(headers, &name, token)))
}

fn malformed_upgrade(message: impl Into<String>) -> Refusal {
    Refusal::new(400, "malformed_upgrade", message)
}
