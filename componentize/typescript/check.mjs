// Checks the types of a filter with tsc, and shows its errors in the words of this project.
import { createHash } from "node:crypto";
import { execFile, execFileSync } from "node:child_process";
import { existsSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { ABSENT, AuthorError, nodeModuleAdvice, packageWit, sdk, tool } from "./common.mjs";

const HANDLERS = {
  request: { name: "onRequest", type: "OnRequest" },
  response: { name: "onResponse", type: "OnResponse" },
};

/** What requests and responses have in common. */
const MEMBERS = "header(name), setHeader(name, value), text(), json(), setBody(body) and others";

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
  execFileSync(tool("jco"), ["guest-types", packageWit, "-n", "host", "-o", fresh], { stdio });
  writeFileSync(join(fresh, ".wit"), digest);
  rmSync(folder, { recursive: true, force: true });
  renameSync(fresh, folder);
}

/**
 * The handlers of the phases: name, type, whether the gateway buffers the body, and where
 * src/filter.ts defines or mentions the handler.
 */
export function findHandlers(source, phases, buffered) {
  const text = readFileSync(join(source, "src/filter.ts"), "utf8");
  return phases.map((phase) => {
    const { name, type } = HANDLERS[phase];
    const definition = new RegExp(`^export\\s+(?:async\\s+)?(?:function\\s*\\*?|const|let|var)\\s+${name}\\b`, "m");
    const at = [definition, new RegExp(`\\b${name}\\b`)].map((pattern) => text.search(pattern)).find((at) => at >= 0);
    const hasBody = buffered.includes(phase);
    return { phase, name, type, hasBody, line: at === undefined ? 1 : text.slice(0, at).split("\n").length };
  });
}

/** Runs tsc over the source and over a file that uses the handlers as the gateway does. */
export async function checkTypes(source, handlers, work) {
  const uses = handlers.map(
    ({ name, type }) =>
      `import type { ${type} } from "@witgate/filter";\n` +
      `import { ${name} } from ${JSON.stringify(join(source, "src/filter.ts"))};\n` +
      `${name} satisfies ${type};\n`,
  );
  const handlersFile = join(work, "handlers.ts");
  writeFileSync(handlersFile, uses.join(""));
  const config = {
    extends: join(sdk, "tsconfig.json"),
    compilerOptions: {
      rootDir: "/",
      allowImportingTsExtensions: true,
      paths: { "@witgate/filter": [join(sdk, "src/index.ts")], "@witgate/filter/*": [join(sdk, "src/*.ts")] },
    },
    files: [handlersFile],
    include: [join(source, "src"), join(sdk, "generated"), join(sdk, "src/sandbox.d.ts")],
  };
  const file = join(work, "tsconfig.json");
  writeFileSync(file, JSON.stringify(config, null, 2));
  const tsc = await outputOf(tool("tsc"), ["--project", file, "--pretty", "false"], source);
  if (tsc.status === 0) return;
  // An error begins with a path; the lines after it that are indented explain it.
  const errors = `${tsc.stdout}${tsc.stderr}`.split(/\n(?=\S)/).filter((text) => text.trim() !== "");
  const shown = errors.map((text) => inOurWords(text, handlers, source)).filter((text) => text !== undefined);
  if (shown.length > 0) throw new AuthorError([...new Set(shown)].join("\n"));
  if (errors.length === 0) throw new Error(`tsc ended with exit code ${tsc.status} and said nothing`);
}

/** Runs a program and returns its exit code and output. */
function outputOf(program, args, cwd) {
  const options = { cwd, encoding: "utf8", maxBuffer: 64 << 20 };
  return new Promise((done, fail) => {
    execFile(program, args, options, (error, stdout, stderr) => {
      if (error !== null && typeof error.code !== "number") fail(error);
      else done({ status: error?.code ?? 0, stdout, stderr });
    });
  });
}

/** An error of tsc for the author, or undefined if it is none for a filter. */
function inOurWords(text, handlers, source) {
  // A package without types is used as `any`.
  if (/error TS7016:/.test(text)) return undefined;
  const [, place, code, message] = /^(.*?): error (TS\d+): ([\s\S]*)$/.exec(text) ?? [];
  if (message === undefined) return text;
  const file = place.replace(/\(\d+,\d+\)$/, "");
  if (file.endsWith("handlers.ts") && !file.startsWith("src/")) return handlerError(place, code, message, handlers);
  const name = /^Cannot find (?:name|namespace) '(\w+)'|^'(Response)' (?:only refers to a type|cannot be used as a value)/.exec(message)?.slice(1).find(Boolean);
  if (name !== undefined && Object.hasOwn(ABSENT, name)) return `${place}: error ${code}: ${name}: ${ABSENT[name]}`;
  const module = /^Cannot find (?:module|name) '([^']+)'/.exec(message)?.[1] ?? "";
  const advice = nodeModuleAdvice(module);
  if (advice !== undefined) return `${place}: error ${code}: ${module} is a module of Node.js: ${advice}`;
  if (code === "TS2307") return `${place}: error ${code}: ${missingModule(module, join(source, file))}`;
  const advised = adviceAbout(code, message, join(source, file), Number(/\((\d+),/.exec(place)?.[1]));
  return advised === undefined ? text : `${place}: error ${code}: ${message.trimEnd()} ${advised}`;
}

/** What is wrong with an import of a module that was not found. */
function missingModule(module, importer) {
  if (/witgate/.test(module)) return `there is no ${module}: the SDK is "@witgate/filter", and its services "@witgate/filter/keyvalue" and so on`;
  if (!/^[./]/.test(module)) return `there is no package ${module}: run \`npm install ${module}\` in the filter's folder`;
  const path = resolve(dirname(importer), module);
  if (module.endsWith(".wasm")) return `${module}: a filter is WebAssembly itself and cannot load more: import JavaScript`;
  if (existsSync(path)) {
    return `${module}: a filter imports .ts, .js and .json: put the text into a .ts file, as \`export default "…"\``;
  }
  const plain = (name) => name.toLowerCase().replace(/\.[jt]s$/, "");
  const folder = dirname(path);
  const similar = existsSync(folder) && readdirSync(folder).find((name) => plain(name) === plain(basename(path)));
  const advice = similar ? `the file is named ${similar}; upper and lower case differ` : "there is no such file";
  return `${module}: ${advice}`;
}

/** Advice about uses of a request or response as elsewhere, or undefined. */
function adviceAbout(code, message, file, line) {
  const [, property, type] = /^Property '(\w+)' does not exist on type '(Request|Response|ReadonlyRequest)'/.exec(message) ?? [];
  if (property !== undefined && !/Did you mean/.test(message)) {
    const other = { url: "use request.path and request.query", ip: "use client() of @witgate/filter" }[property];
    return `(${other ?? `a ${type} has ${type === "Response" ? "status" : "method, path, query"}, ${MEMBERS}`})`;
  }
  const isIndex = code === "TS7015" || code === "TS7053";
  const text = isIndex && existsSync(file) ? readFileSync(file, "utf8").split("\n")[line - 1] : "";
  return /\.headers\[/.test(text ?? "") ? '(headers is a list of fields: use header("name"))' : undefined;
}

function handlerError(place, code, message, handlers) {
  const at = Number(/\((\d+),/.exec(place)?.[1] ?? 1) - 1;
  const { phase, name, type, line } = handlers[Math.floor(at / 3)] ?? handlers[0];
  if (["TS2305", "TS2459", "TS2614", "TS2724"].includes(code)) {
    const advice = `write \`export function ${name}(…)\``;
    return `src/filter.ts: does not export ${name}, but filter.toml has [${phase}]: ${advice}`;
  }
  const details = message.split("\n").slice(1).join("\n");
  const advice = name === "onRequest" ? "(request: Request) => Reply | void" : "(response: Response) => Reply | void";
  const rule = `it must be ${advice}, or the same with a Promise: return reply(…) or nothing`;
  return `src/filter.ts:${line}: error ${code}: ${name} is no ${type}: ${rule}\n${details}`.trimEnd();
}
