// Builds a TypeScript filter into a component: types from the WIT, tsc, esbuild, QuickJS.
//
// The componentize crate runs this script and documents the contract (src/toolchain/script.rs):
// lines `step: NAME` on standard output, and exit code 2 if the author's source is wrong.
import { createHash } from "node:crypto";
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const EXIT_AUTHOR = 2;
const here = dirname(fileURLToPath(import.meta.url));
const sdk = resolve(here, "../../guests/sdk/typescript");
const packageWit = resolve(here, "../../wit");
const bin = (name) => join(here, "node_modules/.bin", name);
const names = ["source", "wit", "world", "phases", "services", "out", "work"];
const options = Object.fromEntries(names.map((name) => [name, { type: "string" }]));

/**
 * Generates the declarations of `witgate:gateway/…`, unless the WIT is unchanged. Editors find them
 * through the SDK's tsconfig.
 */
export function generateTypes() {
  const folder = join(sdk, "generated");
  const hash = createHash("sha256");
  for (const file of readdirSync(packageWit).sort()) hash.update(readFileSync(join(packageWit, file)));
  const digest = hash.digest("hex");
  const stamp = join(folder, ".wit");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === digest) return;
  const fresh = `${folder}.${process.pid}`;
  const stdio = ["ignore", "ignore", "inherit"];
  execFileSync(bin("jco"), ["guest-types", packageWit, "-n", "host", "-o", fresh], { stdio });
  writeFileSync(join(fresh, ".wit"), digest);
  rmSync(folder, { recursive: true, force: true });
  renameSync(fresh, folder);
}

/** Ends the script with a message for the author. */
function fail(text) {
  process.stderr.write(text);
  process.exit(EXIT_AUTHOR);
}

/** Runs tsc. */
function check(source, work) {
  const config = {
    extends: join(sdk, "tsconfig.json"),
    compilerOptions: {
      rootDir: "/",
      allowImportingTsExtensions: true,
      paths: { "@witgate/filter": [join(sdk, "src/index.ts")], "@witgate/filter/*": [join(sdk, "src/*.ts")] },
    },
    include: [join(source, "src"), join(sdk, "generated"), join(sdk, "src/sandbox.d.ts")],
  };
  const file = join(work, "tsconfig.json");
  writeFileSync(file, JSON.stringify(config, null, 2));
  const tsc = spawnSync(bin("tsc"), ["--project", file, "--pretty", "false"], { cwd: source, encoding: "utf8" });
  if (tsc.status !== 0) fail(tsc.stdout + tsc.stderr);
}

/**
 * The entry of the bundle. The globals come first: they replace the clock and randomness before the
 * author's module runs.
 */
function entry(source, phases) {
  const filter = JSON.stringify(join(source, "src/filter.ts"));
  const module = (name) => JSON.stringify(join(sdk, "src", name));
  let text = `import ${module("globals.ts")};\nimport * as filter from ${filter};\n`;
  text += `import * as sdk from ${module("entry.ts")};\n`;
  if (phases.includes("request")) {
    text += `import * as edit from "witgate:gateway/request-edit@0.1.0";\n`;
    text += `export const requestHandler = sdk.requestHandler(filter.onRequest, edit);\n`;
  }
  if (phases.includes("response")) {
    text += `import { Response } from ${module("response.ts")};\n`;
    text += `export const responseHandler = sdk.responseHandler(filter.onResponse, new Response());\n`;
  }
  return text;
}

/** One JavaScript module with the SDK, the filter and the table of lines. */
async function bundle(source, phases, services, work) {
  const { build } = await import("esbuild");
  const result = await build({
    stdin: { contents: entry(source, phases), resolveDir: source, sourcefile: "entry.ts", loader: "ts" },
    bundle: true,
    write: false,
    format: "esm",
    charset: "utf8",
    target: "es2022",
    sourcemap: "external",
    outfile: join(work, "filter.js"),
    external: ["witgate:*"],
    alias: { "@witgate/filter": join(sdk, "src/index.ts"), "@witgate/filter/keyvalue": join(sdk, "src/keyvalue.ts") },
    logLevel: "silent",
    absWorkingDir: source,
  }).catch((error) => error);
  if (result.errors?.length) fail(result.errors.map(errorLine).join(""));
  for (const phase of phases) {
    const name = phase === "request" ? "onRequest" : "onResponse";
    const isMissing = (warning) => warning.id === "import-is-undefined" && warning.text.includes(`"${name}"`);
    if (result.warnings.some(isMissing)) {
      const advice = `write \`export function ${name}(…)\``;
      fail(`src/filter.ts: does not export ${name}, but filter.toml has [${phase}]: ${advice}\n`);
    }
  }
  const code = result.outputFiles.find((file) => file.path.endsWith(".js")).text;
  if (!services.includes("keyvalue") && code.includes('"witgate:gateway/keyvalue@')) {
    const advice = 'add `services = ["keyvalue"]`';
    fail(`src/filter.ts: imports @witgate/filter/keyvalue, which filter.toml does not request: ${advice}\n`);
  }
  const map = JSON.parse(result.outputFiles.find((file) => file.path.endsWith(".map")).text);
  return `${code}\nvar __WITGATE_LINES = ${JSON.stringify(await lineTable(map, source, work))};\n`;
}

/** An error of esbuild as a line for the author. */
function errorLine({ location, text }) {
  return `${location ? `${location.file}:${location.line}:${location.column}: ` : ""}${text}\n`;
}

/**
 * For each line of the bundle, the source file and line of its first mapped column, or 0 if the
 * line has none.
 */
async function lineTable(map, source, work) {
  const { decode } = await import("@jridgewell/sourcemap-codec");
  const files = map.sources.map((file) => {
    const path = resolve(work, file);
    const inSdk = relative(join(sdk, "src"), path);
    return inSdk.startsWith("..") ? relative(source, path) : `@witgate/filter/${inSdk}`;
  });
  const lines = decode(map.mappings).map((segments) => {
    const segment = segments.find((segment) => segment.length > 1);
    return segment === undefined ? 0 : [segment[1], segment[2] + 1];
  });
  return { files, lines };
}

async function main() {
  const { values } = parseArgs({ options });
  const phases = values.phases.split(",");
  const work = resolve(values.work);
  mkdirSync(work, { recursive: true });
  console.log("step: types");
  generateTypes();
  console.log("step: tsc");
  check(values.source, work);
  console.log("step: bundle");
  const jsSource = await bundle(values.source, phases, (values.services ?? "").split(","), work);
  console.log("step: component");
  const { componentize } = await import("componentize-qjs");
  const settings = { witPath: values.wit, world: values.world, jsSource, sync: true, stubWasi: true };
  const { component } = await componentize(settings);
  writeFileSync(values.out, component);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
