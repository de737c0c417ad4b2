// The global `fetch`, for packages that expect it. Filters import it from `@witgate/filter/http`.
import { fetch } from "./http.ts";

Object.defineProperty(globalThis, "fetch", { value: fetch, writable: true, configurable: true });
