// The parser of the URL Standard. It follows the states of section 4.4 in a few functions.
//
// One part is left out: host names with characters outside ASCII need the tables of UTS #46, which
// would be larger than the interpreter. Such a URL is refused; its `xn--` form is accepted.
// This module does not know the objects of the standard: `url.ts` does.
import { decode, encode } from "../text.ts";

export const SPECIAL: Record<string, string> = { http: "80", https: "443", ws: "80", wss: "443", ftp: "21", file: "" };

const C0 = "";
export const FRAGMENT = ' "<>`';
const QUERY = ' "#<>';
const PATH = ' "#<>?^`{}';
export const USERINFO = PATH + "/:;=@[\\]|";
const FORBIDDEN_HOST = /[\0\t\n\r #/:<>?@[\\\]^|]/;
const FORBIDDEN_DOMAIN = /[\0-\x20"#%/:<>?@[\\\]^`{|}\x7f]/;

/** Percent-encodes control characters, characters outside ASCII, and those of `set`. */
export function percentEncode(text: string, set: string): string {
  let result = "";
  for (const character of text.toWellFormed()) {
    const code = character.codePointAt(0) as number;
    if (code > 0x1f && code < 0x7f && !set.includes(character)) {
      result += character;
      continue;
    }
    for (const byte of encode(character)) result += `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return result;
}

export function percentDecode(text: string): string {
  if (!text.includes("%")) return text;
  const bytes = encode(text);
  const result: number[] = [];
  for (let i = 0; i < bytes.length; i++) {
    const pair = bytes[i] === 0x25 ? String.fromCharCode(bytes[i + 1] ?? 0, bytes[i + 2] ?? 0) : "";
    if (/^[0-9a-fA-F]{2}$/.test(pair)) {
      result.push(parseInt(pair, 16));
      i += 2;
    } else {
      result.push(bytes[i] as number);
    }
  }
  return decode(Uint8Array.from(result));
}

export interface Parts {
  scheme: string;
  username: string;
  password: string;
  /** Null if there is no authority. */
  host: string | null;
  port: string;
  /** A text if the path is opaque, as in `mailto:`. */
  path: string[] | string;
  query: string | null;
  fragment: string | null;
}

export class InvalidUrl extends Error {}

export function parse(input: string, base: Parts | undefined): Parts {
  const text = input.toWellFormed().replace(/^[\0-\x20]+|[\0-\x20]+$/g, "").replace(/[\t\n\r]/g, "");
  const [beforeFragment, fragment] = cutAt(text, "#");
  const found = /^([A-Za-z][A-Za-z0-9+\-.]*):/.exec(beforeFragment);
  const isFragment = fragment !== null && beforeFragment === "";
  const parts =
    found === null ? relative(beforeFragment, base, isFragment) : absolute(found[1] as string, beforeFragment, base);
  parts.fragment = fragment === null ? null : percentEncode(fragment, FRAGMENT);
  return parts;
}

export function cutAt(text: string, separator: string): [string, string | null] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, null] : [text.slice(0, at), text.slice(at + 1)];
}

function absolute(found: string, text: string, base: Parts | undefined): Parts {
  const scheme = found.toLowerCase();
  const rest = text.slice(found.length + 1);
  const parts = empty(scheme);
  if (scheme in SPECIAL) {
    const isSame = base?.scheme === scheme;
    if (scheme === "file") return file(rest, isSame ? base : undefined, parts);
    if (isSame && !/^[/\\]{2}/.test(rest)) return relativeTo(rest, base as Parts);
    return authority(rest.replace(/^[/\\]+/, ""), parts);
  }
  if (rest.startsWith("//")) return authority(rest.slice(2), parts);
  const [path, query] = cutAt(rest, "?");
  parts.query = query === null ? null : encodeQuery(query, scheme);
  if (path.startsWith("/")) parts.path = segments(path.slice(1), [], parts);
  else parts.path = percentEncode(path, C0).replace(/ $/, "%20");
  return parts;
}

function relative(text: string, base: Parts | undefined, isFragment: boolean): Parts {
  if (base === undefined) throw new InvalidUrl("it has no scheme, and there is no base");
  if (typeof base.path === "string") {
    if (!isFragment) throw new InvalidUrl("the base has an opaque path");
    return { ...base };
  }
  return base.scheme === "file" ? file(text, base, empty("file")) : relativeTo(text, base);
}

/** A text without a scheme, or with the scheme of a special base. */
function relativeTo(text: string, base: Parts): Parts {
  const isSpecial = base.scheme in SPECIAL;
  const slashes = isSpecial ? /^[/\\]{2}/ : /^\/\//;
  if (slashes.test(text)) return authority(isSpecial ? text.replace(/^[/\\]+/, "") : text.slice(2), empty(base.scheme));
  const parts: Parts = { ...base, fragment: null };
  return withPath(text, base, parts);
}

function withPath(text: string, base: Parts, parts: Parts): Parts {
  const isSpecial = parts.scheme in SPECIAL;
  const [path, query] = cutAt(text, "?");
  if (query !== null || path !== "") parts.query = query === null ? null : encodeQuery(query, parts.scheme);
  if (path === "") return parts;
  const isRooted = path.startsWith("/") || (isSpecial && path.startsWith("\\"));
  const start = isRooted ? [] : (base.path as string[]).slice(0, -1);
  parts.path = segments(isRooted ? path.slice(1) : path, start, parts);
  return parts;
}

function file(text: string, base: Parts | undefined, parts: Parts): Parts {
  parts.host = "";
  if (/^[/\\]{2}/.test(text)) {
    const end = text.slice(2).search(/[/\\?]/);
    const host = end < 0 ? text.slice(2) : text.slice(2, end + 2);
    if (/^[A-Za-z][:|]$/.test(host)) return withPath(`/${text.slice(2)}`, parts, parts);
    const parsed = host === "" ? "" : parseHost(host, true);
    parts.host = parsed === "localhost" ? "" : parsed;
    parts.path = [""];
    return withPath(end < 0 ? "/" : rooted(text.slice(end + 2)), parts, parts);
  }
  if (base === undefined) return withPath(rooted(text), parts, parts);
  return withPath(text, base, { ...base, fragment: null });
}

/** The part after the authority, which begins with a slash unless it is a query. */
function rooted(text: string): string {
  return /^[/\\]/.test(text) ? text : `/${text}`;
}

function authority(text: string, parts: Parts): Parts {
  const isSpecial = parts.scheme in SPECIAL;
  const end = text.search(isSpecial ? /[/\\?]/ : /[/?]/);
  let host = end < 0 ? text : text.slice(0, end);
  const rest = end < 0 ? "" : text.slice(end);
  const at = host.lastIndexOf("@");
  if (at >= 0) {
    const [username, password] = cutAt(host.slice(0, at), ":");
    parts.username = percentEncode(username, USERINFO);
    parts.password = percentEncode(password ?? "", USERINFO);
    host = host.slice(at + 1);
    if (host === "") throw new InvalidUrl("it has credentials but no host");
  }
  const port = /:([^:\]]*)$/.exec(host);
  if (port !== null) {
    host = host.slice(0, port.index);
    if (host === "") throw new InvalidUrl("it has a port but no host");
    parts.port = parsePort(port[1] as string, parts.scheme);
  }
  if (isSpecial && host === "") throw new InvalidUrl("it has no host");
  parts.host = host === "" ? "" : parseHost(host, isSpecial);
  const [path, query] = cutAt(rest, "?");
  parts.query = query === null ? null : encodeQuery(query, parts.scheme);
  if (path !== "") parts.path = segments(path.slice(1), [], parts);
  else parts.path = isSpecial ? [""] : [];
  return parts;
}

export function parsePort(text: string, scheme: string): string {
  if (text === "") return "";
  if (!/^[0-9]+$/.test(text) || Number(text) > 65535) throw new InvalidUrl(`its port ${JSON.stringify(text)} is invalid`);
  const port = String(Number(text));
  return port === SPECIAL[scheme] ? "" : port;
}

export function parseHost(host: string, isSpecial: boolean): string {
  if (host.startsWith("[")) {
    if (!host.endsWith("]")) throw new InvalidUrl("its IPv6 address has no ]");
    return `[${ipv6(host.slice(1, -1))}]`;
  }
  if (!isSpecial) {
    if (FORBIDDEN_HOST.test(host)) throw new InvalidUrl("its host has a forbidden character");
    return percentEncode(host, C0);
  }
  const domain = percentDecode(host).toLowerCase();
  if (/[^\0-\x7f]/.test(domain)) throw new InvalidUrl("its host is not ASCII: write its xn-- form");
  if (domain === "" || FORBIDDEN_DOMAIN.test(domain)) throw new InvalidUrl("its host has a forbidden character");
  return ipv4(domain) ?? domain;
}

/** The IPv4 address that a host ending in a number stands for, or undefined. */
function ipv4(host: string): string | undefined {
  const labels = host.split(".");
  if (labels.at(-1) === "" && labels.length > 1) labels.pop();
  if (!/^([0-9]+|0[xX][0-9a-fA-F]*)$/.test(labels.at(-1) as string)) return undefined;
  const numbers = labels.map((label) => {
    const radix = /^0x/i.test(label) ? 16 : label.length > 1 && label.startsWith("0") ? 8 : 10;
    const digits = radix === 16 ? label.slice(2) : radix === 8 ? label.slice(1) : label;
    const valid = radix === 16 ? /^[0-9a-f]*$/i : radix === 8 ? /^[0-7]*$/ : /^[0-9]+$/;
    if (!valid.test(digits)) throw new InvalidUrl("its IPv4 address is invalid");
    return digits === "" ? 0 : parseInt(digits, radix);
  });
  const last = numbers.pop() as number;
  if (numbers.length > 3 || numbers.some((number) => number > 255) || last >= 256 ** (4 - numbers.length)) {
    throw new InvalidUrl("its IPv4 address is invalid");
  }
  const address = numbers.reduce((sum, number, index) => sum + number * 256 ** (3 - index), last);
  return [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join(".");
}

function ipv6(text: string): string {
  const bad = (): never => {
    throw new InvalidUrl("its IPv6 address is invalid");
  };
  const halves = text.split("::");
  if (halves.length > 2) bad();
  const groups = (part: string): number[] => {
    if (part === "") return [];
    const pieces = part.split(":");
    return pieces.flatMap((piece, index) => {
      if (index === pieces.length - 1 && piece.includes(".")) {
        const bytes = piece.split(".").map((byte) => (/^(0|[1-9][0-9]{0,2})$/.test(byte) ? Number(byte) : 256));
        if (bytes.length !== 4 || bytes.some((byte) => byte > 255)) bad();
        const [a, b, c, d] = bytes as [number, number, number, number];
        return [a * 256 + b, c * 256 + d];
      }
      return /^[0-9a-fA-F]{1,4}$/.test(piece) ? [parseInt(piece, 16)] : bad();
    });
  };
  if (halves.length === 2 && (halves[0] as string).includes(".")) bad();
  const head = groups(halves[0] as string);
  const tail = halves.length === 2 ? groups(halves[1] as string) : [];
  const missing = 8 - head.length - tail.length;
  if (halves.length === 2 ? missing < 1 : missing !== 0) bad();
  const all = [...head, ...new Array<number>(missing).fill(0), ...tail];
  let [best, length] = [-1, 1];
  for (let i = 0; i < 8; i++) {
    let end = i;
    while (end < 8 && all[end] === 0) end++;
    if (end - i > length) [best, length] = [i, end - i];
  }
  const hex = (list: number[]): string => list.map((group) => group.toString(16)).join(":");
  return best < 0 ? hex(all) : `${hex(all.slice(0, best))}::${hex(all.slice(best + length))}`;
}

export function segments(text: string, start: string[], parts: Parts): string[] {
  const isSpecial = parts.scheme in SPECIAL;
  const path = [...start];
  const pieces = text.split(isSpecial ? /[/\\]/ : /\//);
  pieces.forEach((piece, index) => {
    const isLast = index === pieces.length - 1;
    const plain = piece.replace(/%2e/gi, ".");
    if (plain === "..") {
      const keepsDrive = parts.scheme === "file" && path.length === 1 && /^[A-Za-z]:$/.test(path[0] as string);
      if (!keepsDrive) path.pop();
      if (isLast) path.push("");
    } else if (plain === ".") {
      if (isLast) path.push("");
    } else {
      const isDrive = parts.scheme === "file" && path.length === 0 && /^[A-Za-z][:|]$/.test(piece);
      path.push(isDrive ? `${piece.charAt(0)}:` : percentEncode(piece, PATH));
    }
  });
  return path;
}

export function encodeQuery(query: string, scheme: string): string {
  return percentEncode(query, scheme in SPECIAL ? `${QUERY}'` : QUERY);
}

function empty(scheme: string): Parts {
  return { scheme, username: "", password: "", host: null, port: "", path: [], query: null, fragment: null };
}

export function pathText({ path }: Parts): string {
  return typeof path === "string" ? path : path.map((segment) => `/${segment}`).join("");
}
