// Describes an uncaught exception in one line for the gateway's log, with the author's file and
// line.
//
// A stack trace of the engine names lines of the bundle. `build.mjs` appends a table that maps them
// to lines of the source; at the end of the bundle, the table moves no other line.

declare const __WITGATE_LINES: { files: string[]; lines: Array<[number, number] | 0> } | undefined;

/** Returns a message such as `TypeError: x is not a function (src/filter.ts:12)`. */
export function failureMessage(failure: unknown): string {
  if (!(failure instanceof Error)) {
    return typeof failure === "string" ? failure : `thrown: ${JSON.stringify(failure)}`;
  }
  const place = sourceLine(failure.stack ?? "");
  return `${failure.name}: ${failure.message}${place === undefined ? "" : ` (${place})`}`;
}

/** Finds the innermost frame in the author's source or, if there is none, in any known source. */
function sourceLine(stack: string): string | undefined {
  const table = typeof __WITGATE_LINES === "undefined" ? undefined : __WITGATE_LINES;
  if (table === undefined) return undefined;
  const frames: string[] = [];
  for (const match of stack.matchAll(/:(\d+)(?::\d+)?\)?$/gm)) {
    const entry = table.lines[Number(match[1]) - 1];
    if (entry) frames.push(`${table.files[entry[0]]}:${entry[1]}`);
  }
  return frames.find((frame) => !frame.startsWith("@witgate/")) ?? frames[0];
}
