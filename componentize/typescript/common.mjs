// What the steps of a build share: where the SDK is, and the error for an author's mistake.
import { readFileSync } from "node:fs";
import { builtinModules } from "node:module";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
export const sdk = resolve(here, "../../guests/sdk/typescript");
export const packageWit = resolve(here, "../../wit");
export const tool = (name) => join(here, "node_modules/.bin", name);

/** Globals that a filter does not have, with what to use in their place. */
export const ABSENT = JSON.parse(readFileSync(join(sdk, "src/absent.json"), "utf8"));
/** Modules of Node.js, with what to use in their place. */
const NODE_MODULES = JSON.parse(readFileSync(join(here, "node-modules.json"), "utf8"));

/** A mistake in the author's source. The message names his file and says what to do. */
export class AuthorError extends Error {}

/** The advice for a module of Node.js, or undefined if `name` is none. */
export function nodeModuleAdvice(name) {
  const plain = name.replace(/^node:/, "");
  const isNode = name.startsWith("node:") || builtinModules.includes(plain);
  if (!isNode) return undefined;
  return NODE_MODULES[plain.split("/")[0]] ?? "a filter has no Node.js: use a package that works in browsers";
}

/** A path as the author writes it: relative to the filter's folder, or `@witgate/filter/…`. */
export function shownPath(path, source) {
  const inSdk = relative(join(sdk, "src"), path);
  return inSdk.startsWith("..") ? relative(source, path) : `@witgate/filter/${inSdk}`;
}

/** The source file and line of a place in the bundle, both counted from 1, or undefined. */
export function sourcePlace({ files, lines }, line, column) {
  const changes = lines[line - 1];
  if (!changes) return undefined;
  let at = 0;
  while (at + 3 < changes.length && changes[at + 3] < column) at += 3;
  return `${files[changes[at + 1]]}:${changes[at + 2]}`;
}
