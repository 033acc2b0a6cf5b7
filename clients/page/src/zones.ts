/**
 * Time zones of the shown times: that of this computer, UTC, or that of the instrument's venue. Pure.
 *
 * A zone's offset is taken from the browser's time-zone database once per quarter of an hour, in which no zone changes
 * it, and each text is then computed from the offset.
 */

export const ZONE_CHOICES = ["local", "utc", "exchange"] as const;
export type ZoneChoice = (typeof ZONE_CHOICES)[number];

export function isZoneChoice(value: unknown): value is ZoneChoice {
  return (ZONE_CHOICES as readonly unknown[]).includes(value);
}

/** Venues by the zone of their trading day: market identifier codes (ISO 10383), and names in common use. */
const VENUES: Record<string, string> = {
  UTC:
    "BINANCE BINANCEUS BITFINEX BITGET BITMEX BITSTAMP BYBIT COINBASE CRYPTOCOM DERIBIT GATE GATEIO GEMINI HTX HUOBI " +
    "HYPERLIQUID KRAKEN KUCOIN MEXC OKX POLONIEX UPBIT",
  "America/New_York":
    "XNYS XNAS ARCX XASE BATS BATY EDGX EDGA IEXG MEMX XPHL XBOS XCIS XNYM XCEC IFUS " +
    "NYSE NASDAQ ARCA AMEX NYMEX COMEX IEX",
  "America/Chicago": "XCME XCBT XCBO XCBF XCHI GLBX CME CBOT CBOE",
  "America/Toronto": "XTSE XTSX TSX",
  "America/Mexico_City": "XMEX",
  "America/Sao_Paulo": "BVMF B3",
  "Europe/London": "XLON XLME IFEU BATE CHIX TRQX LSE LME ICE",
  "Europe/Dublin": "XDUB",
  "Europe/Lisbon": "XLIS",
  "Europe/Paris": "XPAR XMAT",
  "Europe/Amsterdam": "XAMS",
  "Europe/Brussels": "XBRU",
  "Europe/Berlin": "XETR XFRA XEUR XSTU XGAT XETRA EUREX",
  "Europe/Zurich": "XSWX SIX",
  "Europe/Vienna": "XWBO",
  "Europe/Rome": "XMIL MTAA",
  "Europe/Madrid": "XMAD",
  "Europe/Stockholm": "XSTO",
  "Europe/Copenhagen": "XCSE",
  "Europe/Oslo": "XOSL",
  "Europe/Helsinki": "XHEL",
  "Europe/Warsaw": "XWAR",
  "Europe/Istanbul": "XIST",
  "Africa/Johannesburg": "XJSE",
  "Asia/Jerusalem": "XTAE",
  "Asia/Riyadh": "XSAU",
  "Asia/Kolkata": "XNSE XBOM NSE BSE",
  "Asia/Singapore": "XSES SGX",
  "Asia/Shanghai": "XSHG XSHE",
  "Asia/Hong_Kong": "XHKG XHKF HKEX",
  "Asia/Taipei": "XTAI",
  "Asia/Seoul": "XKRX KRX",
  "Asia/Tokyo": "XTKS XOSE XJPX TSE JPX",
  "Australia/Sydney": "XASX ASX",
  "Pacific/Auckland": "XNZE",
};

const ZONE_OF_VENUE = new Map(
  Object.entries(VENUES).flatMap(([zone, venues]) => venues.split(" ").map((venue) => [venue, zone] as const)),
);

/** The time zone of a venue, `undefined` where it is not known. A simulated venue (`SIM-ARCA`) has that of its model. */
export function venueZone(venue: string): string | undefined {
  return ZONE_OF_VENUE.get(venue.toUpperCase().replace(/^SIM-/, ""));
}

const QUARTER_MS = 900_000;
const two = (value: number): string => String(value).padStart(2, "0");

export class Zone {
  /** An IANA name; `undefined` for the zone of this computer. */
  readonly #name: string | undefined;
  #quarter = NaN;
  #offsetMs = 0;

  constructor(name: string | undefined) {
    this.#name = name;
  }

  /** What is to be added to a time in ms so that the result, read as UTC, is the zone's time of day. */
  offsetMs(unixMs: number): number {
    const quarter = Math.floor(unixMs / QUARTER_MS);
    if (quarter !== this.#quarter) {
      this.#quarter = quarter;
      this.#offsetMs = this.#name === "UTC" ? 0 : this.#lookUp(quarter * QUARTER_MS);
    }
    return this.#offsetMs;
  }

  /** `UTC`, `UTC+1`, `UTC−3:30`: the zone at a time, for the label beside it. */
  label(unixMs: number): string {
    const minutes = Math.round(this.offsetMs(unixMs) / 60_000);
    if (minutes === 0) return "UTC";
    const [hours, rest] = [Math.floor(Math.abs(minutes) / 60), Math.abs(minutes) % 60];
    return `UTC${minutes < 0 ? "−" : "+"}${hours}${rest === 0 ? "" : `:${two(rest)}`}`;
  }

  /** The time of day: `14:03:09`, with `millis` `14:03:09.042`. */
  clock(unixMs: number, millis = false): string {
    const time = new Date(unixMs + this.offsetMs(unixMs));
    const text = `${two(time.getUTCHours())}:${two(time.getUTCMinutes())}:${two(time.getUTCSeconds())}`;
    return millis ? `${text}.${String(time.getUTCMilliseconds()).padStart(3, "0")}` : text;
  }

  /** The day: `9 Dec`, with `year` `9 Dec 2026`. */
  day(unixMs: number, year = false): string {
    const time = new Date(unixMs + this.offsetMs(unixMs));
    const day = `${time.getUTCDate()} ${MONTHS[time.getUTCMonth()] ?? ""}`;
    return year ? `${day} ${time.getUTCFullYear()}` : day;
  }

  /** `Dec`, and `2026` for January. */
  month(unixMs: number): string {
    const time = new Date(unixMs + this.offsetMs(unixMs));
    return time.getUTCMonth() === 0 ? String(time.getUTCFullYear()) : (MONTHS[time.getUTCMonth()] ?? "");
  }

  #lookUp(unixMs: number): number {
    if (this.#name === undefined) return -new Date(unixMs).getTimezoneOffset() * 60_000;
    const parts = new Intl.DateTimeFormat("en", { ...NUMBERS, timeZone: this.#name }).formatToParts(unixMs);
    const of = (type: string): number => Number(parts.find((part) => part.type === type)?.value ?? 0);
    return Date.UTC(of("year"), of("month") - 1, of("day"), of("hour"), of("minute"), of("second")) - unixMs;
  }
}

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const NUMBERS = {
  year: "numeric",
  month: "numeric",
  day: "numeric",
  hour: "numeric",
  minute: "numeric",
  second: "numeric",
  hourCycle: "h23",
} as const;

export const UTC = new Zone("UTC");

/** The zone of a choice; UTC where the time zone of the venue is not known. */
export function zoneOf(choice: ZoneChoice, venue: string): Zone {
  return choice === "local" ? new Zone(undefined) : choice === "utc" ? UTC : new Zone(venueZone(venue) ?? "UTC");
}
