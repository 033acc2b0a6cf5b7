//! How smoothly the page runs: measured, and told in the test's output. What is asserted is that it keeps up at all.

use serde_json::json;

use super::chromium::{Page, tick_alone};
use tickcast_test_support::server::Server;

/// Ten seconds of frames: their distances, what the page's own script took of each, and tasks beyond 50 ms.
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
        frames_a_second: Math.round((distances.length * 1000) / (now - from)), frame_ms: of(distances.slice(1)),
        handed_over: scripts.length, script_ms: of(scripts),
        long_tasks: tasks.length, longest_ms: Math.max(0, ...tasks),
      });
    };
    requestAnimationFrame(step);
  })";

#[test]
fn two_thousand_rows_at_fifty_thousand_updates_a_second_stay_responsive() {
    let Some(_turn) = tick_alone() else { return };
    let server = Server::start(&["--feed", "sim:instruments=2000,rate=50000,seed=1,shape=even"]);
    let page = Page::open(&server, "/");
    page.until_live();
    page.until("probe.text('[data-panel=watchlist] [data-field=count]') === '2,000 instruments'");
    page.until("probe.text('[data-panel=status] [data-field=latency-p99]') !== '–'");
    page.ask("cdp", json!({"method": "Performance.enable"}));
    let spent = || {
        let told = page.ask("cdp", json!({"method": "Performance.getMetrics"}));
        let metrics = told["metrics"].as_array().expect("a list").clone();
        let names = ["ScriptDuration", "LayoutDuration", "RecalcStyleDuration", "TaskDuration"];
        names.map(|name| {
            metrics.iter().find(|metric| metric["name"] == name).and_then(|it| it["value"].as_f64()).expect(name)
        })
    };
    let before = spent();
    let frames = page.get(FRAMES);
    let after = spent();
    println!("frames (50, 95, 99 %): {frames}");
    let names = ["script", "layout", "style", "all tasks"];
    for (name, (after, before)) in names.iter().zip(after.iter().zip(before)) {
        println!("{name}: {:.0} ms of each second of the page's thread", (after - before) * 100.0);
    }
    let fields =
        "probe.fields('status', ['rtt', 'latency-p50', 'latency-p99', 'messages', 'updates', 'conflated', 'worker'])";
    println!("status bar: {}", page.get(fields));
    page.picture("two-thousand");
    // It still does what it is told.
    page.press("/");
    page.ask("type", json!({"text": "btc"}));
    page.until("document.querySelectorAll('[data-row]').length < 20 && probe.field('BTC-USD', 'state') === 'LIVE'");
    page.is_clean(&[]);
}
