// The stack of an error, as authors and packages read it: its message, then the lines of the
// source.
//
// A stack of the engine has no message and names lines of the bundle. `snapshot.mjs` appends a
// table that maps them to lines of the source; at the end of the bundle, the table moves no other
// line. The text is made when `stack` is read, because most errors are caught and never shown.

/**
 * JSON: the source files, and for each line of the bundle the columns from which another line of a
 * source applies: column, index of the file, line, one after the other.
 */
declare const __WITGATE_LINES: string | undefined;
type LineTable = { files: string[]; lines: Array<number[] | 0> };

/** A function of the author or of a package that was running. */
type Frame = { name: string; place: string };
type Capture = (target: object, above?: unknown) => void;

const getter = Object.getOwnPropertyDescriptor(Error.prototype, "stack")?.get;
/** The engine's stacks of the objects that `Error.captureStackTrace` was called for. */
const captured = new WeakMap<object, string>();

/** How many causes of an error are shown. */
const CAUSES_MAX = 4;

/** The stack of the engine. */
export function engineFrames(error: Error): string {
  const kept = captured.get(error);
  if (kept !== undefined) return kept;
  const own: unknown = Object.getOwnPropertyDescriptor(error, "stack")?.value;
  return String(own ?? getter?.call(error) ?? "");
}

/** The frames of a stack of the engine that are not of the SDK, innermost first. */
export function sourceFrames(stack: string): Frame[] {
  if (typeof __WITGATE_LINES === "undefined") return [];
  const table = JSON.parse(__WITGATE_LINES) as LineTable;
  const frames: Frame[] = [];
  for (const [, name = "", line, column] of stack.matchAll(/at (?:(.*) \()?[^ ]*user\.js:(\d+):(\d+)\)?$/gm)) {
    const changes = table.lines[Number(line) - 1];
    if (!changes) continue;
    let at = 0;
    while (at + 3 < changes.length && (changes[at + 3] as number) < Number(column)) at += 3;
    const file = table.files[changes[at + 1] as number] as string;
    if (!file.startsWith("@witgate/")) frames.push({ name, place: `${file}:${changes[at + 2]}` });
  }
  return frames;
}

/** Makes `stack` what authors expect. */
export function installStack(): void {
  const descriptor = Object.getOwnPropertyDescriptor(Error.prototype, "stack");
  if (getter === undefined || descriptor === undefined) return;
  const stack = function (this: Error): unknown {
    const frames: unknown = getter.call(this);
    return typeof frames === "string" ? stackText(this, frames) : frames;
  };
  const replace = function (this: object, value: unknown): void {
    Object.defineProperty(this, "stack", { value, writable: true, configurable: true });
  };
  Object.defineProperty(Error.prototype, "stack", { ...descriptor, get: stack, set: replace });
  const constructor = Error as { captureStackTrace?: Capture };
  const original = constructor.captureStackTrace;
  if (original === undefined) return;
  constructor.captureStackTrace = (target, above) => {
    original(target, above);
    const own: unknown = Object.getOwnPropertyDescriptor(target, "stack")?.value;
    if (typeof own !== "string") return;
    captured.set(target, own);
    const get = (): string => stackText(target, own);
    Object.defineProperty(target, "stack", { get, set: replace, configurable: true, enumerable: false });
  };
}

/** Such as `TypeError: no\n    at inner (src/filter.ts:5)`. */
function stackText(error: object, frames: string): string {
  let lines = sourceFrames(frames).map(({ name, place }) => `\n    at ${name === "" ? place : `${name} (${place})`}`);
  let title = "Error";
  try {
    if (error instanceof Error) title = `${error}`;
    // The table follows the code at module level, which so does not have it. The builder shows its
    // errors, and knows only this text.
    if (typeof __WITGATE_LINES === "undefined") {
      lines = [`\n${frames}`];
      for (let inner = error; inner instanceof Error && inner.cause instanceof Error; inner = inner.cause) {
        if (lines.unshift(`; caused by ${inner.cause}`) > CAUSES_MAX) break;
      }
    }
  } catch {
    // A message whose conversion throws.
  }
  return title + lines.join("");
}
