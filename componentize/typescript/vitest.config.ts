// Unit tests of the TypeScript SDK and filters, without WebAssembly. The interfaces of the gateway
// resolve to the SDK's fake. The variable WITGATE_PROJECT is the folder of the one filter that
// `witgate test` tests.
import { resolve } from "node:path";
import { defineConfig } from "vitest/config";
import { generateTypes } from "./check.mjs";

const root = resolve(import.meta.dirname, "../..");
const sdk = resolve(root, "guests/sdk/typescript/src");
const INTERFACE = /^witgate:gateway\/([a-z-]+)@/;
const project = process.env.WITGATE_PROJECT;
generateTypes();

export default defineConfig({
  root: project ?? root,
  cacheDir: resolve(import.meta.dirname, "node_modules/.vite"),
  resolve: {
    alias: [
      { find: /^@witgate\/filter$/, replacement: resolve(sdk, "index.ts") },
      { find: /^@witgate\/filter\/(.*)$/, replacement: `${sdk}/$1.ts` },
      { find: /^vitest$/, replacement: resolve(import.meta.dirname, "node_modules/vitest/dist/index.js") },
    ],
  },
  plugins: [
    {
      name: "witgate-fake",
      enforce: "pre",
      resolveId: (id) => (INTERFACE.test(id) ? `\0${id}` : undefined),
      // Calls look the function up each time, so that a test can replace it.
      load: (id) => {
        const name = INTERFACE.exec(id.slice(1))?.[1];
        if (name === undefined) return undefined;
        const functions = FUNCTIONS[name] ?? [];
        const lines = functions.map(
          (fn) => `const _${fn} = (...args) => interfaces["${name}"].${fn}(...args); export { _${fn} as ${fn} };`,
        );
        return `import { interfaces } from ${JSON.stringify(resolve(sdk, "fake.ts"))};\n${lines.join("\n")}`;
      },
    },
  ],
  test: {
    include: [project === undefined ? "guests/{typescript,sdk/typescript}/**/*.test.ts" : "{src,test,tests}/**/*.test.ts"],
    passWithNoTests: false,
  },
});

const READ = ["header", "headerValues", "headerBytes", "headers", "body"];
const EDIT = ["setHeader", "appendHeader", "removeHeader", "setBody"];
const FUNCTIONS: Record<string, string[]> = {
  request: ["method", "scheme", "authority", "path", "query", ...READ],
  "request-edit": ["setPath", "setQuery", ...EDIT],
  response: ["status", "local", "setStatus", ...READ, ...EDIT],
  exchange: ["client", "route", "id", "note", "setNote"],
  config: ["get", "keys"],
  log: ["write"],
  clock: ["now", "ticks"],
  random: ["bytes", "number"],
  keyvalue: ["get", "getMany", "set", "delete", "increment", "compareAndSwap"],
  limiter: ["take"],
  http: ["send"],
  crypto: ["digest", "hmac", "equal", "verify", "sign", "encrypt", "decrypt", "derive"],
};
