//! Pages of other origins. A browser lets any page open a WebSocket to any server and sends the page's origin with it. A
//! server that ignores the origin lets a foreign page read everything that its visitor's machine can reach. Plain
//! responses are kept from such a page by the browser, unless the response allows it (CORS).
//!
//! A request without an `Origin` is not from a page, or from a page of the server itself.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request};

use super::forwarded::ClientScheme;
use crate::config::{Config, Origin};
use crate::http::refusal::Refusal;
use crate::http::request::quote;
use crate::http::response::Response;
use crate::http::rules::authority;

/// What pages of the origins in `allow_origin` may do with an endpoint. Pages of the server's own origin may do all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CrossOrigin {
    /// Nothing: the browser keeps the response from them.
    Denied,
    /// Open the stream. Pages of origins that are not allowed get 403.
    Stream,
    /// Read the response.
    Readable,
    /// Open the stream, which is read as a plain response.
    ReadableStream,
    /// Read the response, or load it as a plain script without CORS.
    Library,
    /// Read the response, and so may pages of all other origins.
    Public,
}

impl CrossOrigin {
    fn is_stream(self) -> bool {
        matches!(self, Self::Stream | Self::ReadableStream)
    }

    fn is_readable(self) -> bool {
        matches!(self, Self::Readable | Self::ReadableStream | Self::Library | Self::Public)
    }
}

impl CrossOrigin {
    /// True for what has records or instruments, and so depends on who asks.
    pub(crate) fn is_of_data(self) -> bool {
        matches!(self, Self::Readable | Self::ReadableStream)
    }
}

/// Why the page that sent this request may not open the stream; `None` if it may.
pub(crate) fn stream_refusal(access: CrossOrigin, request: &Request<()>, config: &Config) -> Option<Refusal> {
    if !access.is_stream() {
        return None;
    }
    let Some(origin) = request.headers().get(header::ORIGIN) else { return no_cors_refusal(request.headers()) };
    if admits(request, config) { None } else { Some(forbidden(origin, request)) }
}

/// True for a request of a page that may open streams, or of no page.
pub(crate) fn admits(request: &Request<()>, config: &Config) -> bool {
    !request.headers().contains_key(header::ORIGIN)
        || is_same_origin(request)
        || allowed_entry(request.headers(), config).is_some()
}

/// True for a request of a page of this server, or of an allowed origin. Browsers say which page it is, by headers that no
/// page can set; other programs say nothing.
pub(crate) fn is_of_trusted_page(request: &Request<()>, config: &Config) -> bool {
    if request.headers().contains_key(header::ORIGIN) {
        return is_same_origin(request) || allowed_entry(request.headers(), config).is_some_and(|entry| entry != "*");
    }
    // A page reads from its own server without an `Origin`.
    single(request.headers(), header::HeaderName::from_static("sec-fetch-site")) == Some("same-origin")
}

/// Refuses requests of another site's page that have no `Origin`, such as an image: the page could not read the stream, but
/// it would occupy a slot. Browsers mark them with a header that no page can set (Fetch Metadata, W3C).
fn no_cors_refusal(headers: &HeaderMap) -> Option<Refusal> {
    let site = headers.get("sec-fetch-site")?;
    let is_foreign = site == "cross-site" || site == "same-site";
    is_foreign.then(|| {
        let message = "Origin: missing in a request of another site's page: expected fetch, EventSource or WebSocket";
        Refusal::new(403, "forbidden_origin", message)
    })
}

/// The response to a CORS preflight; `None` if the request is none.
pub(crate) fn preflight(
    access: CrossOrigin,
    request: &Request<()>,
    config: &Config,
) -> Option<Result<Response, Refusal>> {
    /// Headers that pages send for tags, positions and credentials.
    const HEADERS: &str = "If-None-Match, Last-Event-ID, Cache-Control, Authorization";
    /// Seconds that a browser may cache the response; browsers cap it at two hours.
    const AGE: &str = "7200";
    let headers = request.headers();
    let origin = headers.get(header::ORIGIN).filter(|_| request.method() == Method::OPTIONS)?;
    headers.get(header::ACCESS_CONTROL_REQUEST_METHOD).filter(|_| access.is_readable())?;
    if access != CrossOrigin::Public && !admits(request, config) {
        return Some(Err(forbidden(origin, request)));
    }
    let response = Response::no_content().with("Access-Control-Allow-Methods", "GET, HEAD");
    Some(Ok(response.with("Access-Control-Allow-Headers", HEADERS).with("Access-Control-Max-Age", AGE)))
}

/// Adds to a response what pages of other origins may do with it.
pub(crate) fn share(access: CrossOrigin, request: &Request<()>, config: &Config, response: Response) -> Response {
    let headers = cors_headers(access, request, config).into_iter();
    let response = headers.fold(response, |response, (name, value)| response.with(name, value));
    let is_embeddable = access == CrossOrigin::Library && !config.allow_origin.none();
    let response = if is_embeddable { response.cross_origin() } else { response };
    if varies(access, config) { response.vary("Origin") } else { response }
}

/// Lets a page that may read the response read a refusal as well.
pub(crate) fn share_refusal(
    access: CrossOrigin,
    request: &Request<()>,
    config: &Config,
    mut refusal: Refusal,
) -> Refusal {
    refusal.headers.extend(cors_headers(access, request, config));
    if varies(access, config) { refusal.with_header("Vary", "Origin") } else { refusal }
}

/// The CORS headers of a response or refusal, without `Vary`.
pub(crate) fn cors_headers(access: CrossOrigin, request: &Request<()>, config: &Config) -> Vec<(&'static str, String)> {
    if !access.is_readable() {
        return Vec::new();
    }
    let all = (access == CrossOrigin::Public).then_some("*");
    match all.or_else(|| allowed_entry(request.headers(), config)) {
        Some(entry) => vec![
            ("Access-Control-Allow-Origin", entry.to_owned()),
            ("Access-Control-Expose-Headers", "ETag, Retry-After".to_owned()),
        ],
        None => Vec::new(),
    }
}

/// True if the response depends on the origin: caches have to know.
pub(crate) fn varies(access: CrossOrigin, config: &Config) -> bool {
    access == CrossOrigin::Public || (access.is_readable() && !config.allow_origin.any() && !config.allow_origin.none())
}

/// The value of a header that occurs once, as text.
fn single(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) => line.to_str().ok(),
        _ => None,
    }
}

/// True for a page that was loaded from this server. Where a trusted proxy names the scheme of its client, the page's
/// scheme must be the same: anyone on the network can make an `http` page of a server's name.
fn is_same_origin(request: &Request<()>) -> bool {
    let origin = single(request.headers(), header::ORIGIN).and_then(Origin::parse);
    let scheme = request.extensions().get::<ClientScheme>();
    origin.is_some_and(|origin| {
        scheme.is_none_or(|scheme| origin.scheme() == scheme.name())
            && authority(request).is_some_and(|host| origin.is_of_host(host))
    })
}

/// Refuses a request that names another server: its page may have had a foreign name resolve to this one (DNS rebinding).
pub(crate) fn host_refusal(request: &Request<()>, listener: IpAddr, config: &Config) -> Option<Refusal> {
    let host = authority(request)?;
    if config.allow_host.allows(host, listener.to_canonical().is_loopback()) {
        return None;
    }
    let message = format!(
        "Host: {} is not a name of this server: expected an address, localhost, or a name in --allow-host",
        quote(host)
    );
    Some(Refusal::new(403, "forbidden_host", message))
}

/// The entry of `allow_origin` that allows the request's origin.
fn allowed_entry<'a>(headers: &HeaderMap, config: &'a Config) -> Option<&'a str> {
    config.allow_origin.entry(single(headers, header::ORIGIN).unwrap_or_default())
}

fn forbidden(origin: &HeaderValue, request: &Request<()>) -> Refusal {
    let host = authority(request).map_or_else(|| "missing".to_owned(), quote);
    let message = format!(
        "Origin: {} is not allowed for Host {host}: expected the server's own origin or one in --allow-origin; a proxy \
         in front must pass the Host header on",
        quote(&String::from_utf8_lossy(origin.as_bytes()))
    );
    Refusal::new(403, "forbidden_origin", message)
}
