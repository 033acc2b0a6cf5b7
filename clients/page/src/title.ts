/** The title of the page, in which a tab says without being shown whether its price is current. Pure. */

import type { ConnectionPhase, InstrumentState } from "tickcast";
import { shortText } from "./delay.ts";

export interface Titled {
  /** `BTC-USD 61,837.63`; empty while no instrument is shown. */
  readonly price: string;
  /** The state of the instrument; empty where there is none. */
  readonly state: InstrumentState | "";
  readonly phase: ConnectionPhase;
  /** The stream was live before. */
  readonly wasLive: boolean;
  readonly delayS: number;
}

/** What is wrong comes first, since tabs cut titles at the end: `stale · BTC-USD 61,837.63 · tickcast`. */
export function titleText({ price, state, phase, wasLive, delayS }: Titled): string {
  const delayed = delayS > 0 ? `Delayed ${shortText(delayS)}` : "";
  return [trouble(phase, wasLive, state), delayed, price, "tickcast"].filter((part) => part !== "").join(" · ");
}

function trouble(phase: ConnectionPhase, wasLive: boolean, state: InstrumentState | ""): string {
  if (phase === "stale") return "stale";
  if (phase === "closed" || phase === "waiting" || (phase === "connecting" && wasLive)) return "connection lost";
  if (phase !== "live") return "";
  return WORDS[state] ?? "";
}

const WORDS: Partial<Record<InstrumentState | "", string>> = {
  STALE: "stale",
  RESYNCING: "stale",
  UNKNOWN: "not back",
  HALTED: "halted",
  ENDED: "ended",
};
