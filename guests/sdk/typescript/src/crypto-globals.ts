// The globals `crypto.subtle` and `CryptoKey`, for packages that expect them. Filters import
// `subtle` from `@witgate/filter/crypto`.
import { CryptoKey, subtle } from "./web/subtle.ts";

Object.defineProperty(globalThis.crypto, "subtle", { value: subtle, writable: true, configurable: true });
Object.defineProperty(globalThis, "CryptoKey", { value: CryptoKey, writable: true, configurable: true });
