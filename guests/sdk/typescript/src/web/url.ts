// URL and URLSearchParams by the URL Standard.
//
// This module does not know filters.
import {
  cutAt,
  encodeQuery,
  FRAGMENT,
  parse,
  parseHost,
  parsePort,
  type Parts,
  pathText,
  percentDecode,
  percentEncode,
  InvalidUrl,
  segments,
  SPECIAL,
  USERINFO,
} from "./url-parser.ts";

/** Gives a URL its parameters, and the parameters their URL, without public properties. */
let connect: (parameters: URLSearchParams, update: (query: string) => void) => void;
let reload: (parameters: URLSearchParams, query: string) => void;

type ParamsInit = string | Iterable<readonly [unknown, unknown]> | Record<string, unknown> | undefined;

export class URLSearchParams {
  #list: Array<[string, string]> = [];
  #update: ((query: string) => void) | undefined = undefined;

  static {
    connect = (parameters, update) => (parameters.#update = update);
    reload = (parameters, query) => (parameters.#list = parseForm(query));
  }

  constructor(init: ParamsInit = "") {
    if (typeof init === "object" && init !== null && Symbol.iterator in init) {
      for (const pair of init as Iterable<readonly [unknown, unknown]>) {
        const items = [...(pair as Iterable<unknown>)];
        if (items.length !== 2) throw new TypeError("URLSearchParams: a list must hold pairs of name and value");
        this.#list.push([usv(items[0]), usv(items[1])]);
      }
    } else if (typeof init === "object" && init !== null) {
      this.#list = Object.entries(init).map(([name, value]) => [usv(name), usv(value)]);
    } else {
      this.#list = parseForm(usv(init).replace(/^\?/, ""));
    }
  }

  get size(): number {
    return this.#list.length;
  }
  append(name: unknown, value: unknown): void {
    requireTwo(arguments.length, "append");
    this.#list.push([usv(name), usv(value)]);
    this.#changed();
  }
  delete(name: unknown, value?: unknown): void {
    const key = usv(name);
    const text = value === undefined ? undefined : usv(value);
    this.#list = this.#list.filter(([own, item]) => own !== key || (text !== undefined && item !== text));
    this.#changed();
  }
  get(name: unknown): string | null {
    const key = usv(name);
    return this.#list.find(([own]) => own === key)?.[1] ?? null;
  }
  getAll(name: unknown): string[] {
    const key = usv(name);
    return this.#list.filter(([own]) => own === key).map(([, value]) => value);
  }
  has(name: unknown, value?: unknown): boolean {
    const key = usv(name);
    const text = value === undefined ? undefined : usv(value);
    return this.#list.some(([own, item]) => own === key && (text === undefined || item === text));
  }
  set(name: unknown, value: unknown): void {
    requireTwo(arguments.length, "set");
    const key = usv(name);
    const at = this.#list.findIndex(([own]) => own === key);
    if (at < 0) this.#list.push([key, usv(value)]);
    else this.#list = this.#list.filter(([own], index) => own !== key || index === at).with(at, [key, usv(value)]);
    this.#changed();
  }
  sort(): void {
    this.#list.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
    this.#changed();
  }
  forEach(call: (value: string, name: string, parameters: URLSearchParams) => void, thisArg?: unknown): void {
    for (const [name, value] of this) call.call(thisArg, value, name, this);
  }
  *entries(): IterableIterator<[string, string]> {
    for (let i = 0; i < this.#list.length; i++) yield [...(this.#list[i] as [string, string])];
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
  toString(): string {
    return this.#list.map(([name, value]) => `${formEncode(name)}=${formEncode(value)}`).join("&");
  }
  get [Symbol.toStringTag](): string {
    return "URLSearchParams";
  }
  #changed(): void {
    this.#update?.(this.toString());
  }
}

/** A forgotten value is a mistake; the text `undefined` is not what its author wanted. */
function requireTwo(count: number, method: string): void {
  if (count < 2) throw new TypeError(`URLSearchParams.${method} needs a name and a value`);
}

function usv(value: unknown): string {
  return `${value as string}`.toWellFormed();
}

function parseForm(query: string): Array<[string, string]> {
  return query
    .split("&")
    .filter((piece) => piece !== "")
    .map((piece) => {
      const [name, value] = cutAt(piece, "=");
      return [percentDecode(name.replace(/\+/g, " ")), percentDecode((value ?? "").replace(/\+/g, " "))];
    });
}

function formEncode(text: string): string {
  return encodeURIComponent(text)
    .replace(/[!'()~]/g, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`)
    .replace(/%20/g, "+");
}

/** The part of a host that a setter reads: what follows it is ignored. */
function authority(value: unknown, { scheme }: Parts): string {
  return `${value as string}`.split(scheme in SPECIAL ? /[/?#\\]/ : /[/?#]/)[0] as string;
}

function parsed(input: unknown, base: unknown): Parts {
  const baseParts = base === undefined ? undefined : parse(usv(base), undefined);
  return parse(usv(input), baseParts);
}

export class URL {
  #parts: Parts;
  readonly #parameters: URLSearchParams;

  constructor(input: unknown, base?: unknown) {
    try {
      this.#parts = parsed(input, base);
    } catch (error) {
      if (!(error instanceof InvalidUrl)) throw error;
      throw new TypeError(`Invalid URL ${JSON.stringify(usv(input).slice(0, 200))}: ${error.message}`);
    }
    this.#parameters = new URLSearchParams(this.#parts.query ?? "");
    connect(this.#parameters, (query) => (this.#parts.query = query === "" ? null : query));
  }

  static canParse(input: unknown, base?: unknown): boolean {
    return URL.parse(input, base) !== null;
  }
  static parse(input: unknown, base?: unknown): URL | null {
    try {
      return new URL(input, base);
    } catch {
      return null;
    }
  }

  get href(): string {
    const { scheme, host, query, fragment } = this.#parts;
    const text = pathText(this.#parts);
    const looksLikeHost = host === null && typeof this.#parts.path !== "string" && text.startsWith("//");
    const front = host === null ? (looksLikeHost ? "/." : "") : `//${this.#credentials()}${this.host}`;
    const back = `${query === null ? "" : `?${query}`}${fragment === null ? "" : `#${fragment}`}`;
    return `${scheme}:${front}${text}${back}`;
  }
  set href(value: string) {
    const other = new URL(value);
    this.#parts = other.#parts;
    reload(this.#parameters, this.#parts.query ?? "");
  }
  get origin(): string {
    return this.#parts.scheme in SPECIAL && this.#parts.scheme !== "file" ? `${this.protocol}//${this.host}` : "null";
  }
  get protocol(): string {
    return `${this.#parts.scheme}:`;
  }
  set protocol(value: string) {
    const scheme = /^([A-Za-z][A-Za-z0-9+\-.]*)/.exec(`${value}`)?.[1]?.toLowerCase();
    if (scheme === undefined || scheme in SPECIAL !== this.#parts.scheme in SPECIAL) return;
    this.#parts.scheme = scheme;
    if (this.#parts.port === SPECIAL[scheme]) this.#parts.port = "";
  }
  get username(): string {
    return this.#parts.username;
  }
  set username(value: string) {
    if (this.#parts.host) this.#parts.username = percentEncode(`${value}`, USERINFO);
  }
  get password(): string {
    return this.#parts.password;
  }
  set password(value: string) {
    if (this.#parts.host) this.#parts.password = percentEncode(`${value}`, USERINFO);
  }
  get host(): string {
    return `${this.hostname}${this.#parts.port === "" ? "" : `:${this.#parts.port}`}`;
  }
  set host(value: string) {
    const found = /^(\[[^\]]*\]|[^:]*)(?::([0-9]*))?/.exec(authority(value, this.#parts)) as RegExpExecArray;
    this.#change((parts) => (parts.host = parseHost(found[1] as string, parts.scheme in SPECIAL)));
    // A port that is too large does not undo the change of the host.
    if (found[2]) this.#change((parts) => (parts.port = parsePort(found[2] as string, parts.scheme)));
  }
  get hostname(): string {
    return this.#parts.host ?? "";
  }
  set hostname(value: string) {
    this.#change((parts) => (parts.host = parseHost(authority(value, parts), parts.scheme in SPECIAL)));
  }
  get port(): string {
    return this.#parts.port;
  }
  set port(value: string) {
    const digits = /^[0-9]*/.exec(`${value}`)?.[0] ?? "";
    if (digits !== "" || `${value}` === "") this.#change((parts) => (parts.port = parsePort(digits, parts.scheme)));
  }
  get pathname(): string {
    return pathText(this.#parts);
  }
  set pathname(value: string) {
    if (typeof this.#parts.path === "string") return;
    this.#parts.path = segments(`${value}`.replace(/^[/\\]/, ""), [], this.#parts);
  }
  get search(): string {
    return this.#parts.query ? `?${this.#parts.query}` : "";
  }
  set search(value: string) {
    const text = `${value}`.replace(/^\?/, "");
    this.#parts.query = `${value}` === "" ? null : encodeQuery(text, this.#parts.scheme);
    reload(this.#parameters, this.#parts.query ?? "");
  }
  get searchParams(): URLSearchParams {
    return this.#parameters;
  }
  get hash(): string {
    return this.#parts.fragment ? `#${this.#parts.fragment}` : "";
  }
  set hash(value: string) {
    const text = `${value}`.replace(/^#/, "");
    this.#parts.fragment = `${value}` === "" ? null : percentEncode(text, FRAGMENT);
  }
  toString(): string {
    return this.href;
  }
  toJSON(): string {
    return this.href;
  }
  get [Symbol.toStringTag](): string {
    return "URL";
  }

  #credentials(): string {
    const { username, password } = this.#parts;
    if (username === "" && password === "") return "";
    return `${username}${password === "" ? "" : `:${password}`}@`;
  }

  /** Changes a part. A value that the standard does not accept changes nothing. */
  #change(change: (parts: Parts) => void): void {
    if (typeof this.#parts.path === "string" || this.#parts.host === null) return;
    const copy = { ...this.#parts };
    try {
      change(copy);
    } catch (error) {
      if (!(error instanceof InvalidUrl)) throw error;
      return;
    }
    this.#parts = copy;
  }
}
