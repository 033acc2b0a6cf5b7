/**
 * Sparklines: for each row the last {@link POINTS} values, one every {@link EVERY_MS}, in one block of floats.
 *
 * A sample of all rows costs a store each; drawing is asked for by the watchlist and touches rows in view only.
 */

import { attribute, part } from "./dom.ts";

const POINTS = 60;
export const EVERY_MS = 1000;

export class Sparks {
  #values = new Float32Array(0);
  #counts = new Uint32Array(0);
  #heads = new Uint32Array(0);

  /** Forgets everything: rows of another epoch are other instruments. */
  clear(): void {
    this.#counts.fill(0);
    this.#heads.fill(0);
  }

  /** Takes one value of each row; rows without one (NaN) get none. */
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
    const room = Math.max(rows, 2 * this.#counts.length, 256);
    const values = new Float32Array(room * POINTS);
    values.set(this.#values);
    const counts = new Uint32Array(room);
    counts.set(this.#counts);
    const heads = new Uint32Array(room);
    heads.set(this.#heads);
    [this.#values, this.#counts, this.#heads] = [values, counts, heads];
  }
}

/** Size of the picture, in units that are pixels of the style sheet. */
const WIDTH = 60;
const HEIGHT = 20;

/**
 * A sparkline in the document: a line through the points over the whole width, with a dot at its end.
 *
 * It is a polyline and no canvas: each canvas is a layer of its own, which the compositor looks at in every frame, and
 * there is one in every row, while this changes once a second.
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
    const drawn = points.length < 2 ? [] : places(points);
    const [first, last] = [points[0] ?? 0, points[points.length - 1] ?? 0];
    attribute(this.#svg, "data-move", last > first ? "up" : last < first ? "down" : "");
    attribute(this.#line, "points", drawn.join(" "));
    const [x, y] = drawn.at(-1) ?? [-9, -9];
    attribute(this.#dot, "cx", String(x));
    attribute(this.#dot, "cy", String(y));
  }
}

/** Points to places in the picture, in tenths of a pixel; equal values lie in the middle. */
export function places(points: Float32Array): [number, number][] {
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
