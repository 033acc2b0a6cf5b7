/**
 * Checks of the application's arguments: a wrong one throws in the call that passes it, with its name, the value and
 * what is expected. A number out of range is a RangeError, anything else a TypeError.
 */

/** What a value has to be: a test, its words, and whether it is a number. */
export type Rule = readonly [isRight: (value: any) => unknown, expected: string, isNumber?: true];

export const FUNCTION: Rule = [(value) => typeof value === "function", "a function"];
export const SIGNAL: Rule = [
  (value) => value === null || (typeof value?.aborted === "boolean" && value.addEventListener),
  "an AbortSignal",
];

/** Numbers of a range. */
export function between(least: number, most: number): Rule {
  return [(value) => typeof value === "number" && value >= least && value <= most, `${least} to ${most}`, true];
}

/** Some of these texts. */
export function oneOf(...texts: readonly string[]): Rule {
  return [(value) => texts.includes(value), texts.join(", ")];
}

/** Objects with these methods. */
export function having(...methods: readonly string[]): Rule {
  const isRight = (value: any): boolean => methods.every((method) => typeof value?.[method] === "function");
  return [isRight, `an object with ${methods.join(", ")}`];
}

/** Whole numbers of a range. */
export function count(least: number, most: number): Rule {
  const [isWithin, expected] = between(least, most);
  return [(value) => Number.isInteger(value) && isWithin(value), `a whole number from ${expected}`, true];
}

/** The name of one instrument. */
export const SYMBOL: Rule = [
  (value) => typeof value === "string" && value !== "" && !value.endsWith("*"),
  "the name of one instrument",
];

/** Names, patterns and channels, which the subscription checks. */
export const ANY: Rule = [() => true, ""];

/** What adapters need of a client. */
export const CLIENT = having("subscribe", "onUpdate", "onFrame", "on");

export function verify(name: string, value: unknown, [isRight, expected, isNumber]: Rule): void {
  if (isRight(value)) return;
  const kind = typeof value;
  const shown = kind === "string" ? `"${value}"` : kind === "object" && value ? "an object" : String(value);
  const isOut = isNumber && kind === "number";
  const text = `${name}: ${shown} is ${isOut ? "out of range" : "invalid"}: expected ${expected}`;
  throw isOut ? new RangeError(text) : new TypeError(text);
}

/** Checks options by their names; one that is undefined has its default. */
export function verifyAll(name: string, options: object, rules: Readonly<Record<string, Rule>>): void {
  verify(name, options, [(value) => typeof value === "object" && value, "an object"]);
  for (const [option, value] of Object.entries(options)) {
    verify("option", option, oneOf(...Object.keys(rules)));
    if (value !== undefined) verify(option, value, rules[option]);
  }
}
