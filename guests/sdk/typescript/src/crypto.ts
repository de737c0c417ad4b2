// Cryptography: `import { crypto } from "@witgate/filter/crypto"`.
//
// It is a module of its own because a component may import only what its manifest asks for. The
// functions are those of the gateway. `subtle` gives the same by the Web Cryptography API.
import * as raw from "witgate:gateway/crypto@0.1.0";
import { fromBase64Url, fromHex, toBase64Url, toHex } from "./base64.ts";
import { checkedString, shown, viewedBytes } from "./check.ts";
import { encode } from "./text.ts";

export { subtle } from "./web/subtle.ts";

/** A hash function. SHA-1 is only for protocols that demand it. */
export type Hash = "SHA-1" | "SHA-256" | "SHA-384" | "SHA-512";

/** A signature algorithm, as the header of a token names it. */
export type Algorithm = "RS256" | "PS256" | "ES256" | "ES384" | "EdDSA";

/** Text stands for its bytes in UTF-8. */
export type Data = string | ArrayBuffer | ArrayBufferView;

/** A key that the operator gave to the filter under `crypto.keys`. It does not enter the filter. */
export interface SecretName {
  secret: string;
}

/** A shared key or a password: its bytes, or the name of a secret. */
export type SharedKey = Data | SecretName;

/** A key of a key pair: a JSON Web Key, the text of one, a PEM text, or the name of a secret. */
export type PairKey = string | Record<string, unknown> | SecretName;

/** Why the gateway refused a key or another argument. `kind` is the case. */
export class CryptoError extends Error {
  readonly kind: raw.Error["tag"];

  constructor(kind: raw.Error["tag"], message: string) {
    super(message);
    this.name = "CryptoError";
    this.kind = kind;
  }
}

const HASHES: Record<string, raw.Hash> = {
  "SHA-1": "sha1",
  "SHA-256": "sha256",
  "SHA-384": "sha384",
  "SHA-512": "sha512",
};
const ALGORITHMS: Record<string, raw.Algorithm> = {
  RS256: "rs256",
  PS256: "ps256",
  ES256: "es256",
  ES384: "es384",
  EdDSA: "eddsa",
  Ed25519: "eddsa",
};

/**
 * Cryptography. Requires `services = ["crypto"]` in filter.toml and `capabilities: [crypto]` in
 * gateway.yaml.
 *
 * The functions throw a {@link CryptoError} for a key or an argument that the gateway refuses, and
 * a TypeError for a value of a wrong type.
 */
export const crypto = {
  /** Returns the digest of `data`. */
  digest(hash: Hash, data: Data): Uint8Array {
    return call("digest", () => raw.digest(checkedHash(hash), bytesOf(data)));
  },
  /** Returns the message authentication code (HMAC) of `data`. */
  hmac(hash: Hash, key: SharedKey, data: Data): Uint8Array {
    return call("hmac", () => raw.hmac(checkedHash(hash), sharedKey(key), bytesOf(data)));
  },
  /**
   * Compares two values in a time that depends on their lengths only. Use it for codes and tokens.
   */
  equal(a: Data, b: Data): boolean {
    return raw.equal(bytesOf(a), bytesOf(b));
  },
  /** Returns whether `signature` is the signature of `data`. */
  verify(algorithm: Algorithm, key: PairKey, data: Data, signature: Data): boolean {
    const checked = checkedAlgorithm(algorithm);
    return call("verify", () => raw.verify(checked, pairKey(key), bytesOf(data), bytesOf(signature)));
  },
  /** Returns the signature of `data`. ECDSA gives r and s, as tokens have it. */
  sign(algorithm: Algorithm, key: PairKey, data: Data): Uint8Array {
    const checked = checkedAlgorithm(algorithm);
    return call("sign", () => raw.sign(checked, pairKey(key), bytesOf(data)));
  },
  /**
   * Encrypts with AES-GCM. The key has 16 or 32 bytes. Returns the nonce of 12 random bytes, the
   * encrypted text and its tag in one value, which `decrypt` takes.
   */
  encrypt(key: SharedKey, data: Data, additional: Data = ""): Uint8Array {
    const nonce = globalThis.crypto.getRandomValues(new Uint8Array(12));
    const sealed = call("encrypt", () => raw.encrypt(sharedKey(key), nonce, bytesOf(data), bytesOf(additional)));
    const joined = new Uint8Array(nonce.length + sealed.length);
    joined.set(nonce);
    joined.set(sealed, nonce.length);
    return joined;
  },
  /** Decrypts what `encrypt` returned. Undefined if it is something else or the key differs. */
  decrypt(key: SharedKey, data: Uint8Array, additional: Data = ""): Uint8Array | undefined {
    if (data.length < 12) return undefined;
    const [nonce, sealed] = [data.slice(0, 12), data.slice(12)];
    return call("decrypt", () => raw.decrypt(sharedKey(key), nonce, sealed, bytesOf(additional))) ?? undefined;
  },
  /** Derives a key of `length` bytes (1 to 64) from a password, with PBKDF2. */
  derive(hash: Hash, password: SharedKey, salt: Data, iterations: number, length: number): Uint8Array {
    const checked = checkedHash(hash);
    for (const [name, value] of [["iterations", iterations] as const, ["length", length] as const]) {
      if (Number.isInteger(value) && value >= 1 && value <= 1_000_000) continue;
      throw new RangeError(`${name} must be a whole number from 1 to 1000000, not ${shown(value)}`);
    }
    return call("derive", () => raw.derive(checked, sharedKey(password), bytesOf(salt), iterations, length));
  },
};

/** Base64 with the alphabet of URLs and without padding, as tokens have it. */
export const base64url = {
  /** Encodes text or bytes. */
  encode: (data: Data): string => toBase64Url(bytesOf(data)),
  /** Decodes a text. Throws a SyntaxError if it is something else. */
  decode: (text: string): Uint8Array => fromBase64Url(text),
};

/** Hexadecimal digits. */
export const hex = {
  /** Encodes text or bytes, in lower case. */
  encode: (data: Data): string => toHex(bytesOf(data)),
  /** Decodes a text. Throws a SyntaxError if it is something else. */
  decode: (text: string): Uint8Array => fromHex(text),
};

/** The bytes of text, of a buffer or of a view. */
function bytesOf(data: Data): Uint8Array {
  if (typeof data === "string") return encode(data);
  const bytes = viewedBytes(data);
  if (bytes !== undefined) return bytes;
  throw new TypeError(`data must be text or bytes, not ${shown(data)}`);
}

function sharedKey(key: SharedKey): raw.Key {
  const name = secretName(key);
  if (name !== undefined) return { tag: "secret", val: name };
  return { tag: "raw", val: bytesOf(key as Data) };
}

function pairKey(key: PairKey): raw.Key {
  const name = secretName(key);
  if (name !== undefined) return { tag: "secret", val: name };
  if (typeof key === "string") return key.trimStart().startsWith("{") ? { tag: "jwk", val: key } : { tag: "pem", val: key };
  if (typeof key === "object" && key !== null) return { tag: "jwk", val: JSON.stringify(key) };
  throw new TypeError(`a key must be a JSON Web Key, a PEM text or {secret: NAME}, not ${shown(key)}`);
}

/** A JSON Web Key has `kty`; the name of a secret has nothing but `secret`. */
function secretName(key: unknown): string | undefined {
  if (typeof key !== "object" || key === null || !("secret" in key) || "kty" in key) return undefined;
  return checkedString("the name of a secret", key.secret);
}

function checkedHash(hash: unknown): raw.Hash {
  const known = HASHES[String(hash).toUpperCase()];
  if (known !== undefined) return known;
  throw new TypeError(`the hash must be SHA-1, SHA-256, SHA-384 or SHA-512, not ${shown(hash)}`);
}

function checkedAlgorithm(algorithm: unknown): raw.Algorithm {
  const known = typeof algorithm === "string" && Object.hasOwn(ALGORITHMS, algorithm) ? ALGORITHMS[algorithm] : undefined;
  if (known !== undefined) return known;
  throw new TypeError(`the algorithm must be RS256, PS256, ES256, ES384 or EdDSA, not ${shown(algorithm)}`);
}

/** Errors of the gateway are plain objects: throws a CryptoError with a message. */
function call<T>(operation: string, work: () => T): T {
  try {
    return work();
  } catch (refusal) {
    const error = ((refusal as { payload?: raw.Error }).payload ?? refusal) as raw.Error;
    if (typeof error === "object" && error !== null && "tag" in error) {
      throw new CryptoError(error.tag, `crypto.${operation}: ${error.tag}: ${error.val}`);
    }
    throw refusal;
  }
}
