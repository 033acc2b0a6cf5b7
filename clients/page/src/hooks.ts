/**
 * The hooks by which tests find things in the page. They are part of its contract: a change here is a change there.
 *
 * | hook | where, and what it says |
 * |---|---|
 * | `body[data-connection]` | `connecting`, `live`, `stale`, `reconnecting`, `idle`, `closed` |
 * | `body[data-old]` | `yes` where prices in the page are older than a connection that was lost |
 * | `body[data-view]` | `markets`, `operator` |
 * | `body[data-pane]` | the pane that a phone shows: `watchlist`, `chart`, `ladder`, `tape`, `operator` |
 * | `html[data-theme]` | `light`, `dark`; absent where the system decides |
 * | `[data-panel=NAME]` | `watchlist`, `ident`, `chart`, `ladder`, `tape`, `status`, `banner`, `operator`, `about` |
 * | `[data-row=SYMBOL]` | a row of the watchlist that is in view, with `data-state` LIVE, STALE, |
 * | | RESYNCING, HALTED, ENDED |
 * | in a row: `[data-field=…]` | `symbol`, `venue`, `last`, `change`, `bid`, `ask`, `spread`, `volume`, `state` |
 * | in a row: `[data-move]`, `[data-lit]` | on a price's cell: `up` or `down` since it was first shown; lit just now |
 * | `[data-sort=COLUMN]` | the button at the head of a column; its parent has `aria-sort` |
 * | `[data-panel=watchlist] [data-field=…]` | `count`, `order`, `empty`, `empty-title`, `empty-hint`, `scroller` |
 * | `[data-field=search]`, `[data-field=notice]` | the search, and what went wrong without ending anything |
 * | `[data-panel=ident] [data-field=…]` | `symbol`, `venue`, `state`, `last`, `change`, `bid`, `ask`, |
 * | | `high`, `low`, `volume` |
 * | `[data-interval=SECONDS]` | 1, 5, 60, 300; `aria-checked` on the one that is on |
 * | `[data-panel=chart] [data-field=…]` | `legend` (open to volume of the newest bar), `chart-note` |
 * | `[data-panel=chart][data-bars]` | how many bars the chart has, and `data-first`, `data-last`: their Unix seconds |
 * | `[data-panel=ladder]` | `.asks li`, `.bids li`: price, size, total; `[data-field=grouping]`, `middle`, `spread` |
 * | `[data-panel=tape]` | `.trades li[data-side=B/S/N]`: time, price, size; `[data-field=paused]` |
 * | `[data-panel=status] [data-field=…]` | `connection`, `countdown`, `rtt`, `latency-p50`, `latency-p99`, |
 * | | `messages`, |
 * | | `updates`, `conflated`, `gaps`, `worker` |
 * | `[data-profile=MS]` | the conflation profiles 0, 10, 50, 100, 250, 500, 1000; `aria-checked` on the |
 * | | one that is on |
 * | `[data-panel=banner] [data-field=…]` | `banner-title`, `banner-text`; hidden while all is well |
 * | `[data-panel=operator][data-access]` | `asking`, `open`, `token`, `refused`; `[data-field=gate-text]` says why |
 * | `[data-total=NAME]` | `clients`, `audiences`, `catching_up`, `sequenced`, `records`, `packets`, |
 * | | `packet_bytes`, `uptime` |
 * | `[data-field=NAME] tr` | `shards`, `sources`, `slow`: one row for each of them |
 * | `[data-fact=NAME]` | a number of the sequencer |
 * | `[data-action=…]` | `theme`, `about`, `reconnect`, `pin`, `pinned-only`, `band`, `to-now`, `back` |
 * | `[data-go=VIEW]`, `[data-pane-of=PANE]` | links between views, and a phone's tabs |
 */

/** What the page shows about its own speed, for measurements: see {@link measured}. */
export interface Measured {
  /** Time spent in the page's own frame callback, ms, of the newest frames. */
  readonly frames: Float64Array;
  count: number;
}

const KEPT = 4096;

/** Frames' own script times, newest at `(count - 1) % 4096`; read as `tickcastMeasured` on the window. */
export const measured: Measured = { frames: new Float64Array(KEPT), count: 0 };

/** Notes what a frame took. */
export function noteFrame(ms: number): void {
  measured.frames[measured.count % KEPT] = ms;
  measured.count += 1;
}

Object.assign(globalThis, { tickcastMeasured: measured });
