// Builds a TypeScript filter into a component: packages, types from the WIT, tsc, esbuild, QuickJS.
//
// The componentize crate runs this script and documents the contract (src/toolchain/script.rs):
// lines `step: NAME` on standard output, and exit code 2 if the author's source is wrong. With
// `--serve` the process builds again and again, which saves the start of Node.js and of esbuild.
//
// tsc runs beside the bundle and the component, because it is a process of its own.
import { mkdirSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { bundle } from "./bundle.mjs";
import { findHandlers, checkTypes, generateTypes } from "./check.mjs";
import { AuthorError } from "./common.mjs";
import { installPackages } from "./packages.mjs";
import { snapshot } from "./snapshot.mjs";

const EXIT_AUTHOR = 2;
/** The message of snapshot.mjs about an endless loop. */
const ENDLESS = /did not end within/;
const names = ["source", "wit", "world", "phases", "services", "out", "work"];
const options = Object.fromEntries(names.map((name) => [name, { type: "string" }]));

/** Whether QuickJS still evaluates the source, in a thread of its own. */
let isMaking = false;

async function build(args) {
  const { values } = parseArgs({ args, options });
  const { source, wit, world } = values;
  const phases = values.phases.split(",");
  const services = (values.services ?? "").split(",");
  const work = resolve(values.work);
  mkdirSync(work, { recursive: true });
  installPackages(source, (step) => console.log(`step: ${step}`));
  console.log("step: types");
  generateTypes();
  console.log("step: bundle");
  const handlers = findHandlers(source, phases, process.env.COMPONENTIZE_BODIES?.split(",") ?? phases);
  const checked = checkTypes(source, handlers, work);
  isMaking = true;
  const made = makeComponent(source, handlers, services, work, wit, world).finally(() => (isMaking = false));
  // The errors of tsc come first, because they explain the others.
  const component = await Promise.all([checked.then(() => made), made.catch(() => checked)]);
  writeFileSync(values.out, component[0]);
}

async function makeComponent(source, handlers, services, work, wit, world) {
  const bundled = await bundle(source, handlers, services, work);
  writeFileSync(resolve(work, "inputs"), bundled.inputs.map((path) => `${path}\n`).join(""));
  console.log("step: component");
  return snapshot(bundled, wit, world);
}

/** Builds once. Returns the exit code and the message for the author. */
async function run(args) {
  try {
    await build(args);
    return { code: 0, message: "" };
  } catch (error) {
    if (error instanceof AuthorError) return { code: EXIT_AUTHOR, message: error.message.trimEnd() };
    return { code: 1, message: String(error?.stack ?? error) };
  }
}

/** Builds for each line of standard input, a JSON object with arguments and environment. */
async function serve() {
  for await (const line of createInterface({ input: process.stdin })) {
    const { args, env } = JSON.parse(line);
    Object.assign(process.env, env);
    const { code, message } = await run(args);
    if (message !== "") console.log(message);
    console.log(`end: ${code}`);
    // A source with an endless loop keeps its thread busy until the process ends.
    if (isMaking || ENDLESS.test(message)) return;
  }
}

if (process.argv[2] === "--serve") {
  await serve();
  process.exit(0);
}
const { code, message } = await run(process.argv.slice(2));
if (message !== "") process.stderr.write(`${message}\n`);
// QuickJS may still run in another thread, if the source has an endless loop.
process.exit(code);
