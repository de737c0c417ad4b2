// Builds a TypeScript filter into a component: packages, types from the WIT, tsc, esbuild, QuickJS.
//
// The componentize crate runs this script and documents the contract (src/toolchain/script.rs):
// lines `step: NAME` on standard output, and exit code 2 if the author's source is wrong.
import { mkdirSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { bundle } from "./bundle.mjs";
import { findHandlers, checkTypes, generateTypes } from "./check.mjs";
import { AuthorError } from "./common.mjs";
import { installPackages } from "./packages.mjs";
import { snapshot } from "./snapshot.mjs";

const EXIT_AUTHOR = 2;
const names = ["source", "wit", "world", "phases", "services", "out", "work"];
const options = Object.fromEntries(names.map((name) => [name, { type: "string" }]));

async function main() {
  const { values } = parseArgs({ options });
  const { source, wit, world } = values;
  const phases = values.phases.split(",");
  const services = (values.services ?? "").split(",");
  const work = resolve(values.work);
  mkdirSync(work, { recursive: true });
  installPackages(source, (step) => console.log(`step: ${step}`));
  console.log("step: types");
  generateTypes();
  console.log("step: tsc");
  const handlers = findHandlers(source, phases, process.env.COMPONENTIZE_BODIES?.split(",") ?? phases);
  checkTypes(source, handlers, work);
  console.log("step: bundle");
  const bundled = await bundle(source, handlers, services, work);
  writeFileSync(resolve(work, "inputs"), bundled.inputs.map((path) => `${path}\n`).join(""));
  console.log("step: component");
  writeFileSync(values.out, await snapshot(bundled, wit, world));
}

try {
  await main();
} catch (error) {
  if (!(error instanceof AuthorError)) throw error;
  process.stderr.write(`${error.message.trimEnd()}\n`);
  process.exit(EXIT_AUTHOR);
}
// QuickJS may still run in another thread, if the source has an endless loop.
process.exit(0);
