//! The page of a delayed market: it says in words how old its prices are.

use std::net::SocketAddr;

use serde_json::json;

use super::chromium::{Page, shared_browser};
use tickcast_test_support::server::{Program, Server};

/// A live market, and one of two seconds ago.
fn start() -> (tempfile::TempDir, Server, SocketAddr) {
    let folder = tempfile::tempdir().expect("a folder");
    let (config, spool) = (folder.path().join("tickcast.toml"), folder.path().join("spool"));
    let text = format!(
        "listen = '127.0.0.1:0'\nfeed = ['sim:instruments=20,rate=500,seed=1']\nspool_dir = '{}'\n\
         [[delayed]]\nlisten = '127.0.0.1:0'\ndelay_s = 2\n",
        spool.display()
    );
    std::fs::write(&config, text).expect("the folder is writable");
    let program = Program::spawn(Program::command(&["--config", config.to_str().expect("a path in UTF-8")]));
    let delayed = program.wait_for_address("serving the market of 2 s ago on http://");
    (folder, Server::of(program), delayed)
}

/// The label has its text, and nothing covers or cuts it.
fn says_its_delay(page: &Page) {
    page.until("probe.text('[data-field=delay]') === 'Delayed by 2 seconds'");
    page.until(
        "(() => { const label = document.querySelector('[data-field=delay]'); const box = label.getBoundingClientRect();
            return label.getAttribute('role') === 'status' && box.left >= 0 && box.top >= 0 && box.right <= innerWidth
            && box.bottom <= innerHeight && label.scrollWidth <= label.clientWidth
            && document.elementFromPoint(box.left + 20, box.top + box.height / 2) === label; })()",
    );
}

#[test]
fn page_of_a_delayed_market_says_so_on_every_view_and_never_that_it_is_live() {
    let Some(_browser) = shared_browser() else { return };
    let (_folder, live, delayed) = start();
    let page = Page::open_at(delayed, "/", json!({}));
    page.until_live();
    says_its_delay(&page);
    page.until("/^Delayed 2 s · \\S+ [\\d,.]+ · tickcast$/.test(document.title)");
    page.until(
        "probe.rows().length > 10 && probe.rows().every((symbol) => probe.field(symbol, 'state') === 'DELAYED')",
    );
    page.until("probe.text('[data-panel=ident] [data-field=state]') === 'DELAYED'");
    page.until("probe.text('[data-panel=status] [data-field=connection]') === 'delayed'");
    let name = "document.querySelector('#watchlist-rows').getAttribute('aria-label')";
    page.until(&format!("{name} === 'Prices, delayed by 2 seconds'"));
    assert_eq!(page.get("/\\blive\\b/i.test(document.querySelector('main').innerText)"), false);
    // The latency is that of the connection.
    page.until("/^[\\d.]+ ms$/.test(probe.text('[data-field=latency-p50]'))");
    for theme in ["light", "dark"] {
        page.ask("emulate", json!({"media": {"colorScheme": theme}}));
        page.screenshot(&format!("delayed-{theme}"));
        assert_eq!(page.ask("violations", json!({})), json!([]), "{theme}");
    }
    page.click("[data-go=operator]");
    page.until("document.body.dataset.view === 'operator'");
    says_its_delay(&page);
    page.is_clean(&["404"]);

    let phone = Page::open_at(delayed, "/", json!({"viewport": {"width": 360, "height": 640}}));
    phone.until_live();
    for pane in ["chart", "ladder", "trades", "watchlist"] {
        phone.click(&format!("[data-pane-of={pane}]"));
        says_its_delay(&phone);
    }
    phone.screenshot("delayed-phone");
    assert_eq!(phone.ask("violations", json!({})), json!([]));
    phone.is_clean(&[]);

    let other = Page::open(&live, "/");
    other.until_live();
    other.until("probe.rows().length > 10 && probe.rows().every((symbol) => probe.field(symbol, 'state') === 'LIVE')");
    assert_eq!(other.get("probe.text('[data-field=delay]')"), "");
    assert_eq!(other.get("document.querySelector('[data-field=delay]').getBoundingClientRect().height"), 0);
    assert_eq!(other.get("/delayed/i.test(document.body.innerText + document.title)"), false);
    other.is_clean(&[]);
}
