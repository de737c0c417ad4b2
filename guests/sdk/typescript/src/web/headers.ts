// `Headers` by the Fetch Standard, and the rules for names and values that it shares with filters.
import { checkedText, shown } from "../check.ts";

const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;

function normalName(name: unknown): string {
  if (typeof name === "string" && TOKEN.test(name)) return name.toLowerCase();
  throw new TypeError(`Headers: ${shown(name)} is not a header name`);
}

function normalValue(name: string, value: unknown): string {
  const text = checkedText(`Headers: the value of ${name}`, value).replace(/^[\t\n\r ]+|[\t\n\r ]+$/g, "");
  if (/[\0\r\n]/.test(text)) throw new TypeError(`Headers: the value of ${name} has a line break or NUL`);
  return text;
}

type Init = Iterable<readonly [string, unknown]> | Record<string, unknown>;

export class Headers {
  /** Lines in the order in which they were added; names in lower case. */
  #lines: Array<[string, string]> = [];

  constructor(init?: Init) {
    if (init === undefined) return;
    if (typeof init !== "object" || init === null) throw new TypeError(`Headers: ${shown(init)} is not a record`);
    const pairs = Symbol.iterator in init ? (init as Iterable<readonly [string, unknown]>) : Object.entries(init);
    for (const pair of pairs) {
      if (pair?.length !== 2) throw new TypeError("Headers: a list must hold pairs of name and value");
      this.append(pair[0], pair[1]);
    }
  }

  append(name: string, value: unknown): void {
    const key = normalName(name);
    this.#lines.push([key, normalValue(key, value)]);
  }
  delete(name: string): void {
    const key = normalName(name);
    this.#lines = this.#lines.filter(([own]) => own !== key);
  }
  get(name: string): string | null {
    const key = normalName(name);
    const values = this.#lines.filter(([own]) => own === key).map(([, value]) => value);
    return values.length === 0 ? null : values.join(", ");
  }
  getSetCookie(): string[] {
    return this.#lines.filter(([name]) => name === "set-cookie").map(([, value]) => value);
  }
  has(name: string): boolean {
    const key = normalName(name);
    return this.#lines.some(([own]) => own === key);
  }
  set(name: string, value: unknown): void {
    const key = normalName(name);
    const text = normalValue(key, value);
    const at = this.#lines.findIndex(([own]) => own === key);
    if (at < 0) this.#lines.push([key, text]);
    else this.#lines = this.#lines.filter(([own], index) => own !== key || index === at).with(at, [key, text]);
  }
  forEach(call: (value: string, name: string, headers: Headers) => void, thisArg?: unknown): void {
    for (const [name, value] of this) call.call(thisArg, value, name, this);
  }
  *entries(): IterableIterator<[string, string]> {
    for (const name of [...new Set(this.#lines.map(([own]) => own))].sort()) {
      if (name === "set-cookie") for (const value of this.getSetCookie()) yield [name, value];
      else yield [name, this.get(name) as string];
    }
  }
  *keys(): IterableIterator<string> {
    for (const [name] of this) yield name;
  }
  *values(): IterableIterator<string> {
    for (const [, value] of this) yield value;
  }
  [Symbol.iterator](): IterableIterator<[string, string]> {
    return this.entries();
  }
  get [Symbol.toStringTag](): string {
    return "Headers";
  }
}
