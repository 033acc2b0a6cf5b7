//! Pages of other origins. A browser lets any page open a WebSocket to any server, and says from where the page is: who
//! does not look lets a stranger's page read what only its visitor's machine may reach, in the visitor's name. What is
//! read by plain requests the browser keeps from such a page, unless the answer says that it may have it.
//!
//! A request without an `Origin` is no page's, or a page's of the server itself.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request};

use crate::config::{Config, Origin};
use crate::http::handshake::Refusal;
use crate::http::response::Response;

/// Streams are opened for pages of the server's own origin and of those that are allowed.
const STREAMS: [&str; 4] = ["/v1/stream", "/v1/publish", "/v1/echo", "/v1/sse"];
/// The client as a library, for pages of other origins also without CORS.
const LIBRARY: &str = "/tickcast.js";
/// What pages of origins that are allowed may read. Metrics and the operator's view are not among it: who may see them is
/// told by the address, and a page has its visitor's.
const READABLE: [&str; 5] = ["/v1/instruments", "/v1/snapshot", "/v1/bars", "/v1/sse", LIBRARY];

/// True for a stream that this request's page may not have, and why.
pub(crate) fn refusal(request: &Request<()>, config: &Config) -> Option<Refusal> {
    if !STREAMS.contains(&request.uri().path()) {
        return None;
    }
    let Some(origin) = request.headers().get(header::ORIGIN) else { return smuggled(request.headers()) };
    if is_same(request.headers()) || entry(request.headers(), config).is_some() {
        return None;
    }
    Some(forbidden(origin, request.headers()))
}

/// What another site's page has the browser fetch without saying whose it is, as a picture: the page could not read it, but
/// it would take a seat. Browsers say it in a header that no page can set (Fetch Metadata, W3C).
fn smuggled(headers: &HeaderMap) -> Option<Refusal> {
    let site = headers.get("sec-fetch-site")?;
    let is_strange = site == "cross-site" || site == "same-site";
    is_strange.then(|| {
        let message = "a page of another site may not open a stream without saying of which origin it is";
        Refusal::new(403, "forbidden_origin", message)
    })
}

/// The answer to a preflight: may a page of another origin ask this?
pub(crate) fn preflight(request: &Request<()>, config: &Config) -> Option<Result<Response, Refusal>> {
    /// What pages ask for tags and tokens with.
    const HEADERS: &str = "If-None-Match, Last-Event-ID, Cache-Control";
    /// For how long a browser need not ask again, s: it takes two hours at the most.
    const AGE: &str = "7200";
    let headers = request.headers();
    let origin = headers.get(header::ORIGIN).filter(|_| request.method() == Method::OPTIONS)?;
    headers.get(header::ACCESS_CONTROL_REQUEST_METHOD).filter(|_| is_readable(request.uri().path()))?;
    if !is_same(headers) && entry(headers, config).is_none() {
        return Some(Err(forbidden(origin, headers)));
    }
    let response = Response::no_content().with("Access-Control-Allow-Methods", "GET, HEAD");
    Some(Ok(response.with("Access-Control-Allow-Headers", HEADERS).with("Access-Control-Max-Age", AGE)))
}

/// What an answer says to the browser about pages of other origins, a refusal as well: header lines, `Vary` aside.
pub(crate) fn headers(request: &Request<()>, config: &Config) -> Vec<(&'static str, String)> {
    if !is_readable(request.uri().path()) {
        return Vec::new();
    }
    match entry(request.headers(), config) {
        Some(entry) => vec![
            ("Access-Control-Allow-Origin", entry.to_owned()),
            ("Access-Control-Expose-Headers", "ETag, Retry-After".to_owned()),
        ],
        None => Vec::new(),
    }
}

/// True where the answer is another one for a page of another origin: a cache in between has to know.
pub(crate) fn varies(request: &Request<()>, config: &Config) -> bool {
    is_readable(request.uri().path()) && !config.allow_origin.any() && !config.allow_origin.none()
}

/// True for what a page of another origin may have without asking as one: as a plain script.
pub(crate) fn is_for_all(request: &Request<()>, config: &Config) -> bool {
    request.uri().path() == LIBRARY && !config.allow_origin.none()
}

fn is_readable(path: &str) -> bool {
    let is_or_is_under =
        |readable: &str| path.strip_prefix(readable).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    READABLE.into_iter().any(is_or_is_under)
}

/// The origin's text, where there is one.
fn origin(headers: &HeaderMap) -> Option<&str> {
    let mut lines = headers.get_all(header::ORIGIN).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) => line.to_str().ok(),
        _ => None,
    }
}

fn host(headers: &HeaderMap) -> Option<&str> {
    let mut lines = headers.get_all(header::HOST).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) => line.to_str().ok(),
        _ => None,
    }
}

/// True for a page that is from the very server that it asks.
fn is_same(headers: &HeaderMap) -> bool {
    let origin = origin(headers).and_then(Origin::parse);
    origin.is_some_and(|origin| host(headers).is_some_and(|host| origin.is_of_host(host)))
}

/// The entry of the list that allows the request's origin.
fn entry<'a>(headers: &HeaderMap, config: &'a Config) -> Option<&'a str> {
    config.allow_origin.entry(origin(headers).unwrap_or_default())
}

fn forbidden(origin: &HeaderValue, headers: &HeaderMap) -> Refusal {
    let text = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        format!("{:?}", crate::http::response::shown(&text))
    };
    let origin = text(origin.as_bytes());
    let host = headers.get(header::HOST).map_or_else(|| "missing".to_owned(), |host| text(host.as_bytes()));
    let message = format!(
        "a page of the origin {origin} may not use this server, whose Host is {host}: pages of other origins are \
         allowed with --allow-origin, and a proxy in front has to pass the Host on that it was asked for"
    );
    Refusal::new(403, "forbidden_origin", message)
}
