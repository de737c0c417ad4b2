// Describes an uncaught exception in one line for the gateway's log, with the author's file and
// line.
import ABSENT from "./absent.json" with { type: "json" };
import { formatLine, formatValue } from "./format.ts";
import { engineFrames, sourceFrames } from "./stack.ts";

/** The longest text. The gateway cuts lines of its log after 4 KiB. */
const LENGTH_MAX = 3000;
/** The longest message of one error: its place comes after it. */
const MESSAGE_MAX = 800;
/** How many causes of a cause, and errors of an AggregateError, are shown. */
const DEPTH_MAX = 4;

/**
 * Returns a message such as `TypeError: x is not a function (src/filter.ts:12)`, followed by the
 * causes. `thrower` is the handler, for a failure that has no line of the author's source.
 */
export function failureMessage(failure: unknown, thrower?: string): string {
  let text = typeof failure === "string" ? failure : `thrown: ${formatValue(failure, describeError)}`;
  if (isError(failure)) {
    text = formatValue(failure, (error) => describeError(error, 0, thrower));
    if (text.startsWith("[cannot be shown")) text += ` (${thrower ?? "unknown"})`;
  } else if (thrower !== undefined) {
    text = `${shortened(text)} (${thrower}: throw an Error, which knows its line)`;
  }
  return text.length <= LENGTH_MAX ? text.toWellFormed() : `${text.slice(0, LENGTH_MAX).toWellFormed()}…`;
}

/** Also for a proxy that throws when it is asked. */
function isError(value: unknown): value is Error {
  try {
    return value instanceof Error;
  } catch {
    return false;
  }
}

function shortened(text: string): string {
  return text.length <= MESSAGE_MAX ? text : `${text.slice(0, MESSAGE_MAX)}…`;
}

/** The text of one argument of `log.info`. */
export function logText(message: unknown): string {
  return formatValue(message, describeError);
}

/** The text of the arguments of `console.log`. */
export function consoleText(args: unknown[]): string {
  return formatLine(args, describeError);
}

function describeError(error: Error, depth = 0, thrower?: string): string {
  const place = sourceLine(engineFrames(error)) ?? thrower;
  const advice = adviceFor(error);
  const message = shortened(`${error.message}`.replace("__WITGATE_NO_", ""));
  let text = `${shortened(`${error.name}`)}: ${message}${advice}${place === undefined ? "" : ` (${place})`}`;
  if (depth >= DEPTH_MAX) return text;
  const nested = (value: unknown): string =>
    value instanceof Error ? describeError(value, depth + 1) : formatValue(value, describeError);
  if (error.cause !== undefined) text += `; caused by ${nested(error.cause)}`;
  const errors = (error as { errors?: unknown }).errors;
  if (Array.isArray(errors)) text += `; errors: ${errors.slice(0, DEPTH_MAX).map(nested).join("; ")}`;
  return text;
}

/** What to use in place of a global that a filter does not have. */
function adviceFor(error: Error): string {
  if (`${error.message}`.startsWith("Dynamic require of ")) {
    return ": a filter loads nothing in a call: import modules by names that stand in the source";
  }
  if (!(error instanceof ReferenceError)) return "";
  const name = /^'?(?:__WITGATE_NO_)?(\w+)'? is not defined/.exec(error.message)?.[1] ?? "";
  return Object.hasOwn(ABSENT, name) ? `: ${(ABSENT as Record<string, string>)[name]}` : "";
}

/**
 * Finds the innermost frame in the author's source. If it was called from a package, the line in
 * the package comes first. Undefined if only the SDK is on the stack.
 */
function sourceLine(stack: string): string | undefined {
  const frames = sourceFrames(stack).map(({ place }) => place);
  const own = frames.find((frame) => frame.startsWith("src/"));
  const first = frames[0];
  if (own === undefined || first === undefined || own === first) return own ?? first;
  return `${first}, called from ${own}`;
}
