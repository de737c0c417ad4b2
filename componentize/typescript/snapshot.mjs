// Evaluates the bundle in QuickJS and makes the component from the memory that this leaves.
import { AuthorError, sourcePlace } from "./common.mjs";
import { limitRecursion } from "./stack.mjs";

/** How long the code at module level may run, in milliseconds. */
const EVALUATION_MS_MAX = Number(process.env.COMPONENTIZE_EVALUATION_MS ?? 30_000);

/** Returns the bytes of the component. */
export async function snapshot({ code, table }, witPath, world) {
  const { componentize } = await import("componentize-qjs");
  // A string takes less of every instance's memory than the objects that it describes.
  const jsSource = `${code}\nvar __WITGATE_LINES = ${JSON.stringify(JSON.stringify(table))};\n`;
  const timeout = new Promise((_, reject) => {
    const text = `src/filter.ts: the code at module level did not end within ${EVALUATION_MS_MAX / 1000} s`;
    setTimeout(() => reject(new AuthorError(`${text}: look for an endless loop outside the handlers`)), EVALUATION_MS_MAX);
  });
  const settings = { witPath, world, jsSource, sync: true, stubWasi: true };
  const work = componentize(settings).catch((error) => {
    throw evaluationError(error, table);
  });
  return limitRecursion((await Promise.race([work, timeout])).component);
}

/** The author's error in a message of QuickJS, if it is one. */
function evaluationError(error, table) {
  const [, message] = /JavaScript module(?: evaluation)?: ((?!Failed)[\s\S]*)$/.exec(error.message) ?? [];
  if (message === undefined) return error;
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
