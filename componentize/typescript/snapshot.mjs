// Evaluates the bundle in QuickJS and makes the component from the memory that this leaves.
import { AuthorError, sourcePlace } from "./common.mjs";
import { fixedRuntime } from "./runtime.mjs";
import { limitRecursion } from "./stack.mjs";

/** How long the code at module level may run, in milliseconds. */
const EVALUATION_MS_MAX = Number(process.env.COMPONENTIZE_EVALUATION_MS ?? 30_000);

/** An import of the gateway's functions in the bundle. */
const GATEWAY_IMPORT = /^import \* as (\w+) from "witgate:gateway\/([\w-]+)@[^"]*";$/gm;

/** Returns the bytes of the component. */
export async function snapshot({ code, table }, witPath, world) {
  const timeout = new Promise((_, reject) => {
    const text = `src/filter.ts: the code at module level did not end within ${EVALUATION_MS_MAX / 1000} s`;
    const advice = "look for an endless loop outside the handlers";
    setTimeout(() => reject(new AuthorError(`${text}: ${advice}`)), EVALUATION_MS_MAX);
  });
  const component = await Promise.race([evaluate(code, table, witPath, world), timeout]);
  return isDev() ? component : limitRecursion(component);
}

/**
 * Whether `witgate dev` builds. It takes the smaller QuickJS, which is compiled for each
 * evaluation: that saves a third of the time. The smaller one has no limit of recursion, so a
 * recursion without an end is a trap.
 */
function isDev() {
  return process.env.COMPONENTIZE_DEV === "yes";
}

async function evaluate(code, table, witPath, world) {
  const { componentize } = await import("componentize-qjs");
  // A string takes less of every instance's memory than the objects that it describes.
  const jsSource = `${code}\nvar __WITGATE_LINES = ${JSON.stringify(JSON.stringify({ witgateLines: 1, ...table }))};\n`;
  const runtimeBytes = isDev() ? undefined : fixedRuntime();
  const runtime = runtimeBytes === undefined ? { sync: true, optSize: isDev() } : { runtimeBytes };
  const settings = { witPath, world, jsSource, stubWasi: true, ...runtime };
  try {
    return (await componentize(settings)).component;
  } catch (error) {
    if (/unknown import/.test(error.message) && GATEWAY_IMPORT.test(code)) {
      // The trap names no line. The same code with functions that throw does.
      await evaluate(code.replace(GATEWAY_IMPORT, withoutGateway), table, witPath, world);
    }
    throw evaluationError(error, table);
  }
}

/** An object in place of an import, on one line. Its functions throw. */
function withoutGateway(_, variable, name) {
  const advice =
    "needs the gateway, which is not there while the filter is built: call it inside onRequest or onResponse";
  const call = `() => { throw new Error("${name}." + key + " ${advice}"); }`;
  return `var ${variable} = new Proxy({}, { get: (_, key) => ${call} });`;
}

/** The author's error in a message of QuickJS, if it is one. */
function evaluationError(error, table) {
  const [, message] = /JavaScript module(?: evaluation)?: ((?!Failed)[\s\S]*)$/.exec(error.message) ?? [];
  if (message === undefined) return trapError(error);
  const [text, ...stack] = message.split("\n");
  const frames = stack.flatMap((frame) => {
    const [, line, column] = /user\.js:(\d+):(\d+)/.exec(frame) ?? [];
    const place = sourcePlace(table, Number(line), Number(column));
    return place === undefined ? [] : [place];
  });
  const known = frames.filter((frame) => !frame.startsWith("@witgate/"));
  const own = known.find((frame) => frame.startsWith("src/")) ?? "src/filter.ts";
  const first = known[0] ?? own;
  const called = first === own ? "" : ` (in ${first})`;
  return new AuthorError(`${own}: the code at module level threw: ${text}${called}`);
}

/** An error for code that ended the interpreter, which names no line. */
function trapError(error) {
  const reason = /wasm trap: (.*)\]?$/m.exec(error.message)?.[1];
  if (reason === undefined) return error;
  const advice = /stack/.test(reason) ? "look for a recursion without an end" : "look for too much work or memory";
  return new AuthorError(`src/filter.ts: the code at module level ended the interpreter (${reason}): ${advice}`);
}
