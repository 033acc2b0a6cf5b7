//! docs/http-api.md against the server: its paths and its error codes.

use std::collections::BTreeSet;

use tickcast_test_support::server::WatchedServer;

use super::{files, read, rows, section, spans};

/// The paths of the table, without their queries.
fn documented_paths(page: &str) -> BTreeSet<String> {
    let (table, _) = page.split_once("\n## ").expect("the table comes first");
    let path = |row: Vec<String>| {
        row[0]
            .trim_matches('`')
            .trim_start_matches("GET ")
            .trim_start_matches("POST ")
            .split('?')
            .next()
            .map(str::to_owned)
    };
    rows(table).into_iter().filter_map(path).collect()
}

/// Status and code of every refusal that the HTTP server makes.
fn refusals(source: &str) -> BTreeSet<(u16, String)> {
    let calls = ["Refusal::new(", "Self::new("].iter().flat_map(|call| source.split(call).skip(1));
    let refusal = |arguments: &str| {
        let (status, rest) = arguments.split_once(", \"")?;
        Some((status.trim().parse().ok()?, rest.split('"').next()?.to_owned()))
    };
    calls.filter_map(refusal).collect()
}

#[test]
fn the_paths_of_the_page_are_served_and_those_that_the_server_names_are_listed() {
    let documented = documented_paths(&read("docs/http-api.md"));
    let server =
        WatchedServer::start(&["--enable-echo", "--publish-token", "test-publish-token", "--log", "error"]).server;
    let directory = server.get("/v1/instruments").json();
    let symbol = directory["instruments"][0]["symbol"].as_str().expect("the market of the scene has an instrument");
    for path in &documented {
        let answer = server.get(&path.replace("{symbol}", symbol));
        assert_ne!(answer.status, 404, "{path}");
    }
    let nowhere = server.get("/nowhere");
    assert_eq!(nowhere.status, 404);
    let message = nowhere.json()["error"]["message"].as_str().expect("a message").to_owned();
    let words = message.split([' ', ',']).map(|word| word.trim_end_matches([';', ':']));
    let named: BTreeSet<_> =
        words.filter(|word| word.starts_with('/') && *word != "/nowhere").map(str::to_owned).collect();
    assert!(named.len() > 8, "{message}");
    assert_eq!(named.difference(&documented).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn every_code_of_a_refusal_is_listed_with_its_status() {
    let page = read("docs/http-api.md");
    let mut documented = BTreeSet::new();
    for row in rows(section(&page, "## Errors")) {
        let status: u16 = row[0].parse().expect("a status");
        documented.extend(spans(&row[1]).into_iter().map(|code| (status, code.to_owned())));
    }
    let sources = files().into_iter().filter(|path| path.starts_with("src/http"));
    let sources = sources.filter(|path| path.extension().is_some_and(|ending| ending == "rs"));
    let real: BTreeSet<_> = sources.flat_map(|path| refusals(&read(path))).collect();
    assert!(real.len() > 8, "{real:?}");
    assert_eq!(real.difference(&documented).collect::<Vec<_>>(), Vec::<&(u16, String)>::new());
    let planted =
        refusals(r#"Refusal::new(418, "teapot", "…") Self::new(status, "a", b) Refusal::new(400, error.code, "x")"#);
    assert_eq!(planted, [(418, "teapot".to_owned())].into());
}
