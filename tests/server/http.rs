//! GET and HEAD: entity tags, compression, and the headers that restrict a page; the format of a stream.

use std::io::Read;
use std::net::SocketAddr;

use tickcast_test_support::client::{Client, Received};
use tickcast_test_support::http::{Response, send_request};
use tickcast_test_support::server::{SMALL_MARKET, Server};

/// A request with these header lines.
fn request(address: SocketAddr, method: &str, path: &str, lines: &[String]) -> Response {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    send_request(address, format!("{method} {path} HTTP/1.1\r\nHost: here\r\n{lines}\r\n").as_bytes())
}

fn get(server: &Server, path: &str, lines: &[&str]) -> Response {
    let lines: Vec<_> = lines.iter().map(|line| (*line).to_owned()).collect();
    request(server.address, "GET", path, &lines)
}

fn tag(response: &Response) -> String {
    let tag = response.header("etag").expect("a tag").to_owned();
    assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 2, "a strong tag: {tag}");
    tag
}

fn inflate(response: &Response) -> Vec<u8> {
    assert_eq!(response.header("content-encoding"), Some("gzip"));
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&response.body[..]).read_to_end(&mut plain).expect("valid gzip");
    plain
}

/// Asserts the rules of a resource with a tag: each variant has its own tag and the same content, a matching tag gets a
/// 304, and HEAD gets the headers only.
fn assert_tagged(server: &Server, path: &str) {
    let plain = get(server, path, &[]);
    assert_eq!((plain.status, plain.header("content-encoding")), (200, None), "{path}");
    assert_eq!(plain.header("content-length"), Some(plain.body.len().to_string().as_str()));
    assert_eq!(plain.header("cache-control"), Some("no-cache"), "stored, and revalidated each time");
    assert_eq!(tag(&get(server, path, &[])), tag(&plain), "{path}: the same content has the same tag");
    let gzip = get(server, path, &["Accept-Encoding: gzip, deflate, br, zstd"]);
    let accepts = "Accept-Encoding: gzip";
    if plain.header("vary").is_some_and(|vary| vary.contains("Accept-Encoding")) {
        assert_eq!(inflate(&gzip), plain.body, "{path}");
        assert!(gzip.body.len() < plain.body.len(), "{path}");
        assert_eq!(gzip.header("vary"), plain.header("vary"), "both variants vary");
        assert_ne!(tag(&gzip), tag(&plain), "each variant has its own tag");
    } else {
        assert_eq!((gzip.body, gzip.headers), (plain.body.clone(), plain.headers.clone()), "{path}");
    }
    for (variant, lines) in [(&plain, vec![]), (&get(server, path, &[accepts]), vec![accepts.to_owned()])] {
        let conditional = |given: String| {
            request(server.address, "GET", path, &[&lines[..], &[format!("If-None-Match: {given}")]].concat())
        };
        let tag = tag(variant);
        for sent in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
            let response = conditional(sent);
            assert_eq!((response.status, &response.body[..]), (304, &b""[..]), "{path}");
            for name in ["etag", "vary", "cache-control"] {
                assert_eq!(response.header(name), variant.header(name), "{path}: {name} of a 304 is that of the 200");
            }
            assert_eq!((response.header("content-length"), response.header("content-type")), (None, None));
        }
        let other = conditional("\"other\"".to_owned());
        assert_eq!((other.status, &other.body), (200, &variant.body), "{path}");
        let head = request(server.address, "HEAD", path, &lines);
        assert_eq!((head.status, &head.body[..]), (200, &b""[..]), "{path}");
        assert_eq!(head.headers, variant.headers, "{path}: a HEAD has the headers of the GET");
    }
}

#[test]
fn files_have_tags_and_are_compressed() {
    let server = Server::start(&["--feed", "none"]);
    for path in ["/", "/index.html", "/favicon.svg", "/v1/openapi.json", "/v1/asyncapi.json"] {
        assert_tagged(&server, path);
    }
    let page = get(&server, "/", &[]);
    assert_eq!(tag(&page), tag(&get(&server, "/index.html", &[])), "both paths are the same file");
    assert_ne!(tag(&page), tag(&get(&server, "/favicon.svg", &[])));
    let refused = get(&server, "/", &["Accept-Encoding: gzip;q=0"]);
    assert_eq!((refused.header("content-encoding"), &refused.body), (None, &page.body));
}

#[test]
fn a_page_runs_only_its_own_scripts_and_cannot_be_framed() {
    let server = Server::start(&["--feed", "none"]);
    let page = get(&server, "/", &[]);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").expect("a policy");
    let directives: Vec<_> = policy.split("; ").collect();
    for directive in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "worker-src 'self'",
        "img-src 'self' data:",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    ] {
        assert!(directives.contains(&directive), "{directive} is not in {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("cross-origin-opener-policy"), Some("same-origin"));
    let text = page.text();
    for inline in ["<style", "style=", "<script>", "onclick=", "onload=", "javascript:", "src=\"http", "import("] {
        assert!(!text.contains(inline), "{inline} in the page");
    }
    // Every file that the page names is served, with the right type.
    let named: Vec<_> = text.split('"').filter(|text| text.starts_with('/') && text.contains('.')).collect();
    assert!(named.len() >= 3, "{named:?}");
    for file in named {
        let response = get(&server, file, &[]);
        assert_eq!((response.status, response.header("x-content-type-options")), (200, Some("nosniff")), "{file}");
        let content_type = match file.rsplit_once('.').expect("a file extension").1 {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "svg" => "image/svg+xml",
            "txt" => "text/plain; charset=utf-8",
            other => panic!("{other}: {file}"),
        };
        assert_eq!(response.header("content-type"), Some(content_type), "{file}");
        // The policy of a worker is that of its script.
        let of_script = response.header("content-security-policy").expect("a policy");
        assert!(of_script.contains(if content_type.contains("javascript") {
            "connect-src 'self'"
        } else {
            "default-src 'none'"
        }));
    }
}

#[test]
fn health_and_metrics_are_not_stored() {
    let server = Server::start(&["--feed", "none"]);
    for path in ["/healthz", "/readyz", "/metrics"] {
        let response = get(&server, path, &["Accept-Encoding: gzip"]);
        assert_eq!((response.status, response.header("cache-control")), (200, Some("no-store")), "{path}");
        assert_eq!((response.header("etag"), response.header("content-encoding")), (None, None), "{path}");
    }
}

#[test]
fn query_asks_for_json_where_no_subprotocol_can_be_named() {
    let server = Server::start(&["--feed", SMALL_MARKET]);
    let connect = |path: &str, headers: &[(&str, &str)]| Client::try_connect(server.address, path, headers);
    let mut client = connect("/v1/stream?format=json", &[]).expect("it is accepted");
    client.send_text(r#"{"op":"subscribe","channels":["quote"],"symbols":["*"]}"#);
    loop {
        match client.receive() {
            Received::Reply(reply) if reply["type"] == "subscribed" => assert_eq!(reply["id"], 0, "{reply}"),
            // A packet is a list of records.
            Received::Text(text) => {
                assert!(text.starts_with('[') && text.contains("\"type\":\"quote\""), "{text}");
                break;
            }
            Received::Packet(_) => panic!("a binary message"),
            _ => {}
        }
    }
    for (path, protocols, selected) in [
        ("/v1/stream?format=json", "tickcast.v1, tickcast.v1+json", Some("tickcast.v1+json")),
        ("/v1/stream?format=binary", "tickcast.v1+json, tickcast.v1", Some("tickcast.v1")),
        ("/v1/stream?format=binary", "tickcast.v1+json", None),
    ] {
        let address = server.address;
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: {protocols}\r\n\r\n"
        );
        let response = send_request(address, head.as_bytes());
        assert_eq!((response.status, response.header("sec-websocket-protocol")), (101, selected), "{path} {protocols}");
    }
    let refused = |path: &str, expected: &str| {
        let Err(response) = connect(path, &[]) else { panic!("{path} is accepted") };
        response.assert_refusal(400, "bad_request", &[expected]);
    };
    refused("/v1/stream?format=xml", "format: invalid value \"xml\": expected json or binary");
    refused("/v1/stream?json=1", "\"json\": unknown parameter: expected format, token");
}
