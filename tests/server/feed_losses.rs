//! What a feed cannot take is reported: to subscribers, in the metrics, in the operator's view and in the log.

use std::time::Instant;

use serde_json::Value;
use tickcast_test_support::DEADLINE;
use tickcast_test_support::server::Server;

/// 400 trades, of which every fourth is cut short, over four seconds.
fn recording(directory: &std::path::Path) -> String {
    let trade = |id: u64| {
        let ns = (1_723_161_254_000 + id * 10) * 1_000_000;
        let fields = format!(r#""s":"AB","t":{id},"p":"1.50","q":"2","T":{},"m":true,"M":true"#, ns / 1_000_000);
        let line = format!(r#"{ns} {{"stream":"x@trade","data":{{"e":"trade","E":{},{fields}}}}}"#, ns / 1_000_000);
        if id % 4 == 3 { line[..line.len() - 9].to_owned() } else { line }
    };
    let path = directory.join("recording");
    std::fs::write(&path, (0..400).map(|id| trade(id) + "\n").collect::<String>()).expect("written");
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn unreadable_trades_are_gaps_and_are_counted_by_cause() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = recording(directory.path());
    let server = Server::start(&["--feed", &format!("replay:{path}"), "--operator-token", "token-of-the-operator"]);
    let mut subscriber = server.subscriber(&["trade"], &["*"]);
    while subscriber.gaps.len() < 20 {
        subscriber.record();
    }
    assert!(subscriber.gaps.iter().all(|gap| gap.missing() == 1), "{:?}", subscriber.gaps);
    let until = Instant::now() + DEADLINE;
    let counted = |metrics: &str| {
        let line = r#"tickcast_feed_lost_total{source="0",cause="malformed"} "#;
        metrics.lines().find_map(|of| of.strip_prefix(line)?.parse::<u64>().ok()).expect("the metric is served")
    };
    while counted(&server.get("/metrics").text()) < 20 {
        assert!(Instant::now() < until, "losses are not counted");
    }
    let view = operator_view(&server);
    let lost = &view["sources"][0]["lost"];
    assert!(lost["malformed"].as_u64() >= Some(20) && lost["trades_lost"].as_u64() >= Some(20), "{view}");
}

fn operator_view(server: &Server) -> Value {
    let request =
        b"GET /v1/operator HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer token-of-the-operator\r\n\r\n";
    serde_json::from_slice(&tickcast_test_support::http::send_request(server.address, request).body).expect("JSON")
}
