// `crypto.subtle` by the Web Cryptography API, in the part that the gateway offers.
//
// A promise is settled when the function returns: the gateway computes synchronously. This module
// does not know which filter uses it.
import * as raw from "witgate:gateway/crypto@0.1.0";
import { fromBase64Url, toBase64 } from "../base64.ts";
import { shown, viewedBytes } from "../check.ts";

type Bytes = ArrayBuffer | ArrayBufferView;
type AlgorithmName = string | { name: string; [key: string]: unknown };
type Usage = "sign" | "verify" | "encrypt" | "decrypt" | "deriveBits" | "deriveKey" | "wrapKey" | "unwrapKey";

/** A key. Its material is not readable. */
export class CryptoKey {
  readonly type: "secret" | "public" | "private";
  readonly extractable = false;
  readonly algorithm: { name: string; [key: string]: unknown };
  readonly usages: readonly Usage[];
  readonly #key: raw.Key;

  constructor(
    type: CryptoKey["type"],
    algorithm: CryptoKey["algorithm"],
    usages: readonly Usage[],
    key: raw.Key,
  ) {
    this.type = type;
    this.algorithm = algorithm;
    this.usages = usages;
    this.#key = key;
  }

  /** The key for a use that it was imported for, by an algorithm that it was imported with. */
  static material(key: CryptoKey, usage: Usage, name: string): raw.Key {
    if (!(key instanceof CryptoKey)) throw new TypeError(`the key must come from importKey, not ${shown(key)}`);
    if (key.algorithm.name !== name) fail("InvalidAccessError", `the key is one for ${key.algorithm.name}, not ${name}`);
    if (!key.usages.includes(usage)) fail("InvalidAccessError", `the key was imported without the usage ${usage}`);
    return key.#key;
  }
}

/** The names of the standard, by their lower-case form. */
const NAMES: Record<string, string> = Object.fromEntries(
  ["HMAC", "AES-GCM", "PBKDF2", "RSASSA-PKCS1-v1_5", "RSA-PSS", "ECDSA", "Ed25519"].map((name) => [name.toLowerCase(), name]),
);
const HASHES: Record<string, raw.Hash> = { "SHA-1": "sha1", "SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512" };

/** `crypto.subtle`. Data has at most 8 MiB. */
export const subtle = {
  /** SHA-1, SHA-256, SHA-384 and SHA-512. */
  digest: (algorithm: AlgorithmName, data: Bytes) =>
    settled(() => buffer(call(() => raw.digest(hashOf(algorithm), bytesOf(data))))),

  /**
   * Imports a key: `raw` and `jwk` (HMAC, AES-GCM), `raw` (PBKDF2), and `jwk`, `spki` and `pkcs8`
   * for signatures: RSASSA-PKCS1-v1_5 and RSA-PSS with SHA-256, ECDSA with P-256 and P-384,
   * Ed25519. In place of bytes, `raw` takes `{secret: NAME}` for a key under `crypto.keys`.
   */
  importKey: (
    format: string,
    data: Bytes | Record<string, unknown>,
    algorithm: AlgorithmName,
    _extractable: boolean,
    usages: readonly Usage[],
  ) => settled(() => imported(format, data, normal(algorithm), usages)),

  sign: (algorithm: AlgorithmName, key: CryptoKey, data: Bytes) =>
    settled(() => {
      const { name } = normal(algorithm);
      const material = CryptoKey.material(key, "sign", name);
      if (name === "HMAC") return buffer(call(() => raw.hmac(hashOf(key.algorithm.hash), material, bytesOf(data))));
      return buffer(call(() => raw.sign(signatureOf(key, normal(algorithm)), material, bytesOf(data))));
    }),

  verify: (algorithm: AlgorithmName, key: CryptoKey, signature: Bytes, data: Bytes) =>
    settled(() => {
      const { name } = normal(algorithm);
      const material = CryptoKey.material(key, "verify", name);
      const [code, bytes] = [bytesOf(signature), bytesOf(data)];
      if (name === "HMAC") return raw.equal(code, call(() => raw.hmac(hashOf(key.algorithm.hash), material, bytes)));
      return call(() => raw.verify(signatureOf(key, normal(algorithm)), material, bytes, code));
    }),

  /** AES-GCM with an `iv` of 12 bytes and a tag of 128 bits. */
  encrypt: (algorithm: AlgorithmName, key: CryptoKey, data: Bytes) =>
    settled(() => {
      const [material, iv, additional] = aes(algorithm, key, "encrypt");
      return buffer(call(() => raw.encrypt(material, iv, bytesOf(data), additional)));
    }),

  /** Rejects with an OperationError if the text, the key or the `iv` is another one. */
  decrypt: (algorithm: AlgorithmName, key: CryptoKey, data: Bytes) =>
    settled(() => {
      const [material, iv, additional] = aes(algorithm, key, "decrypt");
      const text = call(() => raw.decrypt(material, iv, bytesOf(data), additional)) ?? undefined;
      return text === undefined ? fail("OperationError", "the text cannot be decrypted with this key") : buffer(text);
    }),

  /** PBKDF2 with 1 to 1,000,000 iterations, for 8 to 512 bits. */
  deriveBits: (algorithm: AlgorithmName, key: CryptoKey, bits: number) =>
    settled(() => {
      const { salt, iterations, hash, name } = normal(algorithm);
      const material = CryptoKey.material(key, "deriveBits", name);
      const hashed = hashOf(hash);
      return buffer(call(() => raw.derive(hashed, material, bytesOf(salt), Number(iterations), bits / 8)));
    }),
};

function imported(
  format: string,
  data: Bytes | Record<string, unknown>,
  algorithm: { name: string; [key: string]: unknown },
  usages: readonly Usage[],
): CryptoKey {
  const make = (type: CryptoKey["type"], key: raw.Key) => new CryptoKey(type, algorithm, usages, key);
  const { name } = algorithm;
  if (["HMAC", "AES-GCM", "PBKDF2"].includes(name)) {
    const jwk = data as Record<string, unknown>;
    const isSecret = format === "raw" && typeof jwk.secret === "string";
    if (isSecret) return make("secret", { tag: "secret", val: jwk.secret as string });
    if (format === "raw") return make("secret", { tag: "raw", val: bytesOf(data).slice() });
    if (format !== "jwk" || jwk.kty !== "oct") return fail("NotSupportedError", `${name} takes the formats raw and jwk (oct)`);
    return make("secret", { tag: "raw", val: fromBase64Url(String(jwk.k)) });
  }
  if (format === "jwk") {
    const jwk = data as Record<string, unknown>;
    return make("d" in jwk ? "private" : "public", { tag: "jwk", val: JSON.stringify(jwk) });
  }
  if (format === "raw" && typeof (data as { secret?: unknown }).secret === "string") {
    const type = usages.includes("sign") ? "private" : "public";
    return make(type, { tag: "secret", val: (data as { secret: string }).secret });
  }
  const title = { spki: "PUBLIC KEY", pkcs8: "PRIVATE KEY" }[format];
  if (title === undefined) return fail("NotSupportedError", `${name} takes the formats jwk, spki and pkcs8`);
  const pem = `-----BEGIN ${title}-----\n${toBase64(bytesOf(data))}\n-----END ${title}-----\n`;
  return make(format === "spki" ? "public" : "private", { tag: "pem", val: pem });
}

/** The signature algorithm of a key, with the hash that a call gives for ECDSA. */
function signatureOf(key: CryptoKey, call: { name: string; [key: string]: unknown }): raw.Algorithm {
  const { name, namedCurve } = key.algorithm;
  const hash = name === "ECDSA" ? call.hash : key.algorithm.hash;
  if (name === "Ed25519") return "eddsa";
  const hashed = hashOf(hash);
  if (name === "RSASSA-PKCS1-v1_5" && hashed === "sha256") return "rs256";
  if (name === "RSA-PSS" && hashed === "sha256" && (call.saltLength ?? 32) === 32) return "ps256";
  if (name === "ECDSA" && namedCurve === "P-256" && hashed === "sha256") return "es256";
  if (name === "ECDSA" && namedCurve === "P-384" && hashed === "sha384") return "es384";
  const known = "RSA with SHA-256 (salt of 32 bytes), P-256 with SHA-256, and P-384 with SHA-384";
  return fail("NotSupportedError", `the gateway has ${known}`);
}

function aes(algorithm: AlgorithmName, key: CryptoKey, usage: Usage): [raw.Key, Uint8Array, Uint8Array] {
  const { name, iv, additionalData, tagLength } = normal(algorithm);
  if (tagLength !== undefined && tagLength !== 128) fail("NotSupportedError", "the tag has 128 bits");
  const additional = additionalData === undefined ? new Uint8Array() : bytesOf(additionalData);
  return [CryptoKey.material(key, usage, name), bytesOf(iv), additional];
}

function normal(algorithm: AlgorithmName): { name: string; [key: string]: unknown } {
  const parts = typeof algorithm === "string" ? { name: algorithm } : algorithm;
  const name = NAMES[String(parts?.name).toLowerCase()];
  if (name !== undefined) return { ...parts, name };
  return fail("NotSupportedError", `the algorithm ${shown(parts?.name)} is not one of ${Object.values(NAMES).join(", ")}`);
}

function hashOf(hash: unknown): raw.Hash {
  const name = typeof hash === "string" ? hash : (hash as { name?: unknown } | undefined)?.name;
  const known = HASHES[String(name).toUpperCase()];
  return known ?? fail("NotSupportedError", `the hash ${shown(name)} is not one of ${Object.keys(HASHES).join(", ")}`);
}

function bytesOf(data: unknown): Uint8Array {
  const bytes = viewedBytes(data);
  if (bytes !== undefined) return bytes;
  throw new TypeError(`data must be a buffer or a view of one, not ${shown(data)}`);
}

/** The results of the standard are buffers. */
function buffer(bytes: Uint8Array): ArrayBuffer {
  return (bytes.byteLength === bytes.buffer.byteLength ? bytes : bytes.slice()).buffer as ArrayBuffer;
}

function settled<T>(work: () => T): Promise<T> {
  return new Promise((resolve) => resolve(work()));
}

function fail(name: string, message: string): never {
  throw new DOMException(`crypto.subtle: ${message}`, name);
}

/** Errors of the gateway become exceptions of the standard. */
function call<T>(work: () => T): T {
  try {
    return work();
  } catch (refusal) {
    const error = ((refusal as { payload?: raw.Error }).payload ?? refusal) as raw.Error;
    if (typeof error !== "object" || error === null || !("tag" in error)) throw refusal;
    return fail(error.tag === "invalid-key" ? "DataError" : "OperationError", error.val);
  }
}
