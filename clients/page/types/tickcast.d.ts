/** The exports of `/tickcast.js`: the client's public types. Its other sources are not checked by the page's rules. */
import type { Connect } from "../../js/src/types.ts";

export * from "../../js/src/types.ts";
export declare const connect: Connect;
export declare const decimal: (mantissa: number | bigint | null, exponent: number, rest?: number) => string;
