//! The server's directory of instruments, from `GET /v1/instruments`.

use std::io::{Read, Write};
use std::path::Path;

use crate::load::error::LoadError;
use tickcast_client::{CONNECT_TIMEOUT, Stream, Target, TlsConfig};

/// More than any directory: 100,000 instruments at some 200 bytes.
const DIRECTORY_BYTES_MAX: usize = 64 << 20;
const READ_BYTES: usize = 256 * 1024;

/// The symbols of the server's directory, from `GET /v1/instruments`, in its order.
pub fn fetch_symbols(target: &Target, ca: Option<&Path>) -> Result<Vec<String>, LoadError> {
    #[derive(serde::Deserialize)]
    struct DirectoryAnswer {
        instruments: Vec<DirectoryEntry>,
    }
    #[derive(serde::Deserialize)]
    struct DirectoryEntry {
        symbol: String,
    }
    let body = get(target, ca, "/v1/instruments")?;
    let directory: DirectoryAnswer =
        serde_json::from_slice(&body).map_err(|error| LoadError::Directory(error.to_string()))?;
    Ok(directory.instruments.into_iter().map(|entry| entry.symbol).collect())
}

/// A connection to the server; over TLS, its handshake is complete.
pub fn connect(target: &Target, ca: Option<&Path>) -> Result<Stream, LoadError> {
    let socket = target.connect()?;
    socket
        .set_read_timeout(Some(CONNECT_TIMEOUT))
        .map_err(|error| LoadError::System { what: "read timeout", error })?;
    let tls = TlsConfig::new(target, ca)?;
    let mut stream = Stream::open(target, socket, &tls)?;
    stream.complete_handshake(target, &tls)?;
    Ok(stream)
}

/// One HTTP/1.1 request on a connection of its own. Returns the body of a 200 answer.
fn get(target: &Target, ca: Option<&Path>, path: &str) -> Result<Vec<u8>, LoadError> {
    let mut stream = connect(target, ca)?;
    let failed = |error: std::io::Error| LoadError::Directory(error.to_string());
    let host = target.authority();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = Vec::new();
    let (mut buffer, mut read) = (vec![0; READ_BYTES], 1);
    while read > 0 && answer.len() < DIRECTORY_BYTES_MAX {
        read = stream.read(&mut buffer).map_err(failed)?;
        answer.extend_from_slice(&buffer[..read]);
    }
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let malformed = |problem: &str| LoadError::Directory(problem.to_owned());
    let Ok(httparse::Status::Complete(head_bytes)) = response.parse(&answer) else {
        return Err(malformed("the answer is not HTTP"));
    };
    let (status, reason) = (response.code.unwrap_or(0), response.reason.unwrap_or(""));
    let header = |name: &str| response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    let chunked = header("Transfer-Encoding").is_some();
    let body = &answer[head_bytes..];
    if status != 200 {
        return Err(LoadError::Directory(format!("{status} {reason}{}", error_message(body))));
    }
    if chunked {
        return Err(malformed("the answer is chunked: expected one with Content-Length"));
    }
    Ok(body.to_vec())
}

/// `: message` of a body `{"error":{"code":"..","message":".."}}`; empty where the body is something else.
fn error_message(body: &[u8]) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let message = json.as_ref().and_then(|json| json["error"]["message"].as_str());
    message.map_or_else(String::new, |message| format!(": {message}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tickcast_test_support::scripted_server;

    #[test]
    fn the_directory_is_fetched_and_a_refusal_shows_its_message() {
        let directory = r#"{"instruments":[{"instrument":1,"symbol":"BTC-USD","venue":"sim","px_exp":-2,"sz_exp":-8},
            {"instrument":2,"symbol":"AAPL","venue":"sim","px_exp":-2,"sz_exp":0}]}"#;
        let address = scripted_server::serve(directory, |_| {});
        let symbols =
            fetch_symbols(&Target::parse(&address.to_string()).expect("an address"), None).expect("a directory");
        assert_eq!(symbols, ["BTC-USD", "AAPL"]);
        let address = scripted_server::respond(
            "HTTP/1.1 503 Service Unavailable\r\n\r\n{\"error\":{\"code\":\"draining\",\"message\":\"shutting down\"}}",
        );
        let error =
            fetch_symbols(&Target::parse(&address.to_string()).expect("an address"), None).expect_err("refused");
        assert_eq!(error.to_string(), "GET /v1/instruments: 503 Service Unavailable: shutting down");
    }
}
