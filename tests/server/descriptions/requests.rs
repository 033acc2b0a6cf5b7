//! `/v1/openapi.json` against answers: each path with each status that can be had simply.

use std::collections::BTreeSet;
use std::io::Write;
use std::time::Instant;

use serde_json::{Value, json};
use tickcast_test_support::DEADLINE;
use tickcast_test_support::http::{Response, connect, read_head, read_response, send_request, upgrade_request};
use tickcast_test_support::publisher::{Publisher, book, quote, trade};
use tickcast_test_support::server::Server;
use tickcast_test_support::sse::SseClient;

use super::schemas::{Documents, assert_valid, resolved};
use crate::access::{OPERATOR, Quotes, btc, operator, token};

const PUBLISH_TOKEN: &str = "test-publish-token";
const STREAMS: [&str; 3] = ["/v1/stream", "/v1/publish", "/v1/echo"];
const OF_HISTORY: [&str; 2] = ["/v1/bars/{symbol}", "/v1/trades/{symbol}"];
const FOREIGN: &str = "Origin: https://elsewhere.example\r\n";

/// The paths of the document, and the answers that were compared with it.
struct Compared {
    documents: Documents,
    /// Path and status of each answer that was as described.
    answers: BTreeSet<(String, String)>,
}

impl Compared {
    fn operation(&self, path: &str) -> (&'static str, &Value) {
        let methods = self.documents.openapi["paths"][path].as_object().unwrap_or_else(|| panic!("{path} is missing"));
        let method = if methods.contains_key("post") { "post" } else { "get" };
        (method, &methods[method])
    }

    fn paths(&self) -> Vec<String> {
        self.documents.openapi["paths"].as_object().expect("paths").keys().cloned().collect()
    }

    /// The paths that have an answer with this status.
    fn paths_with(&self, status: &str) -> Vec<String> {
        let has = |path: &String| self.operation(path).1["responses"].get(status).is_some();
        self.paths().into_iter().filter(has).collect()
    }

    /// A request to a path, with this query and these header lines.
    fn request(&self, server: &Server, path: &str, query: &str, lines: &str) -> Vec<u8> {
        let method = self.operation(path).0.to_uppercase();
        let length = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
        let target = path.replace("{symbol}", "BTC-USD");
        format!("{method} {target}{query} HTTP/1.1\r\nHost: {}\r\n{lines}{length}\r\n", server.address).into_bytes()
    }

    /// Sends such a request, and compares the answer.
    #[track_caller]
    fn ask(&mut self, server: &Server, path: &str, query: &str, lines: &str, status: u16) -> Response {
        let response = send_request(server.address, &self.request(server, path, query, lines));
        assert_eq!(response.status, status, "{path}{query}: {}", response.text());
        self.compare(path, &response);
        response
    }

    /// Opens a WebSocket, or is refused.
    #[track_caller]
    fn upgrade(&mut self, server: &Server, path: &str, replace: (&str, &str), lines: &str, status: u16) {
        let request = upgrade_request(path).replace(replace.0, replace.1);
        let request = request.replacen("\r\n\r\n", &format!("\r\n{lines}\r\n"), 1);
        let mut stream = connect(server.address);
        stream.write_all(request.as_bytes()).expect("the server reads");
        // A connection that was upgraded stays open.
        let response =
            if status == 101 { Response::parse(&read_head(&mut stream)) } else { read_response(&mut stream) };
        assert_eq!(response.status, status, "{path} {lines}");
        self.compare(path, &response);
    }

    /// Asserts that an answer has the headers, the type and the body that are described.
    #[track_caller]
    fn compare(&mut self, path: &str, response: &Response) {
        let responses = &self.operation(path).1["responses"];
        let status = response.status.to_string();
        let status = if responses.get(&status).is_some() { status } else { "default".to_owned() };
        let openapi = &self.documents.openapi;
        let described = resolved(openapi, &responses[&status]);
        for (name, header) in described["headers"].as_object().into_iter().flatten() {
            let value = response.header(name).unwrap_or_else(|| panic!("{path} {status} has no {name}"));
            let schema = &resolved(openapi, header)["schema"];
            assert_valid(&self.documents.validator(schema), &value.into(), &format!("{path} {status} {name}"));
        }
        let given = response.header("content-type").and_then(|text| text.split(';').next());
        match described["content"].as_object() {
            None => assert!(given.is_none() && response.body.is_empty(), "{path} {status}"),
            Some(content) => {
                let (media_type, content) = content.iter().next().expect("a type");
                assert_eq!(given, Some(media_type.as_str()), "{path} {status}");
                let body = if media_type == "application/json" { response.json() } else { response.text().into() };
                let validator = self.documents.validator(&content["schema"]);
                assert_valid(&validator, &body, &format!("{path} {status}"));
            }
        }
        self.answers.insert((path.to_owned(), status));
    }

    /// Each path with what it serves, and again with the tag of that. The market does not change.
    fn ask_for_what_is_served(&mut self, server: &Server) {
        for path in self.paths_with("200") {
            let (query, lines) = match path.as_str() {
                // It does not end; and where clients are not identified, there is nothing to revoke.
                "/v1/sse" | "/v1/operator/revoke" => continue,
                "/v1/snapshot" => ("?symbols=*", String::new()),
                "/v1/operator" => ("", operator()),
                _ => ("", String::new()),
            };
            let response = self.ask(server, &path, query, &lines, 200);
            if let Some(tag) = response.header("etag") {
                self.ask(server, &path, query, &format!("If-None-Match: {tag}\r\n"), 304);
            }
        }
        let events = SseClient::connect(server.address, "/v1/sse?symbols=*", "");
        self.compare("/v1/sse", &events.head);
        for path in STREAMS {
            let lines = format!("Authorization: Bearer {PUBLISH_TOKEN}\r\n");
            self.upgrade(server, path, ("", ""), &lines, 101);
            self.upgrade(server, path, ("Version: 13", "Version: 8"), &lines, 426);
            self.upgrade(server, path, ("", ""), &format!("{FOREIGN}{lines}"), 403);
        }
        self.ask(server, "/v1/sse", "?symbols=*", FOREIGN, 403);
    }

    /// What a server refuses that does not identify its clients.
    fn ask_for_what_is_refused(&mut self, server: &Server) {
        for path in ["/v1/snapshot/{symbol}", OF_HISTORY[0], OF_HISTORY[1]] {
            let target = path.replace("{symbol}", "NONE");
            let response = server.get(&target);
            assert_eq!(response.status, 404, "{target}");
            self.compare(path, &response);
        }
        self.ask(server, "/v1/snapshot", "?symbols=NONE", "", 404);
        self.ask(server, "/v1/operator/revoke", "?user=u1", &operator(), 404);
        self.ask(server, "/v1/operator", "", "", 401);
        self.ask(server, "/v1/publish", "", "", 401);
        for path in self.paths() {
            let method = if path == "/v1/operator/revoke" { "GET" } else { "PUT" };
            let target = path.replace("{symbol}", "BTC-USD");
            let head =
                format!("{method} {target} HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {PUBLISH_TOKEN}\r\n\r\n");
            let response = send_request(server.address, head.as_bytes());
            assert!([400, 405].contains(&response.status), "{head}{}", response.text());
            self.compare(&path, &response);
        }
    }

    /// A parameter that a path does not have: the refusal names those it has.
    fn ask_with_an_unknown_parameter(&mut self, server: &Server, lines: &str) {
        for path in self.paths_with("400") {
            let message = self.ask(server, &path, "?nonsense=1", lines, 400).json()["error"]["message"].clone();
            let message = message.as_str().expect("a text");
            assert!(message.contains("\"nonsense\""), "{path}: {message}");
            let (_, named) = message.split_once("expected ").expect("the message names what is expected");
            let named = named.replace(" or ", ", ");
            let named: BTreeSet<_> = named.split(", ").filter(|name| *name != "none").collect();
            let openapi = &self.documents.openapi;
            let described = self.operation(&path).1["parameters"].as_array().into_iter().flatten();
            let described = described.map(|parameter| resolved(openapi, parameter)).filter(|one| one["in"] == "query");
            let described: BTreeSet<_> = described.map(|one| one["name"].as_str().expect("a name")).collect();
            assert_eq!(described, named, "{path}");
        }
    }

    /// What a server refuses that identifies its clients, and what it revokes.
    fn ask_with_tokens(&mut self, quotes: &Quotes) {
        let (server, bearer) = (&quotes.server, format!("Authorization: Bearer {}\r\n", token("u1", btc())));
        let of_data = ["/v1/instruments", "/v1/snapshot", "/v1/snapshot/{symbol}", "/v1/sse"];
        for path in [&of_data[..], &OF_HISTORY].concat() {
            let query = if matches!(path, "/v1/snapshot" | "/v1/sse") { "?symbols=XAU-USD" } else { "" };
            self.ask(server, path, query, "", 401);
        }
        self.upgrade(server, "/v1/stream", ("", ""), "Authorization: Bearer wrong\r\n", 401);
        self.ask(server, "/v1/snapshot", "?symbols=XAU-USD", &bearer, 403);
        for path in ["/v1/snapshot/{symbol}", OF_HISTORY[0], OF_HISTORY[1]] {
            let response = quotes.get(Some(&token("u1", btc())), &path.replace("{symbol}", "XAU-USD"));
            assert_eq!(response.status, 403, "{path}");
            self.compare(path, &response);
        }
        let page = format!("Origin: http://{}\r\n{}", server.address, operator());
        self.ask(server, "/v1/operator/revoke", "?user=u1", &page, 403);
        self.ask(server, "/v1/operator/revoke", "?user=u1", "", 401);
        self.ask(server, "/v1/operator/revoke", "?jti=a", &operator(), 200);
        self.ask(server, "/v1/operator/revoke", "?user=u1&issued_before=5", &operator(), 200);
    }

    /// What is served by another listener, or not at all.
    fn ask_for_what_is_elsewhere(&mut self, of_admin: &Server, plain: &Server) {
        for path in ["/metrics", "/v1/operator"] {
            self.ask(of_admin, path, "", "", 404);
        }
        for path in ["/v1/publish", "/v1/echo"] {
            self.ask(plain, path, "", "", 404);
        }
        self.ask(plain, "/v1/operator", "", "", 403);
    }

    /// Each plain path over the rate of its address.
    fn ask_over_the_rate(&mut self) {
        let rate = ["--get-units-per-address-per-s", "1", "--addresses-exempt", "none"];
        let server = Server::start(&[&["--feed", "none"], &rate[..]].concat());
        for path in self.paths_with("429") {
            if is_stream(&path) {
                continue;
            }
            // An address has four seconds' worth at once.
            let tries = (0..1000).map(|_| send_request(server.address, &self.request(&server, &path, "", "")));
            let refused = tries.into_iter().find(|response| response.status == 429).expect("there is a rate");
            self.compare(&path, &refused);
        }
    }
}

/// Waits until what was published is in the bars, which are made last.
fn wait_for_a_bar(server: &Server) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let response = server.get("/v1/bars/BTC-USD");
        if response.status == 200 && response.json()["time"] != json!([]) {
            return;
        }
        assert!(Instant::now() < deadline, "there are no bars: {}", response.text());
    }
}

fn is_stream(path: &str) -> bool {
    path == "/v1/sse" || STREAMS.contains(&path)
}

/// True for answers that no request has by itself: of a server that is overloaded, drains or is broken, and for streams
/// over the rate of handshakes, which are delayed first.
fn is_of_a_busy_server(path: &str, status: &str) -> bool {
    status == "503" && path != "/readyz" || status == "429" && is_stream(path)
}

#[test]
fn every_answer_is_as_described_and_every_description_has_an_answer() {
    let args = ["--enable-echo", "--publish-token", PUBLISH_TOKEN, "--operator-token", OPERATOR];
    let server = Server::start(&[&["--feed", "none"], &args[..]].concat());
    let documents = Documents::of(&server);
    let mut compared = Compared { documents, answers: BTreeSet::new() };
    let mut publisher = Publisher::connect(&server, PUBLISH_TOKEN);
    let id = publisher.define(&["BTC-USD"])[0];
    publisher.publish(&[quote(id, 10), trade(id, 10), book(id, b'S', &[(9, 1, b'B'), (11, 2, b'A')])]);
    wait_for_a_bar(&server);
    compared.ask_for_what_is_served(&server);
    compared.ask_for_what_is_refused(&server);
    let quotes = Quotes::start("", &["--enable-echo"]);
    compared.ask_with_an_unknown_parameter(&quotes.server, &operator());
    compared.ask_with_tokens(&quotes);
    let of_admin = Server::start(&["--feed", "none", "--admin-listen", "127.0.0.1:0"]);
    compared.ask_for_what_is_elsewhere(&of_admin, &Server::start(&["--feed", "none"]));
    compared.ask_over_the_rate();
    // Its operator's view has a feed.
    let failing = Server::start(&["--feed", "nats://127.0.0.1:1?subject=prices.>", "--operator-token", OPERATOR]);
    compared.ask(&failing, "/readyz", "", "", 503);
    compared.ask(&failing, "/v1/operator", "", &operator(), 200);
    let mut missing = Vec::new();
    for path in compared.paths() {
        for status in compared.operation(&path).1["responses"].as_object().expect("responses").keys() {
            let is_answered = compared.answers.contains(&(path.clone(), status.clone()));
            if !is_answered && !is_of_a_busy_server(&path, status) {
                missing.push(format!("{path} {status}"));
            }
        }
    }
    assert_eq!(missing, [""; 0], "described, and not answered");
}
