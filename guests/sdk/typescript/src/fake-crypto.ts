// The gateway's cryptography for unit tests, by the module `node:crypto` of Node.js.
//
// This module does not know the objects of the SDK.
import { decode } from "./text.ts";

type Key = { tag: "raw"; val: Uint8Array } | { tag: "jwk" | "pem" | "secret"; val: string };

const node = (): any => (globalThis as any).process.getBuiltinModule("node:crypto");

/** The keys that a test gives to the filter, by name. */
export const secrets = new Map<string, string | Uint8Array>();

const RAW_ALGORITHMS: Record<string, [hash: string | null, options: Record<string, unknown>]> = {
  rs256: ["sha256", { padding: 1 }],
  ps256: ["sha256", { padding: 6, saltLength: 32 }],
  es256: ["sha256", { dsaEncoding: "ieee-p1363" }],
  es384: ["sha384", { dsaEncoding: "ieee-p1363" }],
  eddsa: [null, {}],
};

function secretOf(name: string): string | Uint8Array {
  const secret = secrets.get(name);
  if (secret === undefined) throw { tag: "denied", val: `there is no key ${JSON.stringify(name)}` };
  return secret;
}

function shared(key: Key): Uint8Array | string {
  return key.tag === "secret" ? secretOf(key.val) : (key.val as Uint8Array);
}

function pair(key: Key, isPrivate: boolean): unknown {
  const secret = key.tag === "secret" ? secretOf(key.val) : key.val;
  const text = typeof secret === "string" ? secret : decode(secret);
  const make = isPrivate ? node().createPrivateKey : node().createPublicKey;
  try {
    return text.trimStart().startsWith("{") ? make({ key: JSON.parse(text), format: "jwk" }) : make(text);
  } catch (error) {
    throw { tag: "invalid-key", val: String(error) };
  }
}

function cipher(kind: "createCipheriv" | "createDecipheriv", key: Key, nonce: Uint8Array, additional: Uint8Array) {
  const bytes = shared(key);
  if (![16, 32].includes(bytes.length)) throw { tag: "invalid", val: `a key of AES-GCM has 16 or 32 bytes` };
  return node()[kind](`aes-${bytes.length * 8}-gcm`, bytes, nonce).setAAD(additional);
}

const plain = (bytes: Uint8Array): Uint8Array => Uint8Array.from(bytes);

/** The interface `crypto` of wit/. */
export const cryptoInterface = {
  digest: (hash: string, data: Uint8Array) => plain(node().createHash(hash).update(data).digest()),
  hmac: (hash: string, key: Key, data: Uint8Array) => plain(node().createHmac(hash, shared(key)).update(data).digest()),
  equal: (a: Uint8Array, b: Uint8Array) => a.length === b.length && a.every((byte, at) => byte === b[at]),
  verify: (algorithm: string, key: Key, data: Uint8Array, signature: Uint8Array): boolean => {
    const [hash, options] = RAW_ALGORITHMS[algorithm] as (typeof RAW_ALGORITHMS)[string];
    return node().verify(hash, data, { key: pair(key, false), ...options }, signature);
  },
  sign: (algorithm: string, key: Key, data: Uint8Array) => {
    const [hash, options] = RAW_ALGORITHMS[algorithm] as (typeof RAW_ALGORITHMS)[string];
    return plain(node().sign(hash, data, { key: pair(key, true), ...options }));
  },
  encrypt: (key: Key, nonce: Uint8Array, data: Uint8Array, additional: Uint8Array) => {
    const sealing = cipher("createCipheriv", key, nonce, additional);
    const text = [...sealing.update(data), ...sealing.final()];
    return Uint8Array.from([...text, ...sealing.getAuthTag()]);
  },
  decrypt: (key: Key, nonce: Uint8Array, data: Uint8Array, additional: Uint8Array) => {
    if (data.length < 16) return undefined;
    const opening = cipher("createDecipheriv", key, nonce, additional).setAuthTag(data.slice(-16));
    try {
      return Uint8Array.from([...opening.update(data.slice(0, -16)), ...opening.final()]);
    } catch {
      return undefined;
    }
  },
  derive: (hash: string, password: Key, salt: Uint8Array, iterations: number, length: number) =>
    plain(node().pbkdf2Sync(shared(password), salt, iterations, length, hash)),
};
