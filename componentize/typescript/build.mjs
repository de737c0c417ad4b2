// A TypeScript filter's source → a component: types from the WIT, tsc, esbuild, QuickJS. Called by the componentize crate, which documents the contract
// (src/language.rs): `step: NAME` lines on standard output, exit code 2 where the author's source is at fault.
import { createHash } from "node:crypto";
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const AUTHOR = 2;
const here = dirname(fileURLToPath(import.meta.url));
const sdk = resolve(here, "../../guests/sdk/typescript");
const packageWit = resolve(here, "../../wit");
const bin = (name) => join(here, "node_modules/.bin", name);
const options = Object.fromEntries(["source", "wit", "world", "phases", "services", "out", "work"].map((name) => [name, { type: "string" }]));

/** The declarations of `witgate:gateway/…`, made anew when the WIT changes. Editors find them through the SDK's tsconfig. */
export function types() {
  const folder = join(sdk, "generated");
  const hash = createHash("sha256");
  for (const file of readdirSync(packageWit).sort()) hash.update(readFileSync(join(packageWit, file)));
  const digest = hash.digest("hex");
  const stamp = join(folder, ".wit");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === digest) return;
  const fresh = `${folder}.${process.pid}`;
  execFileSync(bin("jco"), ["guest-types", packageWit, "-n", "host", "-o", fresh], { stdio: ["ignore", "ignore", "inherit"] });
  writeFileSync(join(fresh, ".wit"), digest);
  rmSync(folder, { recursive: true, force: true });
  renameSync(fresh, folder);
}

function fail(text) {
  process.stderr.write(text);
  process.exit(AUTHOR);
}

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

/** The entry: globals first, then the author's module, then the exports that the WIT names. */
function entry(source, phases) {
  const filter = JSON.stringify(join(source, "src/filter.ts"));
  const module = (name) => JSON.stringify(join(sdk, "src", name));
  let text = `import ${module("globals.ts")};\nimport * as filter from ${filter};\nimport * as sdk from ${module("entry.ts")};\n`;
  if (phases.includes("request")) {
    text += `import * as edit from "witgate:gateway/request-edit@0.1.0";\nexport const requestHandler = sdk.requestHandler(filter.onRequest, edit);\n`;
  }
  if (phases.includes("response")) {
    text += `import { Response } from ${module("response.ts")};\nexport const responseHandler = sdk.responseHandler(filter.onResponse, new Response());\n`;
  }
  return text;
}

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
  if (result.errors?.length) {
    fail(result.errors.map((e) => `${e.location ? `${e.location.file}:${e.location.line}:${e.location.column}: ` : ""}${e.text}\n`).join(""));
  }
  for (const phase of phases) {
    const name = phase === "request" ? "onRequest" : "onResponse";
    if (result.warnings.some((warning) => warning.id === "import-is-undefined" && warning.text.includes(`"${name}"`))) {
      fail(`src/filter.ts: does not export ${name}, but filter.toml has [${phase}]: write \`export function ${name}(…)\`\n`);
    }
  }
  const code = result.outputFiles.find((file) => file.path.endsWith(".js")).text;
  if (!services.includes("keyvalue") && code.includes('"witgate:gateway/keyvalue@')) {
    fail('src/filter.ts: imports @witgate/filter/keyvalue, which filter.toml does not ask for: add `services = ["keyvalue"]`\n');
  }
  const map = JSON.parse(result.outputFiles.find((file) => file.path.endsWith(".map")).text);
  return `${code}\nvar __WITGATE_LINES = ${JSON.stringify(await lineTable(map, source, work))};\n`;
}

/** For each line of the bundle the source file and line that its first mapped column comes from; 0 where none. */
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
  types();
  console.log("step: tsc");
  check(values.source, work);
  console.log("step: bundle");
  const jsSource = await bundle(values.source, phases, (values.services ?? "").split(","), work);
  console.log("step: component");
  const { componentize } = await import("componentize-qjs");
  const { component } = await componentize({ witPath: values.wit, world: values.world, jsSource, sync: true, stubWasi: true });
  writeFileSync(values.out, component);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
