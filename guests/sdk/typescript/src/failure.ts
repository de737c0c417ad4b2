// An uncaught exception as one line for the gateway's log, with the author's own file and line.
//
// The engine names lines of the bundle; `build.mjs` leaves a table from those to the source at the bundle's end, where it moves no line.

declare const __WITGATE_LINES: { files: string[]; lines: Array<[number, number] | 0> } | undefined;

/** `TypeError: x is not a function (src/filter.ts:12)`. */
export function describe(failure: unknown): string {
  if (!(failure instanceof Error)) return typeof failure === "string" ? failure : `thrown: ${JSON.stringify(failure)}`;
  const where = origin(failure.stack ?? "");
  return `${failure.name}: ${failure.message}${where === undefined ? "" : ` (${where})`}`;
}

/** The innermost frame in the author's source; else the innermost that is known. */
function origin(stack: string): string | undefined {
  const table = typeof __WITGATE_LINES === "undefined" ? undefined : __WITGATE_LINES;
  if (table === undefined) return undefined;
  const frames: string[] = [];
  for (const match of stack.matchAll(/:(\d+)(?::\d+)?\)?$/gm)) {
    const entry = table.lines[Number(match[1]) - 1];
    if (entry) frames.push(`${table.files[entry[0]]}:${entry[1]}`);
  }
  return frames.find((frame) => !frame.startsWith("@witgate/")) ?? frames[0];
}
