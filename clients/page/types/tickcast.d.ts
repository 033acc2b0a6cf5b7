/** What `/tickcast.js` exports: the client's public types, without its sources being compiled by the page's rules. */
import type { Connect } from "../../js/src/types.ts";

export * from "../../js/src/types.ts";
export declare const connect: Connect;
