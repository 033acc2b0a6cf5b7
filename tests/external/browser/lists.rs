//! Named lists of instruments, and price alerts.

use serde_json::json;

use super::chromium::{Page, shared_browser};
use super::market::{PUBLISHED, Publisher};
use tickcast_test_support::server::Server;

fn open(server: &Server, path: &str) -> (Page, Publisher) {
    let mut publisher = Publisher::open(server, &["AAA-USD", "BBB-USD", "C/D, E"]);
    (0..3).for_each(|nth| _ = publisher.quote(nth, 10_000));
    publisher.send();
    let page = Page::open(server, path);
    page.until_live();
    page.until("document.querySelectorAll('[data-row]').length > 0");
    (page, publisher)
}

#[test]
fn lists_are_created_chosen_renamed_stored_and_deleted_by_keys() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(PUBLISHED);
    let (page, _publisher) = open(&server, "/#/AAA-USD");
    page.until("probe.rows().length === 3");
    page.press("l");
    page.ask("type", json!({"text": "Mine"}));
    page.press("Enter");
    page.until("probe.rows().join() === 'AAA-USD'");
    page.ask("type", json!({"text": "Mine"}));
    page.press("Enter");
    page.until("probe.text('[data-field=list-message]') === 'There is a list “Mine” already.'");
    page.press("Escape");
    page.run("location.hash = '#/BBB-USD'");
    page.until("probe.text('[data-panel=ident] [data-field=symbol]') === 'BBB-USD'");
    page.press("l");
    page.run("document.querySelector('[data-list=Mine] input[type=checkbox]').focus()");
    page.press("Space");
    page.until("probe.rows().join() === 'AAA-USD,BBB-USD'");
    page.until("document.activeElement.getAttribute('aria-label') === 'Mine has BBB-USD'");
    page.press("Tab");
    page.press("Control+a");
    page.ask("type", json!({"text": "Yours"}));
    page.press("Enter");
    page.until("document.querySelector('[data-list=Yours]') !== null");
    assert_eq!(page.ask("violations", json!({})), json!([]), "the lists");
    let again = page.beside("/");
    again.until_live();
    again.until("probe.rows().join() === 'AAA-USD,BBB-USD'");
    page.click("[data-list=Yours] [aria-label='Delete: Yours']");
    page.until("probe.rows().length === 3 && document.querySelector('[data-panel=listbar]').hidden");
    // The other tab follows.
    again.until("probe.rows().length === 3");
    [page, again].iter().for_each(|page| page.is_clean(&[]));
}

#[test]
fn a_shared_list_is_shown_and_kept_or_left() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(PUBLISHED);
    let (page, _publisher) = open(&server, "/#/AAA-USD?list=My%20list:C%2FD%2C%20E,AAA-USD,NO-SUCH");
    page.until("probe.rows().join() === 'AAA-USD,C/D, E'");
    page.until("document.querySelector('[data-field=list]').selectedOptions[0].text === 'My list (shared)'");
    assert_eq!(page.get("localStorage.getItem('tickcast.lists')"), json!(null), "it is not stored unasked");
    // It stays while the user looks at its instruments.
    page.click("[data-row='C/D, E'] [data-field=symbol]");
    page.until("location.hash === '#/C%2FD%2C%20E?list=My%20list:C%2FD%2C%20E,AAA-USD,NO-SUCH'");
    page.click("[data-action=keep-list]");
    page.until("location.hash === '#/C%2FD%2C%20E' && probe.rows().join() === 'AAA-USD,C/D, E'");
    page.run("location.hash = '#/AAA-USD?list=Other:BBB-USD'");
    page.until("probe.rows().join() === 'BBB-USD'");
    page.click("[data-action=leave-list]");
    page.until("probe.rows().join() === 'AAA-USD,C/D, E' && location.hash === '#/AAA-USD'");
    // What is wrong is said, and the address still opens the instrument.
    page.run("location.hash = '#/BBB-USD?list=nothing'");
    page.until(
        "probe.text('[data-field=notice]').startsWith('The list in the address has no name: expected NAME:SYMBOL')",
    );
    page.until("probe.text('[data-panel=ident] [data-field=symbol]') === 'BBB-USD'");
    page.is_clean(&[]);
}

/// Counts what the page would show outside of it.
const NOTIFICATIONS: &str = "globalThis.asked = 0; globalThis.shown = [];
    globalThis.Notification = class {
      static permission = 'default';
      static async requestPermission() { asked += 1; return (this.permission = 'granted'); }
      constructor(title, { body }) { shown.push(`${title} ${body}`); }
    };";

#[test]
fn an_alert_fires_once_in_the_page_and_as_a_notification() {
    let Some(_browser) = shared_browser() else { return };
    let server = Server::start(PUBLISHED);
    let (page, mut publisher) = open(&server, "/#/AAA-USD");
    publisher.trade(0, 10_000, 1).send();
    page.until("probe.lines('.trades li').length === 1");
    page.run(NOTIFICATIONS);
    page.press("a");
    let add = |text: &str| {
        page.ask("type", json!({"text": text}));
        page.press("Enter");
    };
    add("1,5");
    page.until("probe.text('[data-field=alert-message]').includes('expected a number such as 61837.63')");
    assert_eq!(page.get("asked"), 0, "nothing is asked for before the first alert");
    page.press("Control+a");
    add("100.10");
    page.until("document.querySelectorAll('[data-field=alert-list] li').length === 1 && asked === 1");
    add("101");
    page.until("document.querySelectorAll('[data-field=alert-list] li').length === 2");
    assert_eq!(page.get("asked"), 1);
    assert_eq!(page.ask("violations", json!({})), json!([]), "the alerts");
    page.press("Escape");
    publisher.trade(0, 10_009, 2).send();
    page.until("probe.lines('.trades li')[0].cells[1] === '100.09'");
    assert_eq!(page.get("document.querySelectorAll('[data-panel=notices] p').length"), 0);
    // The price touches the bound within a packet, and leaves it: each trade counts.
    publisher.trade(0, 10_010, 3).trade(0, 10_000, 4).send();
    page.until("probe.text('[data-panel=notices] p span') === 'is at 100.10, at or above 100.10'");
    assert_eq!(page.get("shown"), json!(["AAA-USD is at 100.10, at or above 100.10"]));
    publisher.trade(0, 10_020, 5).send();
    page.until("probe.lines('.trades li')[0].cells[1] === '100.20'");
    assert_eq!(page.get("document.querySelectorAll('[data-panel=notices] p').length"), 1, "it fires once");
    assert_eq!(page.ask("violations", json!({})), json!([]), "the notice");
    page.screenshot("alert");
    // What has fired and what waits is stored.
    let again = page.beside("/#/AAA-USD");
    again.until_live();
    again.until("document.querySelector('[data-action=alerts]').dataset.waiting === '1'");
    again.press("a");
    let first = "document.querySelectorAll('[data-field=alert-list] li')";
    again.until(&format!("[...{first}].map((item) => item.dataset.fired ?? 'no').join() === 'no,yes'"));
    again.click("[data-field=alert-list] li button");
    again.until(&format!("{first}.length === 1"));
    // The other tab follows: its alert is gone.
    page.until("document.querySelector('[data-action=alerts]').dataset.waiting === undefined");
    publisher.trade(0, 20_000, 6).send();
    page.until("probe.lines('.trades li')[0].cells[1] === '200.00'");
    assert_eq!(page.get("document.querySelectorAll('[data-panel=notices] p').length"), 1);
    [page, again].iter().for_each(|page| page.is_clean(&[]));
}
