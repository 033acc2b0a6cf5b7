//! SIGHUP: the settings are read again while the server runs.

use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;
use tickcast_test_support::client::Client;
use tickcast_test_support::server::{Program, Server};

/// A server whose settings are in a file.
struct ConfiguredServer {
    folder: tempfile::TempDir,
    server: Server,
}

impl ConfiguredServer {
    fn start(toml: &str, args: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tickcast.toml");
        write(&path, toml);
        let path = path.to_str().expect("a path in UTF-8");
        let all = [&["--listen", "127.0.0.1:0", "--feed", "none", "--cores", "0", "--config", path], args].concat();
        let server = Server::spawn(Program::command(&all));
        Self { folder, server }
    }

    /// Writes other settings, sends SIGHUP, and waits for this text on stderr.
    fn reload(&self, toml: &str, output: &str) {
        write(&self.folder.path().join("tickcast.toml"), toml);
        self.server.program.signal(Signal::HUP);
        self.server.program.wait_for_stderr(output);
    }

    fn publish_status(&self, token: &str) -> u16 {
        let path = format!("/v1/publish?token={token}");
        Client::try_connect(self.server.address, &path, &[]).map_or_else(|refused| refused.status, |_| 101)
    }

    fn welcome(&self) -> Value {
        Client::connect(self.server.address, "/v1/stream", &[]).reply()
    }
}

fn write(path: &Path, toml: &str) {
    std::fs::write(path, toml).expect("the folder is writable");
}

#[test]
fn sighup_changes_some_settings_and_names_the_others() {
    let configured = ConfiguredServer::start(
        "publish_token = 'the-old-publish-token'\nrequests_per_s = 60",
        &["--heartbeat-ms", "4444"],
    );
    let mut subscriber = configured.server.client();
    assert_eq!(
        (configured.publish_status("the-old-publish-token"), configured.publish_status("the-new-publish-token")),
        (101, 401)
    );
    let new = "publish_token = 'the-new-publish-token'\nrequests_per_s = 70\nheartbeat_ms = 3333\nring_bytes = 4194304\nsubscriptions_max = 2";
    configured.reload(new, "ring_bytes");
    configured.server.program.wait_for_stderr("publishers, requests_per_s, subscriptions_max");
    // The shard reads the settings after the line is logged.
    while configured.welcome()["limits"]["requests_per_s"] != 70 {}
    assert_eq!(
        (configured.publish_status("the-old-publish-token"), configured.publish_status("the-new-publish-token")),
        (401, 101)
    );
    assert_eq!(configured.welcome()["heartbeat_ms"], 4444, "a flag overrides the file, as at the start");
    let three = r#"{"op":"subscribe","id":1,"channels":["quote"],"symbols":["A*","B*","C*"]}"#;
    subscriber.send_and_expect_error(three, Some(1), "limit", &["at most 2"]);
    assert_eq!(configured.server.stop(Signal::TERM).code, Some(0));
}

#[test]
fn a_file_with_an_error_changes_nothing() {
    let configured = ConfiguredServer::start("publish_token = 'the-old-publish-token'", &[]);
    for (toml, output) in [
        (
            "publish_token = 'the-new-publish-token'\nheartbeat_ms = 1",
            "nothing was changed: heartbeat_ms: 1 is out of range",
        ),
        ("publish_token = 'the-new-publish-token'\nheartbeats = 1", "unknown field `heartbeats`"),
        ("publish_token = 'the-new-publish-token'\nlog = 'tickcast=loud'", "invalid filter \"tickcast=loud\""),
        ("publish_token = ", "nothing was changed: configuration file"),
    ] {
        configured.reload(toml, output);
        assert_eq!(
            (configured.publish_status("the-old-publish-token"), configured.publish_status("the-new-publish-token")),
            (101, 401),
            "{toml}"
        );
    }
}

#[test]
fn sighup_changes_the_log_filter() {
    let configured = ConfiguredServer::start("log = 'error'", &[]);
    // The old filter hides the line; the welcome shows that the file was read.
    write(&configured.folder.path().join("tickcast.toml"), "log = 'info'\nrequests_per_s = 77");
    configured.server.program.signal(Signal::HUP);
    while configured.welcome()["limits"]["requests_per_s"] != 77 {}
    configured.reload("log = 'info'", "settings were read again");
}
