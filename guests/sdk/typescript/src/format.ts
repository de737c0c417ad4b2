// Formats values for the log, whatever they are. Nothing here throws.
//
// This module does not know where the text goes.
import { wellFormed } from "./check.ts";

/** How deep nested objects are shown. */
const DEPTH_MAX = 32;

/** Makes one line of the arguments of `console.log`. The first may hold `%s`, `%d` and so on. */
export function formatLine(args: unknown[], describe: (error: Error) => string): string {
  const [first, ...rest] = args;
  let text = formatValue(first, describe);
  if (typeof first === "string" && rest.length > 0) {
    text = text.replace(/%[sdifjoOc%]/g, (pattern) => {
      if (pattern === "%%") return "%";
      if (rest.length === 0) return pattern;
      const value = rest.shift();
      // The style of a browser's console.
      if (pattern === "%c") return "";
      if (pattern === "%d" || pattern === "%f") return safely(() => String(Number(value)));
      if (pattern === "%i") return safely(() => String(Math.trunc(Number(value))));
      return formatValue(value, describe);
    });
  }
  return [text, ...rest.map((value) => formatValue(value, describe))].join(" ");
}

/** Formats one value. `describe` formats errors. */
export function formatValue(value: unknown, describe: (error: Error) => string): string {
  if (typeof value === "string") return wellFormed(value);
  if (typeof value === "bigint") return `${value}n`;
  if (typeof value === "function") return safely(() => `[function ${value.name}]`);
  if (typeof value !== "object" || value === null) return safely(() => String(value));
  return wellFormed(safely(() => (value instanceof Error ? describe(value) : jsonText(value, describe))));
}

function jsonText(value: object, describe: (error: Error) => string): string {
  const parents: object[] = [];
  const text = JSON.stringify(value, function (this: object, _key, item: unknown) {
    if (typeof item === "bigint" || typeof item === "function") return formatValue(item, describe);
    if (typeof item !== "object" || item === null) return item;
    while (parents.length > 0 && parents.at(-1) !== this) parents.pop();
    if (parents.includes(item)) return "[circular]";
    if (parents.length === DEPTH_MAX) return Array.isArray(item) ? "[array]" : "[object]";
    parents.push(item);
    if (item instanceof Error) return describe(item);
    return item instanceof Map || item instanceof Set ? [...item] : item;
  }) as string | undefined;
  return text ?? String(value);
}

function safely(make: () => string): string {
  try {
    return make();
  } catch (error) {
    try {
      return `[cannot be shown: ${String((error as Error).message)}]`;
    } catch {
      return "[cannot be shown]";
    }
  }
}
