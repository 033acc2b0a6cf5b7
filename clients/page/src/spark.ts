/**
 * Sparklines: for each row the last {@link POINTS} values, one per {@link EVERY_MS}, in one array of floats.
 *
 * Sampling all rows costs one store per row; the watchlist draws only the rows in view.
 */

import { attribute, part } from "./dom.ts";

/** The values of a sparkline. */
export const POINTS = 60;
export const EVERY_MS = 1000;

export class Sparks {
  #values = new Float32Array(0);
  #counts = new Uint32Array(0);
  #heads = new Uint32Array(0);

  /** Drops all values. */
  clear(): void {
    this.#counts.fill(0);
    this.#heads.fill(0);
  }

  /** Adds one value per row; NaN adds none. */
  sample(values: ArrayLike<number>, rows: number): void {
    this.#grow(rows);
    for (let row = 0; row < rows; row++) {
      const value = values[row];
      if (value === undefined || Number.isNaN(value)) continue;
      const head = this.#heads[row] ?? 0;
      this.#values[row * POINTS + head] = value;
      this.#heads[row] = (head + 1) % POINTS;
      this.#counts[row] = Math.min(POINTS, (this.#counts[row] ?? 0) + 1);
    }
  }

  /** Adds values from before a row's first one, the newest of them last, as far as there is space. */
  fillBefore(row: number, older: readonly number[]): void {
    this.#grow(row + 1);
    const known = this.points(row);
    const all = [...older, ...known].slice(-POINTS);
    this.#values.set(all, row * POINTS);
    this.#counts[row] = all.length;
    this.#heads[row] = all.length % POINTS;
  }

  /** The values of a row, oldest first. */
  points(row: number): Float32Array {
    const count = this.#counts[row] ?? 0;
    const head = this.#heads[row] ?? 0;
    const points = new Float32Array(count);
    for (let at = 0; at < count; at++) {
      points[at] = this.#values[row * POINTS + ((head - count + at + POINTS) % POINTS)] ?? 0;
    }
    return points;
  }

  #grow(rows: number): void {
    if (rows <= this.#counts.length) return;
    const capacity = Math.max(rows, 2 * this.#counts.length, 256);
    const values = new Float32Array(capacity * POINTS);
    values.set(this.#values);
    const counts = new Uint32Array(capacity);
    counts.set(this.#counts);
    const heads = new Uint32Array(capacity);
    heads.set(this.#heads);
    [this.#values, this.#counts, this.#heads] = [values, counts, heads];
  }
}

/** The size of the picture in CSS pixels. */
const WIDTH = 60;
const HEIGHT = 20;

/**
 * A sparkline in the document: a line through the points over the whole width, with a dot at its end.
 *
 * It is a polyline and not a canvas: each canvas would be a layer of its own, which the compositor processes in every
 * frame and for every row, while a sparkline changes once a second.
 */
export class SparkLine {
  readonly #svg: SVGElement;
  readonly #line: SVGElement;
  readonly #dot: SVGElement;

  constructor(svg: SVGElement) {
    this.#svg = svg;
    this.#line = part<SVGElement>(svg, "polyline");
    this.#dot = part<SVGElement>(svg, "circle");
  }

  show(points: Float32Array): void {
    const drawn = points.length < 2 ? [] : coordinates(points);
    const [first, last] = [points[0] ?? 0, points[points.length - 1] ?? 0];
    attribute(this.#svg, "data-move", last > first ? "up" : last < first ? "down" : "");
    attribute(this.#line, "points", drawn.join(" "));
    const [x, y] = drawn.at(-1) ?? [-9, -9];
    attribute(this.#dot, "cx", String(x));
    attribute(this.#dot, "cy", String(y));
  }
}

/** The coordinates of the points, rounded to tenths of a pixel; equal values are drawn in the middle. */
export function coordinates(points: Float32Array): [number, number][] {
  let [low, high] = [Infinity, -Infinity];
  for (const value of points) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  const tenths = (value: number): number => Math.round(value * 10) / 10;
  const [left, width, top, height] = [2, WIDTH - 5, 3, HEIGHT - 6];
  return Array.from(points, (value, at) => [
    tenths(left + (width * at) / (points.length - 1)),
    tenths(high > low ? top + height - ((value - low) / (high - low)) * height : top + height / 2),
  ]);
}
