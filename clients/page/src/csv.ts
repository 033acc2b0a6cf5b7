/** CSV (RFC 4180) of trades and bars. Pure. */

/** A number as the page writes it into a file: plain digits, also of a negative number. */
const NUMBER = /^-?\d+(\.\d+)?$/;

/**
 * A cell. Text is always quoted. A spreadsheet computes a text that begins with one of these signs, also a quoted one:
 * an apostrophe before it makes it a text.
 */
function cell(value: string): string {
  if (value === "" || NUMBER.test(value)) return value;
  const safe = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return `"${safe.replaceAll('"', '""')}"`;
}

export function csvText(names: readonly string[], rows: readonly (readonly string[])[]): string {
  return [names, ...rows].map((row) => `${row.map(cell).join(",")}\r\n`).join("");
}

/** The name of a file, of signs that every system takes: `tickcast BTC-USD 1m 2026-12-01 143216.csv`. */
export function fileName(parts: readonly string[], unixMs: number, ending: string): string {
  const time = new Date(unixMs).toISOString().replace("T", " ").replaceAll(":", "").slice(0, 17);
  const safe = parts.map((part) => part.replace(/[^\p{L}\p{N}._-]+/gu, "-").replace(/^\.+/, ""));
  return `${["tickcast", ...safe, time].join(" ")}.${ending}`;
}
