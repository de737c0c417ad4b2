// The QuickJS of the pinned componentize-qjs, without clocks and random numbers of the builder.
//
// The snapshot of a filter contains what QuickJS and its bindings read when they start: the seed of
// hash maps, on which the order of their entries depends, and the time. So each build would have
// other bytes. Here the calls that read them are removed; what they would have written is then
// whatever the memory of the fresh interpreter has there, which is always the same. Filters use the
// gateway's clock and random numbers (guests/sdk/typescript/src/globals.ts).
//
// The module is in the library that Node.js loads. If that has another one, because of another
// version or platform, the build works, but its bytes differ each time.
import { createHash } from "node:crypto";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";

const BINDINGS = join(import.meta.dirname, "node_modules/@andreiltd");
const SIZE = 1_497_910;
const DIGEST = "25703f010b80efb806f9c35daf9ee6524ad60320c9781b0bae4e234264f8dac5";
const MAGIC = Buffer.from([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]);

/** Each call with the instructions around it, and what takes its place, of the same length. */
const CALLS = [
  // insecure-seed: the address of the result is dropped.
  ["240020001003200029", "240020001a01200029"],
  // monotonic-clock now: 0.
  ["41002101101921", "41002101420021"],
  // wall-clock now: the address of the result is dropped.
  ["24002001101b200041", "240020011a01200041"],
].map((pair) => pair.map((text) => Buffer.from(text, "hex")));

/** The bytes of the module, or undefined if it was not found. */
export function fixedRuntime() {
  const module = findModule();
  if (module === undefined) return undefined;
  const fixed = Buffer.from(module);
  for (const [call, replacement] of CALLS) {
    const at = fixed.indexOf(call);
    if (at < 0 || fixed.indexOf(call, at + 1) >= 0) throw new Error("a call of QuickJS was not found: adapt runtime.mjs");
    replacement.copy(fixed, at);
  }
  return fixed;
}

function findModule() {
  if (!existsSync(BINDINGS)) return undefined;
  for (const folder of readdirSync(BINDINGS)) {
    for (const file of readdirSync(join(BINDINGS, folder)).filter((name) => name.endsWith(".node"))) {
      const library = readFileSync(join(BINDINGS, folder, file));
      for (let at = library.indexOf(MAGIC); at >= 0; at = library.indexOf(MAGIC, at + 1)) {
        const module = library.subarray(at, at + SIZE);
        // A digest of every candidate would take long; few of them have sections that end there.
        if (module.length === SIZE && endsAtSection(module) && digest(module) === DIGEST) return module;
      }
    }
  }
  return undefined;
}

/** Whether the last section of the module ends with these bytes. */
function endsAtSection(module) {
  let at = MAGIC.length;
  while (at < module.length) {
    let [size, scale, byte] = [0, 1, 0];
    at += 1;
    do {
      byte = module[at++];
      size += (byte & 0x7f) * scale;
      scale *= 128;
    } while (byte >= 0x80);
    at += size;
  }
  return at === module.length;
}

function digest(bytes) {
  return createHash("sha256").update(bytes).digest("hex");
}
