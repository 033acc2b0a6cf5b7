// Runs in each page before the page's own scripts: helpers of the tests, as `probe`.
globalThis.probe = {
  /** The violations of the Content-Security-Policy. */
  refused: [],
  watched: {},

  /** The trimmed text of the first element of a selector; null if there is none. */
  text(selector) {
    return document.querySelector(selector)?.textContent.trim() ?? null;
  },

  /** The symbols of the watchlist's rows in view. */
  rows() {
    return [...document.querySelectorAll("[data-row]")].map((row) => row.dataset.row);
  },

  /** A field of a row of the watchlist. */
  field(symbol, name) {
    return probe.text(`[data-row="${CSS.escape(symbol)}"] [data-field=${name}]`);
  },

  /** Fields of a panel, by name. */
  fields(panel, names) {
    return Object.fromEntries(names.map((name) => [name, probe.text(`[data-panel=${panel}] [data-field=${name}]`)]));
  },

  /** The text of the first row of a table of the operator's view, in the column with this title. */
  cell(table, title) {
    const rows = document.querySelector(`[data-field=${table}]`);
    const titles = [...rows.closest("table").querySelectorAll("th")].map((head) => head.textContent);
    return rows.querySelector("tr")?.children[titles.indexOf(title)]?.textContent ?? null;
  },

  /** The visible lines of a list, each as the texts of its elements. */
  lines(selector) {
    const lines = [...document.querySelectorAll(selector)].filter((line) => !line.hidden);
    const cells = (line) => [...line.querySelectorAll("time, b, span")].map((cell) => cell.textContent);
    return lines.map((line) => ({ side: line.dataset.side, cells: cells(line) }));
  },

  /**
   * Records under a name each value of an attribute from now on, also values that no frame showed: the records of an
   * observer have the former values.
   */
  watch(name, selector, attribute) {
    const seen = (probe.watched[name] = [document.querySelector(selector)?.getAttribute(attribute) ?? null]);
    const add = (value) => value === seen.at(-1) || seen.push(value);
    new MutationObserver((records) => {
      for (const { target, oldValue } of records) if (target.matches(selector)) add(oldValue);
      add(document.querySelector(selector)?.getAttribute(attribute) ?? null);
    }).observe(document.documentElement, { subtree: true, attributeFilter: [attribute], attributeOldValue: true });
  },

  /** Counts under a name the changes of a text from now on. */
  count(name, selector) {
    probe.watched[name] = 0;
    const options = { subtree: true, childList: true, characterData: true };
    new MutationObserver(() => (probe.watched[name] += 1)).observe(document.querySelector(selector), options);
  },

  /**
   * Makes the page hidden or visible to its scripts. Putting a tab behind another one would not: the driver keeps all
   * tabs visible.
   */
  hide(hidden) {
    const values = { hidden, visibilityState: hidden ? "hidden" : "visible" };
    for (const [name, value] of Object.entries(values)) {
      Object.defineProperty(document, name, { configurable: true, get: () => value });
    }
    document.dispatchEvent(new Event("visibilitychange"));
  },

  /** The `p`-th percentile of numbers. */
  percentile(numbers, p) {
    const sorted = Float64Array.from(numbers).sort();
    return sorted[Math.min(sorted.length - 1, Math.floor((p / 100) * sorted.length))];
  },
};
addEventListener("securitypolicyviolation", (event) => {
  probe.refused.push(`${event.effectiveDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`);
});
