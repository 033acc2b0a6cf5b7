/**
 * The attributes by which tests find elements of the page. Tests rely on them: change both together.
 *
 * | hook | element, and values |
 * |---|---|
 * | `body[data-connection]` | `connecting`, `live`, `stale`, `reconnecting`, `idle`, `closed` |
 * | `body[data-old]` | `yes` while the prices on the page are from before a lost connection |
 * | `body[data-view]` | `markets`, `operator` |
 * | `body[data-embedded]` | `yes` where the address asks for the chart alone |
 * | `body[data-pane]` | the pane shown on a phone: `watchlist`, `chart`, `ladder`, `trades`, `operator` |
 * | `html[data-theme]` | `light`, `dark`; absent for the system's theme |
 * | `[data-panel=NAME]` | `watchlist`, `ident`, `chart`, `ladder`, `trades`, `status`, `banner`, `operator`, |
 * | | `about`, `login`, `alerts`, `notices`, `lists`, `second` |
 * | `[data-row=SYMBOL]` | a row of the watchlist in view, with `data-state` LIVE, STALE, |
 * | | RESYNCING, UNKNOWN, HALTED, ENDED |
 * | `#watchlist-fold` | the row of those that have ended or are not back; its button has `aria-expanded` |
 * | in a row: `[data-field=…]` | `symbol`, `venue`, `last`, `change`, `bid`, `ask`, `spread`, `volume`, `state` |
 * | in a row: `[data-move]`, `[data-flash]` | on a price's cell: `up` or `down`, the last move; it has just moved |
 * | `[data-sort=COLUMN]` | the button in a column's header; its parent has `aria-sort` |
 * | `[data-panel=watchlist] [data-field=…]` | `count`, `order`, `empty`, `empty-title`, `empty-hint`, `scroller` |
 * | `[data-field=search]`, `[data-field=notice]` | the search; an error after which the page continues |
 * | `[data-panel=ident] [data-field=…]` | `symbol`, `venue`, `state`, `last`, `change`, `bid`, `ask`, |
 * | | `high`, `low`, `volume` |
 * | `[data-interval=SECONDS]` | 1, 5, 60, 300, 900, 3600, 86400; the chosen one has `aria-checked` |
 * | `[data-panel=chart] [data-field=…]` | `legend` (open to volume of a bar), `chart-note` |
 * | `[data-panel=chart][data-bars]` | the number of bars; `data-first`, `data-last`: their Unix seconds |
 * | `[data-panel=chart][data-beyond]` | the number of bars that leave the scale |
 * | `[data-field=chart-zone]`, `[data-field=trades-zone]` | the zone of the times; `[data-field=zone]`: its choice |
 * | `[data-panel=ladder]` | `.asks li`, `.bids li`: price, size, total; `[data-field=grouping]`, `middle`, `spread` |
 * | `[data-panel=trades]` | `.trades li[data-side=B/S/N]`: time, price, size; `[data-field=paused]` |
 * | `[data-panel=status] [data-field=…]` | `connection`, `countdown`, `rtt`, `latency-p50`, `latency-p99`, |
 * | | `messages`, `updates`, `conflated`, `gaps`, `worker` |
 * | `[data-conflation=MS]` | the conflation intervals 0, 10, 50, 100, 250, 500, 1000; the chosen one has |
 * | | `aria-checked` |
 * | `[data-panel=banner] [data-field=…]` | `banner-title`, `banner-text`; hidden while the connection is good |
 * | `[data-action=login]` | the button with the user; `data-login`: `in`, `out`, `expiring` |
 * | `[data-panel=login] [data-field=…]` | `login-state`, `login-message`, `login-rights`, `login-form`, `login-token` |
 * | `[data-panel=alerts] [data-field=…]` | `alert-side`, `alert-price`, `alert-message`, `alert-list`; |
 * | | `[data-panel=notices] p`: an alert that has fired |
 * | `[data-panel=listbar] [data-field=list]` | the choice of a list; hidden where there is none |
 * | `[data-panel=lists] li[data-list=NAME]` | a list; `list-name`, `list-message` |
 * | `[data-field=delay]` | `Delayed by 15 minutes`, on every view; empty where prices are live |
 * | `body[data-delayed]` | `yes` where prices are delayed; the word for `live` and `LIVE` is then `delayed` |
 * | `[data-field=rights]` | what is not shown to the user, below the watchlist |
 * | `[data-panel=operator][data-access]` | `asking`, `open`, `token`, `refused`; the reason in `[data-field=gate-text]` |
 * | `[data-total=NAME]` | `clients`, `audiences`, `catching_up`, `sequenced`, `records`, `packets`, |
 * | | `packet_bytes`, `uptime` |
 * | `[data-field=NAME] tr` | `shards`, `sources`, `slow`: one row for each |
 * | `[data-fact=NAME]` | a number of the sequencer |
 * | `[data-action=…]` | `theme`, `about`, `reconnect`, `pin`, `pinned-only`, `band`, `to-now`, `back`, |
 * | | `menu`, `show-all`, `beyond`, `bars-csv`, `picture`, `trades-csv`, |
 * | | `alerts`, `close-alerts`, `lists`, `close-lists`, `keep-list`, `leave-list`, |
 * | | `login`, `login-banner`, `logout`, `without`, `close-login` |
 * | `[data-go=VIEW]`, `[data-pane-of=PANE]` | links between views; tabs on a phone |
 */

/** The page's own frame times, for measurements: see {@link measured}. */
export interface Measured {
  /** Time in the page's frame callback, ms, of the newest frames. */
  readonly frames: Float64Array;
  count: number;
}

const FRAMES_MAX = 4096;

/** The newest is at `(count - 1) % 4096`; tests read it as `tickcastMeasured` on the window. */
export const measured: Measured = { frames: new Float64Array(FRAMES_MAX), count: 0 };

/** Adds the time of a frame. */
export function noteFrame(ms: number): void {
  measured.frames[measured.count % FRAMES_MAX] = ms;
  measured.count += 1;
}

Object.assign(globalThis, { tickcastMeasured: measured });
