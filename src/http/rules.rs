//! What RFC 9110 and RFC 9112 require of a request beyond its syntax: one valid host, and a length of the body that only
//! one reading of the headers gives. Pure functions over a parsed request.
//!
//! They hold for every path, before anything else of the request is read. The server takes no body: it reads the length
//! only to refuse a request that a proxy in front may have read differently (request smuggling).

use std::net::Ipv6Addr;

use http::header::{self, HeaderMap};
use http::{Request, Version};

use super::refusal::Refusal;
use super::request::{fault, malformed, tokens};

const HOST_EXPECTED: &str = "the server's name, once";

/// Checks a request. A request of HTTP/1.0 needs no `Host`.
///
/// # Errors
/// 400 for a host or a length that is missing, wrong or given twice; 501 for an unknown transfer coding.
pub fn check(request: &Request<()>) -> Result<(), Refusal> {
    check_host(request)?;
    check_body_length(request)
}

/// The server's name as the client knows it, with a port if the client names one.
pub(super) fn authority(request: &Request<()>) -> Option<&str> {
    //= RFC 9112 section 3.2.2
    //# "When an origin server receives a request with an absolute-form of request-target, the origin server MUST ignore
    //# the received Host header field (if any) and instead use the host information of the request-target."
    if let Some(authority) = request.uri().authority() {
        return Some(authority.as_str());
    }
    request.headers().get(header::HOST)?.to_str().ok()
}

fn check_host(request: &Request<()>) -> Result<(), Refusal> {
    //= RFC 9112 section 3.2
    //# "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message that lacks a Host
    //# header field and to any request message that contains more than one Host header field line or a Host header
    //# field with an invalid field value."
    let headers = request.headers();
    let mut lines = headers.get_all(header::HOST).iter();
    let is_right = match (lines.next(), lines.next()) {
        (None, _) => request.version() < Version::HTTP_11,
        (Some(host), None) => is_authority(host.as_bytes()),
        _ => false,
    };
    if is_right { Ok(()) } else { Err(malformed(fault(headers, &header::HOST, HOST_EXPECTED))) }
}

/// True for `uri-host [ ":" port ]` of RFC 3986 with a host that is not empty: the schemes http and https need one.
fn is_authority(text: &[u8]) -> bool {
    let host_end = match text.first() {
        Some(b'[') => text.iter().position(|byte| *byte == b']').map_or(0, |at| at + 1),
        _ => text.iter().position(|byte| *byte == b':').unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at(host_end);
    let is_port = match rest.split_first() {
        None => true,
        Some((colon, digits)) => *colon == b':' && digits.iter().all(u8::is_ascii_digit),
    };
    is_port && if host.starts_with(b"[") { is_ip_literal(host) } else { is_name(host) }
}

fn is_ip_literal(text: &[u8]) -> bool {
    let address = text.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]"));
    address.and_then(|address| std::str::from_utf8(address).ok()).is_some_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

/// True for a `reg-name` that is not empty. An IPv4 address is one as well.
fn is_name(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = match byte {
            b'%' if after.len() >= 2 && after[..2].iter().all(u8::is_ascii_hexdigit) => &after[2..],
            b'-' | b'.' | b'_' | b'~' => after,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => after,
            byte if byte.is_ascii_alphanumeric() => after,
            _ => return false,
        };
    }
    !text.is_empty()
}

fn check_body_length(request: &Request<()>) -> Result<(), Refusal> {
    let headers = request.headers();
    check_content_length(headers)?;
    if !headers.contains_key(header::TRANSFER_ENCODING) {
        return Ok(());
    }
    //= RFC 9112 section 6.1
    //# "A server or client that receives an HTTP/1.0 message containing a Transfer-Encoding header field MUST treat the
    //# message as if the framing is faulty, even if a Content-Length is present"
    if request.version() < Version::HTTP_11 {
        return Err(malformed(fault(headers, &header::TRANSFER_ENCODING, "none in HTTP/1.0")));
    }
    //= RFC 9112 section 6.1
    //# "A server MAY reject a request that contains both Content-Length and Transfer-Encoding"
    if headers.contains_key(header::CONTENT_LENGTH) {
        return Err(malformed(fault(headers, &header::TRANSFER_ENCODING, "none beside Content-Length")));
    }
    check_transfer_coding(headers)
}

fn check_content_length(headers: &HeaderMap) -> Result<(), Refusal> {
    //= RFC 9112 section 6.3
    //# "If a message is received without Transfer-Encoding and with an invalid Content-Length header field, then the
    //# message framing is invalid and the recipient MUST treat it as an unrecoverable error"
    let is_length = |text: &[u8]| {
        let text = std::str::from_utf8(text).unwrap_or_default();
        text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u64>().is_ok()
    };
    //= RFC 9110 section 8.6
    //# "the recipient of the message MUST either reject the message as invalid or replace the duplicated field values
    //# with a single valid Content-Length"
    let mut lines = headers.get_all(header::CONTENT_LENGTH).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(()),
        (Some(length), None) if is_length(length.as_bytes()) => Ok(()),
        _ => Err(malformed(fault(headers, &header::CONTENT_LENGTH, "a number of bytes, once"))),
    }
}

fn check_transfer_coding(headers: &HeaderMap) -> Result<(), Refusal> {
    let codings: Vec<_> = tokens(headers, &header::TRANSFER_ENCODING).filter(|coding| !coding.is_empty()).collect();
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    //= RFC 9112 section 6.3
    //# "If a Transfer-Encoding header field is present in a request and the chunked transfer coding is not the final
    //# encoding, the message body length cannot be determined reliably; the server MUST respond with the 400 (Bad
    //# Request) status code and then close the connection."
    let is_delimited = codings.last().is_some_and(|last| is_chunked(last));
    if !is_delimited || codings.iter().filter(|coding| is_chunked(coding)).count() > 1 {
        return Err(malformed(fault(headers, &header::TRANSFER_ENCODING, "chunked, once and last")));
    }
    //= RFC 9112 section 6.1
    //# "A server that receives a request message with a transfer coding it does not understand SHOULD respond with 501
    //# (Not Implemented)."
    if codings.len() > 1 {
        let message = fault(headers, &header::TRANSFER_ENCODING, "chunked alone");
        return Err(Refusal::new(501, "transfer_coding", message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
        for host in [
            "here",
            "here:9001",
            "here:",
            "A-b_c.example.",
            "192.0.2.7:80",
            "[::1]",
            "[2001:db8::7]:9001",
            "xn--bcher-kva.example",
            "b%C3%BCcher.example",
        ] {
            assert!(is_authority(host.as_bytes()), "{host}");
        }
        for not in [
            "",
            ":80",
            "a b",
            "a, b",
            "a/b",
            "a?b",
            "a#b",
            "user@here",
            "here:80:80",
            "here:8o",
            "here:-1",
            "http://here",
            "[::1",
            "::1",
            "[::1]80",
            "[here]",
            "[fe80::1%eth0]",
            "a%2",
            "a%zz",
            "b\u{fc}cher",
            "a\\b",
            "\"here\"",
            "a<b>",
        ] {
            assert!(!is_authority(not.as_bytes()), "{not}");
        }
    }
}
