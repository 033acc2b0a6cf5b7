//! Routes: which path leads to which handler.
//!
//! To add a GET endpoint: write `handlers/NAME.rs` with a function that returns a [`Response`], then add a variant to
//! [`Endpoint`], a line to [`ROUTES`] and an arm to [`get`]. `handlers/health.rs` is the shortest example.

use std::collections::HashSet;
use std::io;

use http::{Method, Request};

use super::admission::origin::{self, CrossOrigin};
use super::answers::HeldAnswer;
use super::connection::Connection;
use super::handlers::snapshot::SnapshotText;
use super::handlers::{
    bars, echo, health, instruments, metrics, operator, origin as of_origin, publish, revoke, snapshot, sse, stream,
    trades,
};
use super::refusal::Refusal;
use super::request::quote;
use super::response::Response;
use super::server::HttpServer;

/// A resource of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Asset,
    Stream,
    Sse,
    Publish,
    Echo,
    Origin,
    Instruments,
    Snapshots,
    Snapshot,
    Bars,
    Trades,
    Operator,
    Revoke,
    Metrics,
    Healthz,
    Readyz,
}

/// All endpoints, and what pages of other origins may do with them. `{symbol}` is the rest of the path. Other assets than
/// these are found by their names, see `assets.rs`.
const ROUTES: &[(&str, Endpoint, CrossOrigin)] = &[
    ("/", Endpoint::Asset, CrossOrigin::Denied),
    ("/tickcast.js", Endpoint::Asset, CrossOrigin::Library),
    ("/tickcast-stream.js", Endpoint::Asset, CrossOrigin::Library),
    ("/v1/openapi.json", Endpoint::Asset, CrossOrigin::Public),
    ("/v1/asyncapi.json", Endpoint::Asset, CrossOrigin::Public),
    ("/v1/stream", Endpoint::Stream, CrossOrigin::Stream),
    ("/v1/sse", Endpoint::Sse, sse::ACCESS),
    ("/v1/publish", Endpoint::Publish, CrossOrigin::Stream),
    ("/v1/echo", Endpoint::Echo, CrossOrigin::Stream),
    ("/v1/origin", Endpoint::Origin, CrossOrigin::Public),
    ("/v1/instruments", Endpoint::Instruments, CrossOrigin::Readable),
    ("/v1/snapshot", Endpoint::Snapshots, CrossOrigin::Readable),
    ("/v1/snapshot/{symbol}", Endpoint::Snapshot, CrossOrigin::Readable),
    ("/v1/bars/{symbol}", Endpoint::Bars, CrossOrigin::Readable),
    ("/v1/trades/{symbol}", Endpoint::Trades, CrossOrigin::Readable),
    ("/v1/operator", Endpoint::Operator, CrossOrigin::Denied),
    ("/v1/operator/revoke", Endpoint::Revoke, CrossOrigin::Denied),
    ("/metrics", Endpoint::Metrics, CrossOrigin::Denied),
    ("/healthz", Endpoint::Healthz, CrossOrigin::Denied),
    ("/readyz", Endpoint::Readyz, CrossOrigin::Denied),
];

/// The end of a route's path that stands for a symbol.
const SYMBOL: &str = "/{symbol}";

/// The endpoint at a path.
pub(super) fn find(path: &str) -> Option<Endpoint> {
    let leads_to = |route: &str| match route.strip_suffix(SYMBOL) {
        Some(folder) => path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')),
        None => path == route,
    };
    ROUTES.iter().find(|(route, ..)| leads_to(route)).map(|(_, endpoint, _)| *endpoint)
}

/// What pages of other origins may do with a path, or with one below it: they may also read why there is nothing.
pub(super) fn cross_origin(path: &str) -> CrossOrigin {
    let covers = |route: &str| {
        let folder = route.strip_suffix(SYMBOL).unwrap_or(route);
        path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    ROUTES.iter().find(|(route, ..)| covers(route)).map_or(CrossOrigin::Denied, |(.., access)| *access)
}

/// The parameters that an endpoint takes; `None` where the handler refuses what it does not know, and for those that take
/// anything: the page, whose links may carry what other programs append, and probes.
fn parameters(endpoint: Endpoint) -> Option<&'static [&'static str]> {
    match endpoint {
        Endpoint::Asset | Endpoint::Healthz | Endpoint::Readyz | Endpoint::Sse | Endpoint::Revoke => None,
        Endpoint::Stream => Some(&["format", "token"]),
        Endpoint::Publish | Endpoint::Instruments => Some(&["token"]),
        Endpoint::Snapshots => Some(&["symbols", "channels", "token"]),
        Endpoint::Snapshot => Some(&["channels", "token"]),
        Endpoint::Bars => Some(&["interval_s", "limit", "to", "session", "token"]),
        Endpoint::Trades => Some(&["limit", "token"]),
        Endpoint::Operator | Endpoint::Metrics => Some(&["delay_s"]),
        Endpoint::Echo | Endpoint::Origin => Some(&[]),
    }
}

/// Refuses a parameter that the endpoint does not take: what was meant by it would be left out without a word.
pub(super) fn check_parameters(endpoint: Endpoint, query: &str) -> Result<(), Refusal> {
    let Some(known) = parameters(endpoint) else { return Ok(()) };
    let mut given = HashSet::new();
    for (name, _) in form_urlencoded::parse(query.as_bytes()) {
        let Some(known_name) = known.iter().find(|known| **known == name) else {
            let expected = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(Refusal::bad_request(format!("{}: unknown parameter: expected {expected}", quote(&name))));
        };
        // A list goes on where it is repeated.
        if !given.insert(known_name) && !["symbols", "channels"].contains(known_name) {
            return Err(Refusal::bad_request(format!("{name}: repeated: expected once")));
        }
    }
    Ok(())
}

/// The symbol at the end of a path, percent-encoded.
fn symbol(path: &str) -> &str {
    path.splitn(4, '/').nth(3).unwrap_or_default()
}

/// Leads a request to its handler.
pub(super) async fn route(
    server: &HttpServer,
    connection: &mut Connection,
    request: &Request<()>,
) -> Result<(), Refusal> {
    let (config, path) = (server.config(), request.uri().path());
    let access = cross_origin(path);
    if let Some(response) = origin::preflight(access, request, &config) {
        return respond(server, connection, request, response?).await;
    }
    let endpoint = find(path);
    let is_of_operator =
        matches!(endpoint, Some(Endpoint::Publish | Endpoint::Operator | Endpoint::Revoke | Endpoint::Metrics));
    if is_of_operator && server.state().delay_s() > 0 {
        // Nothing that a delayed market serves depends on the present: these would.
        let message =
            format!("path {path} is served for the live market only; metrics and the operator's view take delay_s");
        return Err(Refusal::not_found(message));
    }
    if let Some(admin) = &server.state().config.admin_listen
        && is_of_operator
    {
        let message = format!("path {path} is served by the admin listener only: {admin}");
        return Err(Refusal::not_found(message));
    }
    if let Some(endpoint) = endpoint {
        check_parameters(endpoint, request.uri().query().unwrap_or_default())?;
    }
    match endpoint {
        Some(Endpoint::Stream) => stream::serve(server, connection, request).await,
        Some(Endpoint::Publish) => publish::serve(server, connection, request).await,
        Some(Endpoint::Revoke) => {
            server.take_get_units(connection, units_of(endpoint))?;
            let response =
                revoke::post(server, connection.address(), connection.client_certificate().as_ref(), request)?;
            respond(server, connection, request, response).await
        }
        Some(Endpoint::Echo) if config.enable_echo => echo::serve(server, connection, request).await,
        Some(Endpoint::Sse) if request.method() != Method::OPTIONS => sse::serve(server, connection, request).await,
        endpoint => answer(server, connection, request, endpoint).await,
    }
}

/// Answers a GET or a HEAD, if the allowance of the client's address has its cost.
async fn answer(
    server: &HttpServer,
    connection: &mut Connection,
    request: &Request<()>,
    endpoint: Option<Endpoint>,
) -> Result<(), Refusal> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(Refusal::method_not_allowed(request.method()));
    }
    server.take_get_units(connection, units_of(endpoint))?;
    if endpoint == Some(Endpoint::Snapshots) {
        return answer_snapshots(server, connection, request).await;
    }
    let response = get(server, connection, request, endpoint).await?;
    respond(server, connection, request, response).await
}

/// The cost of a request, without that of the instruments and bytes of its response.
fn units_of(endpoint: Option<Endpoint>) -> u64 {
    match endpoint {
        Some(Endpoint::Healthz | Endpoint::Readyz | Endpoint::Origin) => 1,
        _ => 5,
    }
}

/// The response to a GET or a HEAD.
async fn get(
    server: &HttpServer,
    connection: &Connection,
    request: &Request<()>,
    endpoint: Option<Endpoint>,
) -> Result<Response, Refusal> {
    let (path, query, headers) = (request.uri().path(), request.uri().query().unwrap_or(""), request.headers());
    match endpoint {
        Some(Endpoint::Instruments) => {
            let principal = server.identified(connection, request).await?;
            instruments::get(server, &principal, headers).await
        }
        Some(Endpoint::Snapshot) => {
            let principal = server.identified(connection, request).await?;
            snapshot::get(server, &principal, symbol(path), query, headers).await
        }
        Some(Endpoint::Bars) => {
            let principal = server.identified(connection, request).await?;
            bars::get(server, &principal, symbol(path), query).await
        }
        Some(Endpoint::Trades) => {
            let principal = server.identified(connection, request).await?;
            trades::get(server, &principal, symbol(path), query).await
        }
        Some(Endpoint::Operator) => {
            operator::get(server, connection.address(), connection.client_certificate().as_ref(), request)
        }
        Some(Endpoint::Metrics) => metrics::get(server, request),
        Some(Endpoint::Origin) => Ok(of_origin::get(request, &server.config())),
        Some(Endpoint::Healthz) => health::healthz(server.state()),
        Some(Endpoint::Readyz) => health::readyz(server.state()),
        _ => server.shared.assets.find(path, headers, &server.config().allow_frame).ok_or_else(|| not_found(path)),
    }
}

/// Answers with several snapshots, which are made in pieces as the client reads them.
async fn answer_snapshots(
    server: &HttpServer,
    connection: &mut Connection,
    request: &Request<()>,
) -> Result<(), Refusal> {
    let principal = server.identified(connection, request).await?;
    let (response, rest) = snapshot::begin(server, &principal, request).await?;
    let Some(rest) = rest else { return respond(server, connection, request, response).await };
    server.take_get_units(connection, snapshot::units_of(rest.instruments()))?;
    let mut held = server.open_answer(connection);
    server.hold_answer(held.as_mut(), response.body.len())?;
    let response = shared(server, request, response);
    let written = write_pieces(server, connection, response, rest, held).await;
    server.count_write(&written);
    Ok(())
}

/// Writes a response in pieces. Once the head is sent, a response that cannot go on is cut off, which its framing shows.
async fn write_pieces(
    server: &HttpServer,
    connection: &mut Connection,
    response: Response,
    mut rest: SnapshotText,
    mut held: Option<HeldAnswer>,
) -> io::Result<()> {
    let cut_off = |_: Refusal| io::Error::from(io::ErrorKind::ConnectionAborted);
    let framing = response.framing;
    server.charge_get_bytes(connection, response.body.len());
    connection.begin_response(&response).await?;
    if response.headers_only {
        connection.close().await;
        return Ok(());
    }
    drop(response);
    while let Some(piece) = rest.next(server).await.map_err(cut_off)? {
        server.hold_answer(held.as_mut(), piece.len()).map_err(cut_off)?;
        server.charge_get_bytes(connection, piece.len());
        connection.write_portion(framing, piece.as_bytes()).await?;
    }
    connection.end_portions(framing).await
}

fn not_found(path: &str) -> Refusal {
    let paths: Vec<_> =
        ROUTES.iter().filter(|(_, endpoint, _)| *endpoint != Endpoint::Echo).map(|(path, ..)| *path).collect();
    Refusal::not_found(format!("path {} does not exist: expected one of {}", quote(path), paths.join(", ")))
}

async fn respond(
    server: &HttpServer,
    connection: &mut Connection,
    request: &Request<()>,
    response: Response,
) -> Result<(), Refusal> {
    let mut held = server.open_answer(connection);
    if !response.is_shared {
        server.charge_get_bytes(connection, response.body.len());
        server.hold_answer(held.as_mut(), response.body.len())?;
    }
    let response = shared(server, request, response);
    let written = connection.respond(&response).await;
    server.count_write(&written);
    Ok(())
}

/// The response with what pages of other origins may do with it, and without its body for a HEAD.
fn shared(server: &HttpServer, request: &Request<()>, response: Response) -> Response {
    let access = cross_origin(request.uri().path());
    let response = origin::share(access, request, &server.config(), response);
    // What one client may see is for no cache that others use.
    let response = if access.is_of_data() && server.state().access.is_on() { response.private() } else { response };
    response.with_headers_only(request.method() == Method::HEAD)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn parameters_that_an_endpoint_does_not_take_are_named() {
        let problem = |endpoint, query| check_parameters(endpoint, query).err().map(|refusal| refusal.message);
        for (endpoint, query) in [
            (Endpoint::Bars, "interval_s=60&limit=5&to=9&token=x"),
            (Endpoint::Bars, ""),
            (Endpoint::Snapshots, "symbols=A%2CB&ch%61nnels=quote"),
            (Endpoint::Asset, "utm_source=mail"),
            (Endpoint::Healthz, "x=1"),
        ] {
            assert_eq!(problem(endpoint, query), None, "{query}");
        }
        for (endpoint, query, expected) in [
            (
                Endpoint::Bars,
                "interval=1m",
                "\"interval\": unknown parameter: expected interval_s, limit, to, session, token",
            ),
            (Endpoint::Instruments, "symbols=A", "\"symbols\": unknown parameter: expected token"),
            (Endpoint::Origin, "x", "\"x\": unknown parameter: expected none"),
            (Endpoint::Bars, "limit=5&%6cimit=6", "limit: repeated: expected once"),
        ] {
            assert_eq!(problem(endpoint, query).as_deref(), Some(expected), "{query}");
        }
    }

    #[test]
    fn paths_lead_to_their_endpoints() {
        for (path, endpoint) in [
            ("/", Some(Endpoint::Asset)),
            ("/v1/snapshot", Some(Endpoint::Snapshots)),
            ("/v1/snapshot/", Some(Endpoint::Snapshot)),
            ("/v1/snapshot/BTC-USD", Some(Endpoint::Snapshot)),
            ("/v1/bars/A/B", Some(Endpoint::Bars)),
            ("/v1/bars", None),
            ("/v1/trades/A/B", Some(Endpoint::Trades)),
            ("/v1/trades", None),
            ("/v1/streams", None),
            ("/v1/stream/", None),
        ] {
            assert_eq!(find(path), endpoint, "{path}");
        }
        assert_eq!((symbol("/v1/bars/A/B"), symbol("/v1/snapshot/")), ("A/B", ""));
    }

    #[test]
    fn pages_of_other_origins_have_no_access_by_default() {
        for (path, access) in [
            ("/", CrossOrigin::Denied),
            ("/page.js", CrossOrigin::Denied),
            ("/metrics", CrossOrigin::Denied),
            ("/v1/bars", CrossOrigin::Readable),
            ("/v1/bars/BTC-USD", CrossOrigin::Readable),
            ("/v1/trades/BTC-USD", CrossOrigin::Readable),
            ("/v1/instruments/x", CrossOrigin::Readable),
            ("/v1/sse", CrossOrigin::ReadableStream),
            ("/v1/stream", CrossOrigin::Stream),
            ("/tickcast.js", CrossOrigin::Library),
            ("/tickcast-stream.js", CrossOrigin::Library),
            ("/v1/origin", CrossOrigin::Public),
            ("/v1/openapi.json", CrossOrigin::Public),
            ("/v1/asyncapi.json", CrossOrigin::Public),
        ] {
            assert_eq!(cross_origin(path), access, "{path}");
        }
    }

    /// The names of the query parameters that the description has for an operation.
    fn described_parameters<'a>(document: &'a Value, operation: &'a Value) -> BTreeSet<&'a str> {
        let given = operation["parameters"].as_array().into_iter().flatten();
        let resolved = given.map(|parameter| match parameter["$ref"].as_str() {
            Some(reference) => document.pointer(&reference[1..]).expect("the reference leads to a parameter"),
            None => parameter,
        });
        resolved.filter(|found| found["in"] == "query").map(|found| found["name"].as_str().expect("a name")).collect()
    }

    #[test]
    fn the_description_has_every_route_with_its_parameters_and_nothing_else() {
        let document: Value = serde_json::from_str(include_str!("../../docs/openapi.json")).expect("it is JSON");
        let paths = document["paths"].as_object().expect("paths");
        let described: BTreeSet<_> = paths.keys().map(String::as_str).collect();
        assert_eq!(described, ROUTES.iter().map(|(route, ..)| *route).collect());
        for (route, endpoint, _) in ROUTES {
            let methods: Vec<_> = paths[*route].as_object().expect("methods").keys().map(String::as_str).collect();
            let method = if *endpoint == Endpoint::Revoke { "post" } else { "get" };
            assert_eq!(methods, [method], "{route}");
            // Those of the other endpoints are compared by a test that asks the server.
            let described = described_parameters(&document, &paths[*route][method]);
            if let Some(known) = parameters(*endpoint) {
                assert_eq!(described, known.iter().copied().collect(), "{route}");
            }
        }
    }
}
