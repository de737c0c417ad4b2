// `console`: every method that packages and authors call writes to the gateway's log.
//
// This module does not know when there is a gateway.

/** Writes the arguments of a call at a level. */
type Write = (level: "debug" | "info" | "warn" | "error", args: unknown[]) => void;

/** Makes the console. `milliseconds` is a clock for `time`. */
export function makeConsole(write: Write, milliseconds: () => number): Record<string, (...args: unknown[]) => void> {
  const counts = new Map<string, number>();
  const timers = new Map<string, number>();
  const label = (name: unknown): string => (name === undefined ? "default" : String(name));
  const show = (name: unknown, ...rest: unknown[]): void => {
    const since = timers.get(label(name));
    if (since === undefined) write("warn", [`console.time: there is no timer ${label(name)}`]);
    else write("info", [`${label(name)}: ${(milliseconds() - since).toFixed(3)}ms`, ...rest]);
  };
  const info = (...args: unknown[]): void => write("info", args);
  return {
    debug: (...args) => write("debug", args),
    trace: (...args) => write("debug", args),
    log: info,
    info,
    warn: (...args) => write("warn", args),
    error: (...args) => write("error", args),
    assert: (condition, ...args) => {
      if (!condition) write("error", ["assertion failed:", ...args]);
    },
    dir: (value) => info(value),
    dirxml: info,
    table: (value) => info(value),
    group: (...args) => (args.length > 0 ? info(...args) : undefined),
    groupCollapsed: (...args) => (args.length > 0 ? info(...args) : undefined),
    groupEnd: () => undefined,
    count: (name) => {
      counts.set(label(name), (counts.get(label(name)) ?? 0) + 1);
      info(`${label(name)}: ${counts.get(label(name))}`);
    },
    countReset: (name) => void counts.delete(label(name)),
    time: (name) => void timers.set(label(name), milliseconds()),
    timeLog: show,
    timeEnd: (name) => {
      show(name);
      timers.delete(label(name));
    },
    clear: () => undefined,
  };
}
