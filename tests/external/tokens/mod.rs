//! Tokens of issuers that this project did not write: PyJWT, and npm's jose. Each makes keys, a key set and tokens of all
//! algorithms; PyJWT also makes tokens that nothing may accept.
//!
//! `tests/external/interop/install` installs them. A test whose issuer is missing is reported as skipped.

use std::process::{Command, Stdio};

use serde_json::Value;
use tickcast_test_support::client::Client;
use tickcast_test_support::exclusive::shared;
use tickcast_test_support::http::{Response, send_request};
use tickcast_test_support::paths;
use tickcast_test_support::server::Server;

const ALGORITHMS: [&str; 5] = ["RS256", "PS256", "ES256", "ES384", "EdDSA"];

/// What the script prints; `None`, with a message, if it does not run.
fn issued(program: &str, script: &str) -> Option<Value> {
    let root = paths::repository();
    let mut command = Command::new(program);
    command.arg(root.join("tests/external/tokens").join(script)).stderr(Stdio::null());
    let printed = command.env("PYTHONPATH", root.join("target/interop/python")).output().ok();
    let Some(printed) = printed.filter(|printed| printed.status.success()) else {
        println!("SKIPPED: {program} {script} does not run; see tests/external/interop/install");
        return None;
    };
    Some(serde_json::from_slice(&printed.stdout).expect("JSON"))
}

fn instruments(server: &Server, token: &str) -> Response {
    let address = server.address;
    let head = format!("GET /v1/instruments HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n");
    send_request(address, head.as_bytes())
}

/// Tokens of each algorithm are accepted with their keys, and none of the forged ones.
fn check(issued: &Value) {
    let folder = tempfile::tempdir().expect("a folder");
    let (jwks, config) = (folder.path().join("jwks.json"), folder.path().join("tickcast.toml"));
    std::fs::write(&jwks, issued["jwks"].to_string()).expect("the folder is writable");
    let issuer = format!(
        "[[issuer]]\nname = 'test'\niss = 'https://id.example.com'\naudience = ['tickcast']\n\
         algorithms = {ALGORITHMS:?}\njwks_file = {jwks:?}\n"
    );
    std::fs::write(&config, issuer).expect("the folder is writable");
    let start = || Server::start(&["--config", config.to_str().expect("a path in UTF-8")]);
    let server = start();
    for algorithm in ALGORITHMS {
        let token = issued["tokens"][algorithm].as_str().expect("a token");
        let listed = instruments(&server, token);
        assert_eq!(listed.status, 200, "{algorithm}: {}", listed.text());
        let bearer = format!("Bearer {token}");
        let mut client = Client::connect(server.address, "/v1/stream", &[("Authorization", &bearer)]);
        assert_eq!(client.reply()["user"], "u-17", "{algorithm}");
    }
    // An address may present ten wrong ones.
    let forged: Vec<_> = issued["forged"].as_object().expect("an object").iter().collect();
    for forged in forged.chunks(10) {
        let server = start();
        for (name, token) in forged {
            let refused = instruments(&server, token.as_str().expect("a token"));
            refused.assert_refusal(401, "unauthorized", &["token: "]);
            assert!(!refused.text().contains("u-17"), "{name}: {}", refused.text());
        }
    }
}

#[test]
fn tokens_of_pyjwt_are_accepted_and_forged_ones_are_not() {
    let _machine = shared();
    if let Some(issued) = issued("python3", "issuer.py") {
        assert!(issued["forged"].as_object().is_some_and(|forged| forged.len() > 20));
        check(&issued);
    }
}

#[test]
fn tokens_of_jose_are_accepted() {
    let _machine = shared();
    if let Some(issued) = issued("node", "issuer.mjs") {
        check(&issued);
    }
}
