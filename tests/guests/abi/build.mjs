// The guests of `just bench-abi` → tests/guests/dist/abi/LANGUAGE-SHAPE.wasm, by the tools that `componentize setup` installed and as
// `componentize build` makes filters: Python laid out by the SDK's means, TypeScript and Python flattened. Not by `componentize build`
// itself, which knows no interface but the gateway's.
import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const here = import.meta.dirname;
const root = resolve(here, "../../..");
const tools = join(root, "componentize");
const out = resolve(here, "../dist/abi");
const wit = join(here, "wit");
const tool = createRequire(join(tools, "typescript/package.json"));
const { build } = tool("esbuild");
const { componentize } = await import(pathToFileURL(tool.resolve("componentize-qjs")));

/** Runs a program; what it says on standard output is nobody's business. */
function run(program, options, cwd = here) {
  execFileSync(program, options, { cwd, stdio: ["ignore", "ignore", "inherit"] });
}

function flatten(raw, world, language) {
  const flat = join(out, `${language}-${world}.wasm`);
  run(join(root, "target/release/componentize"), ["flatten", raw, "--wit", wit, "--world", world, "--out", flat]);
}

async function typescript(world) {
  const entry = join(here, `typescript/${world}.ts`);
  const bundle = await build({ entryPoints: [entry], bundle: true, write: false, format: "esm", target: "es2022", external: ["witgate:*"] });
  const { component } = await componentize({ witPath: wit, world, jsSource: bundle.outputFiles[0].text, sync: true, stubWasi: true });
  const raw = join(out, ".raw.wasm");
  writeFileSync(raw, component);
  flatten(raw, world, "typescript");
}

function python(world) {
  const raw = join(out, ".raw.wasm");
  const sdk = join(root, "guests/sdk/python/witgate");
  const options = ["-d", wit, "-w", world, "componentize", "-s", `as_${world}`, "-p", join(here, "python"), "-p", sdk, "-o", raw];
  run(join(tools, "python/.venv/bin/componentize-py"), options);
  flatten(raw, world, "python");
}

function rust(world) {
  const target = join(root, "target/guests");
  const options = ["build", "--release", "--locked", "--quiet", "--target", "wasm32-unknown-unknown", "--target-dir", target, "--features", world];
  run(join(root, "target/release/componentize"), ["cargo", ...options], join(here, "rust"));
  const module = join(target, "wasm32-unknown-unknown/release/abi.wasm");
  run(join(tools, "typescript/node_modules/.bin/jco"), ["new", module, "-o", join(out, `rust-${world}.wasm`)]);
}

mkdirSync(out, { recursive: true });
for (const world of ["plain", "value", "json"]) {
  rust(world);
  await typescript(world);
  python(world);
}
