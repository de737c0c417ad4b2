// The functions of ECMAScript whose result depends on a locale. QuickJS has no locale data, so they
// give what American English gives in UTC, and refuse other locales and options by name.
//
// The order of texts is that of the Unicode Collation Algorithm for the characters that names and
// titles usually have: by letter, then by accent, then lower case before upper case.
import ABSENT from "./absent.json" with { type: "json" };

/** Replaces the functions of QuickJS. */
export function installLocale(): void {
  replace(Number.prototype, "toLocaleString", formatNumber);
  replace(BigInt.prototype, "toLocaleString", (value: bigint) => grouped(String(value)));
  replace(Date.prototype, "toLocaleDateString", (date: Date) => formatDate(date, true, false));
  replace(Date.prototype, "toLocaleTimeString", (date: Date) => formatDate(date, false, true));
  replace(Date.prototype, "toLocaleString", (date: Date) => formatDate(date, true, true));
  Object.defineProperty(String.prototype, "localeCompare", { configurable: true, writable: true, value: localeCompare });
}

function replace<T>(prototype: object, method: string, format: (value: T) => string): void {
  const valueOf = (prototype as { valueOf(): T }).valueOf;
  const value = function (this: unknown, locales?: unknown, options?: unknown): string {
    const isEnglish = locales === undefined || locales === "en" || locales === "en-US";
    if (!isEnglish || options !== undefined) {
      throw new TypeError(`${method} with a locale or options: ${ABSENT.Intl}`);
    }
    // Throws for a `this` of another type.
    valueOf.call(this);
    return format((this instanceof Date ? this : valueOf.call(this)) as T);
  };
  Object.defineProperty(value, "name", { value: method });
  Object.defineProperty(prototype, method, { configurable: true, writable: true, value });
}

/** A number with at most three digits after the point. */
function formatNumber(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  const sign = value < 0 || Object.is(value, -0) ? "-" : "";
  const size = Math.abs(value);
  if (size === Infinity) return `${sign}∞`;
  const text = size >= 1e21 ? String(BigInt(size)) : size < 1e-6 ? "0" : String(size);
  const [whole = "0", fraction = ""] = text.split(".");
  let digits = BigInt(whole + fraction.slice(0, 3).padEnd(3, "0"));
  if ((fraction[3] ?? "0") >= "5") digits += 1n;
  const rounded = String(digits).padStart(4, "0");
  const rest = rounded.slice(-3).replace(/0+$/, "");
  return `${sign}${grouped(rounded.slice(0, -3))}${rest && `.${rest}`}`;
}

function grouped(digits: string): string {
  return digits.replace(/\B(?=(\d{3})+$)/g, ",");
}

function formatDate(date: Date, hasDay: boolean, hasTime: boolean): string {
  if (Number.isNaN(date.getTime())) return "Invalid Date";
  const two = (number: number): string => String(number).padStart(2, "0");
  const day = `${date.getMonth() + 1}/${date.getDate()}/${date.getFullYear()}`;
  const hour = date.getHours();
  const half = hour < 12 ? "AM" : "PM";
  const time = `${hour % 12 || 12}:${two(date.getMinutes())}:${two(date.getSeconds())} ${half}`;
  return [hasDay && day, hasTime && time].filter(Boolean).join(", ");
}

type Options = { sensitivity?: unknown; numeric?: unknown };

/** Punctuation and symbols in their order; letters and digits come after them. */
const MARKS = "_-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$";
/** Letters that no decomposition leads to their base. */
const LETTERS: Record<string, string> = {
  ...{ ß: "ss", æ: "ae", œ: "oe", ø: "o", đ: "d", ð: "d", ł: "l", þ: "th", ħ: "h", ı: "i", ŋ: "n" },
};

function localeCompare(this: unknown, other: unknown, locales?: unknown, options?: Options): number {
  if (this === undefined || this === null) throw new TypeError("localeCompare of null or undefined");
  const known = [locales].flat().every((locale) => locale === undefined || /^(en|de|und)\b/i.test(String(locale)));
  if (!known) throw new TypeError(`localeCompare with the locale ${String(locales)}: ${ABSENT.Intl}`);
  const [own, its] = [String(this), String(other)];
  if (own === its) return 0;
  const [left, right] = [collationKey(own), collationKey(its)];
  const sensitivity = options?.sensitivity ?? "variant";
  const byAccent = sensitivity === "accent" || sensitivity === "variant";
  const byCase = sensitivity === "case" || sensitivity === "variant";
  const letters = compareLetters(left.letters, right.letters, options?.numeric === true);
  if (letters !== 0) return letters;
  if (byAccent && left.accents !== right.accents) return left.accents < right.accents ? -1 : 1;
  if (byCase && left.cases !== right.cases) return left.cases < right.cases ? -1 : 1;
  return 0;
}

type Key = { letters: string[]; accents: string; cases: string };

/** The base letters of a text, and apart from them what differs between equal letters. */
function collationKey(text: string): Key {
  const key: Key = { letters: [], accents: "", cases: "" };
  for (const character of text.normalize("NFD")) {
    if (/\p{M}/u.test(character)) {
      key.accents += character;
      continue;
    }
    const lower = character.toLowerCase();
    const base = LETTERS[lower] ?? lower;
    key.letters.push(...base);
    key.accents += base === lower ? "\0" : `\0${lower}`;
    key.cases += lower === character ? "0" : "1";
  }
  return key;
}

function compareLetters(left: string[], right: string[], numeric: boolean): number {
  let [i, j] = [0, 0];
  while (i < left.length && j < right.length) {
    const [own, its] = [left[i] as string, right[j] as string];
    if (numeric && isDigit(own) && isDigit(its)) {
      const [first, second] = [digitsFrom(left, i), digitsFrom(right, j)];
      const difference = BigInt(first) - BigInt(second);
      if (difference !== 0n) return difference < 0n ? -1 : 1;
      i += first.length;
      j += second.length;
      continue;
    }
    if (own !== its) return weight(own) < weight(its) ? -1 : 1;
    i += 1;
    j += 1;
  }
  return Math.sign(left.length - i - (right.length - j));
}

/** A number that orders characters: spaces, punctuation, symbols, digits, letters. */
function weight(character: string): number {
  const code = character.codePointAt(0) as number;
  if (/\s/.test(character)) return code;
  const mark = MARKS.indexOf(character);
  if (mark >= 0) return 0x200000 + mark;
  if (/[\p{P}\p{S}]/u.test(character)) return 0x400000 + code;
  return (isDigit(character) ? 0x600000 : 0x800000) + code;
}

function isDigit(character: string | undefined): boolean {
  return character !== undefined && character >= "0" && character <= "9";
}

function digitsFrom(letters: string[], start: number): string {
  let end = start;
  while (isDigit(letters[end])) end += 1;
  return letters.slice(start, end).join("");
}
