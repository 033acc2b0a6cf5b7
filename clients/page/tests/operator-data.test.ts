import { expect, test } from "vitest";
import { Rates, ringText, wordsOf, type OperatorAnswer } from "../src/operator-data.ts";

const answer = (uptime_ms: number, records: number, epoch = 1): OperatorAnswer => ({
  version: "0.1.0",
  epoch,
  uptime_ms,
  not_ready: null,
  sequencer: { position: records, levels: {}, counters: { sequencer_records: records } },
  shards: [0, 1].map((shard) => ({
    shard,
    core: shard + 1,
    ring: { backlog_bytes: 0, capacity_bytes: 1024 },
    levels: { clients: 3 },
    counters: { records },
  })),
  sources: [],
  slow: [],
});

test("rates are differences over the server's uptime", () => {
  const rates = new Rates(answer(3000, 700), answer(1000, 100));
  expect(rates.sequencer("sequencer_records")).toBe(300);
  expect(rates.total("records")).toBe(600);
  expect(rates.level("clients")).toBe(6);
});

test("there is no rate without a second answer, of an unknown counter, or across a restart", () => {
  expect(new Rates(answer(3000, 700), null).total("records")).toBeNaN();
  expect(new Rates(answer(3000, 700), answer(1000, 100)).total("other")).toBeNaN();
  expect(new Rates(answer(3000, 700, 2), answer(1000, 100, 1)).total("records")).toBeNaN();
});

test("counter names become words", () => {
  expect(wordsOf("sequencer_books_refused")).toBe("Books refused");
  expect(wordsOf("stale_instruments")).toBe("Stale instruments");
});

test("a backlog beyond the ring is shown as its capacity and more", () => {
  expect(ringText(1_200_000, 33_554_432)).toBe("1.2 MB");
  expect(ringText(109_000_000, 33_554_432)).toBe("33.6 MB +");
});
