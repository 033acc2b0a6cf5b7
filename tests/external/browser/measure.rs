//! Measures how smoothly the page runs, and prints it. It only asserts that the page stays responsive.

use serde_json::json;

use super::chromium::{Page, exclusive_browser};
use tickcast_test_support::server::Server;

/// Measures ten seconds of frames: their intervals, the time of the page's own script in each, and tasks beyond 50 ms.
const FRAMES: &str = "new Promise((resolve) => {
    const [from, distances, tasks] = [performance.now(), [], []];
    const durations = (list) => list.getEntries().map(({ duration }) => duration);
    const observer = new PerformanceObserver((list) => tasks.push(...durations(list)));
    observer.observe({ type: 'longtask' });
    const { frames, count: first } = tickcastMeasured;
    let before = from;
    const step = (now) => {
      distances.push(now - before);
      before = now;
      if (now - from < 10_000) return requestAnimationFrame(step);
      const scripts = [];
      for (let at = Math.max(first, tickcastMeasured.count - frames.length); at < tickcastMeasured.count; at++) {
        scripts.push(frames[at % frames.length]);
      }
      const of = (numbers) => [50, 95, 99].map((p) => Math.round(probe.percentile(numbers, p) * 10) / 10);
      resolve({
        frames_per_second: Math.round((distances.length * 1000) / (now - from)), frame_ms: of(distances.slice(1)),
        frames_with_changes: scripts.length, script_ms: of(scripts),
        long_tasks: tasks.length, longest_ms: Math.max(0, ...tasks),
      });
    };
    requestAnimationFrame(step);
  })";

#[test]
fn two_thousand_rows_at_50_000_updates_per_second_stay_responsive() {
    let Some(_browser) = exclusive_browser() else { return };
    let server = Server::start(&["--feed", "sim:instruments=2000,rate=50000,seed=1,shape=even"]);
    let page = Page::open(&server, "/");
    page.until_live();
    page.until("probe.text('[data-panel=watchlist] [data-field=count]') === '2,000 instruments'");
    page.until("probe.text('[data-panel=status] [data-field=latency-p99]') !== '–'");
    page.ask("cdp", json!({"method": "Performance.enable"}));
    let durations = || {
        let answer = page.ask("cdp", json!({"method": "Performance.getMetrics"}));
        let metrics = answer["metrics"].as_array().expect("a list").clone();
        let names = ["ScriptDuration", "LayoutDuration", "RecalcStyleDuration", "TaskDuration"];
        names.map(|name| {
            metrics.iter().find(|metric| metric["name"] == name).and_then(|it| it["value"].as_f64()).expect(name)
        })
    };
    let before = durations();
    let frames = page.get(FRAMES);
    let after = durations();
    println!("frames (50, 95, 99 %): {frames}");
    let names = ["script", "layout", "style", "all tasks"];
    for (name, (after, before)) in names.iter().zip(after.iter().zip(before)) {
        println!("{name}: {:.0} ms per second of the page's thread", (after - before) * 100.0);
    }
    let fields =
        "probe.fields('status', ['rtt', 'latency-p50', 'latency-p99', 'messages', 'updates', 'conflated', 'worker'])";
    println!("status bar: {}", page.get(fields));
    page.screenshot("two-thousand");
    // The page still reacts to keys.
    page.press("/");
    page.ask("type", json!({"text": "btc"}));
    page.until("document.querySelectorAll('[data-row]').length < 20 && probe.field('BTC-USD', 'state') === 'LIVE'");
    page.is_clean(&[]);
}
