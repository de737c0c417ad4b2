// Bundles a filter into one JavaScript module: the SDK, the source, its packages, the line table.
//
// `async` functions become generators that use the global Promise, because only the jobs of the
// SDK's Promise are run (guests/sdk/typescript/src/web/promise.ts).
import { existsSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { ABSENT, AuthorError, nodeModuleAdvice, sdk, shownPath, sourcePlace } from "./common.mjs";

/** Globals that the types have and QuickJS lacks. Uses are renamed, so that they can be found. */
const TYPED_BUT_ABSENT = ["Intl", "Atomics"];
/** Services of the gateway, each a module of the SDK. */
const SERVICES = ["keyvalue", "limiter", "http", "crypto"];
/** Services that come with globals, for packages that expect them. */
const SERVICE_GLOBALS = ["http", "crypto"];
const RENAMED = /(typeof )?\b__WITGATE_NO_(\w+)/g;

/**
 * Returns the code, the line table, and the paths of all files that went in and are not in the
 * source folder proper.
 */
export async function bundle(source, handlers, services, work) {
  const { build } = await import("esbuild");
  const define = { "process.env.NODE_ENV": '"production"', global: "globalThis", self: "globalThis" };
  for (const name of TYPED_BUT_ABSENT) define[name] = `__WITGATE_NO_${name}`;
  const result = await build({
    stdin: { contents: entry(source, handlers, services), resolveDir: source, sourcefile: "entry.ts", loader: "ts" },
    bundle: true,
    write: false,
    metafile: true,
    format: "esm",
    charset: "utf8",
    target: "es2022",
    // An `import()` of a computed name would be left to the engine, whose promise never settles.
    supported: { "async-await": false, "async-generator": false, "for-await": false, "dynamic-import": false },
    sourcemap: "external",
    outfile: join(work, "filter.js"),
    external: ["witgate:*"],
    alias: { "@witgate/filter": join(sdk, "src/index.ts"), ...serviceModules() },
    define,
    plugins: [refuseNodeModules],
    legalComments: "none",
    logLevel: "silent",
    absWorkingDir: source,
    tsconfigRaw: {},
  }).catch((error) => error);
  if (result.errors?.length) throw new AuthorError(result.errors.map(errorLine).join("\n"));
  if (result instanceof Error) throw result;
  const inputs = Object.keys(result.metafile.inputs);
  const text = result.outputFiles.find((file) => file.path.endsWith(".js")).text;
  for (const service of SERVICES) {
    if (services.includes(service) || !text.includes(`"witgate:gateway/${service}@`)) continue;
    const advice = `add \`services = ["${service}"]\``;
    const what = `src/filter.ts: imports @witgate/filter/${service}, which filter.toml does not request`;
    throw new AuthorError(`${what}: ${advice}`);
  }
  const map = JSON.parse(result.outputFiles.find((file) => file.path.endsWith(".map")).text);
  const table = await lineTable(map, source, work);
  const code = withoutPaths(text, inputs);
  refuseAbsent(code, table);
  return { code, table, inputs: outside(inputs, source) };
}

function serviceModules() {
  return Object.fromEntries(SERVICES.map((name) => [`@witgate/filter/${name}`, join(sdk, `src/${name}.ts`)]));
}

/**
 * The entry of the bundle. The globals come first: they replace the clock and randomness before the
 * author's module runs.
 */
function entry(source, handlers, services) {
  const filter = JSON.stringify(join(source, "src/filter.ts"));
  const module = (name) => JSON.stringify(join(sdk, "src", name));
  let text = `import ${module("globals.ts")};\n`;
  for (const service of services) {
    if (SERVICE_GLOBALS.includes(service)) text += `import ${module(`${service}-globals.ts`)};\n`;
  }
  text += `import * as filter from ${filter};\n`;
  text += `import * as sdk from ${module("entry.ts")};\n`;
  for (const { phase, name, line, hasBody } of handlers) {
    const title = JSON.stringify(`${name}, src/filter.ts:${line}`);
    if (phase === "request") {
      text += `import * as edit from "witgate:gateway/request-edit@0.1.0";\n`;
      text += `export const requestHandler = sdk.requestHandler(filter.onRequest, edit, ${title}, ${hasBody});\n`;
    } else {
      text += `import { Response } from ${module("response.ts")};\n`;
      const call = `sdk.responseHandler(filter.onResponse, new Response(${hasBody}), ${title})`;
      text += `export const responseHandler = ${call};\n`;
    }
  }
  return `${text}sdk.endModule();\n`;
}

/**
 * Refuses modules of Node.js by name, unless a package of that name is installed. A `require`
 * becomes an exception when it runs, because packages try it to find out where they are.
 */
const refuseNodeModules = {
  name: "node-modules",
  setup(build) {
    build.onResolve({ filter: /^[a-z0-9_:/]+$/ }, async ({ path, kind, importer, resolveDir, pluginData }) => {
      const advice = pluginData?.isProbe ? undefined : nodeModuleAdvice(path);
      if (advice === undefined) return undefined;
      const found = await build.resolve(path, { kind, importer, resolveDir, pluginData: { isProbe: true } });
      // Undefined lets esbuild resolve it again: the `browser` field of a package may disable it.
      if (found.errors.length === 0 && !found.external) return undefined;
      const text = `${path} is a module of Node.js, which a filter does not have: ${advice}`;
      if (kind === "require-call") return { path, namespace: "absent", pluginData: { text } };
      return { errors: [{ text }] };
    });
    build.onLoad({ filter: /.*/, namespace: "absent" }, ({ pluginData }) => ({
      contents: `throw Object.assign(new Error(${JSON.stringify(pluginData.text)}), { code: "MODULE_NOT_FOUND" });`,
    }));
  },
};

/** An error of esbuild as a line for the author. */
function errorLine({ location, text }) {
  const isAwait = text.startsWith("Top-level await");
  const shown = isAwait ? "a filter has no await at module level: move it into the handler, which may be async" : text;
  return `${location ? `${location.file}:${location.line}: ` : ""}${shown}`;
}

/**
 * The source files, and for each line of the bundle the columns from which another line of a source
 * applies: column, index of the file, line, one after the other. 0 if nothing is known, and for the
 * SDK, whose lines no message names.
 */
async function lineTable(map, source, work) {
  const { decode } = await import("@jridgewell/sourcemap-codec");
  const files = map.sources.map((file) => shownPath(resolve(work, file), source));
  const lines = decode(map.mappings).map((segments) => {
    const changes = [];
    for (const [column, file, line] of segments) {
      // A module that stands for one of Node.js has no source.
      if (file === undefined || /^@witgate\/|(^|\/)absent:/.test(files[file])) continue;
      const isSame = changes.at(-2) === file && changes.at(-1) === line + 1;
      if (!isSame) changes.push(column, file, line + 1);
    }
    return changes.length === 0 ? 0 : changes;
  });
  return { files, lines };
}

/**
 * Removes the comments in which esbuild names each file by its path, because the same source must
 * make the same bytes in every folder. The lines stay.
 */
function withoutPaths(code, inputs) {
  const comments = new Set(inputs.map((path) => `// ${path}`));
  return code
    .split("\n")
    .map((line) => (comments.has(line.trimStart()) ? "//" : line))
    .join("\n");
}

/** Refuses globals in the author's files that the types have and QuickJS lacks. */
function refuseAbsent(code, { files, lines }) {
  const found = [];
  code.split("\n").forEach((line, index) => {
    for (const { 1: guard, 2: name, index: column } of line.matchAll(RENAMED)) {
      const place = sourcePlace({ files, lines }, index + 1, column + 1);
      if (guard !== undefined || place === undefined || /^@witgate\/|node_modules\//.test(place)) continue;
      found.push(`${place}: ${name}: ${ABSENT[name]}`);
    }
  });
  if (found.length > 0) throw new AuthorError([...new Set(found)].join("\n"));
}

/** The inputs that the fingerprint of the source folder does not cover. */
function outside(inputs, source) {
  const isCovered = (path) => !/^\.\.|(^|\/)(node_modules|dist|target)\/|(^|\/)\./.test(path);
  return inputs
    .filter((path) => !isCovered(path))
    .map((path) => resolve(source, path))
    .filter((path) => existsSync(path) && relative(sdk, path).startsWith(".."))
    .sort();
}
