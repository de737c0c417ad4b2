// The parts of a token and the rules for its claims. Everything here is a pure function.
//
// This module does not know keys.
import type { Algorithm } from "@witgate/filter/crypto";

/** A key of the issuer. Its other members are for the gateway's cryptography. */
export interface Jwk {
  kty: string;
  kid?: string;
  alg?: string;
  use?: string;
  [member: string]: unknown;
}

/** What a token says. */
export interface Claims {
  iss?: unknown;
  sub?: unknown;
  aud?: unknown;
  exp?: unknown;
  nbf?: unknown;
  [claim: string]: unknown;
}

/** A token whose signature has not been checked. */
export interface Token {
  header: { alg: Algorithm; kid?: string };
  claims: Claims;
  /** What the signature is of. */
  signed: string;
  signature: Uint8Array;
}

/** The algorithms that a token may choose. `none` and shared keys are not among them. */
const ALGORITHMS = new Set(["RS256", "PS256", "ES256", "ES384", "EdDSA"]);

/** Takes a token apart. Returns why it cannot be one. */
export function parseToken(token: string, decode: (text: string) => Uint8Array): Token | string {
  const [head = "", body = "", signature = ""] = token.split(".");
  try {
    const header = JSON.parse(new TextDecoder().decode(decode(head))) as Record<string, unknown>;
    const claims = JSON.parse(new TextDecoder().decode(decode(body))) as Claims;
    if (typeof claims !== "object" || claims === null) return "the token is malformed";
    const { alg, kid, crit } = header;
    if (typeof alg !== "string" || !ALGORITHMS.has(alg)) return "the algorithm of the token is not accepted";
    if (crit !== undefined) return "the token has an extension that is not understood";
    if (kid !== undefined && typeof kid !== "string") return "the token is malformed";
    const checked = { alg: alg as Algorithm, ...(kid === undefined ? {} : { kid }) };
    return { header: checked, claims, signed: `${head}.${body}`, signature: decode(signature) };
  } catch {
    return "the token is malformed";
  }
}

/** What the claims must be. */
export interface Expected {
  now: number;
  leeway: number;
  issuer: string | undefined;
  audience: string | undefined;
}

/** Returns which claim is wrong, or undefined. A token without `exp` is refused. */
export function checkClaims(claims: Claims, expected: Expected): string | undefined {
  const { now, leeway, issuer, audience } = expected;
  if (typeof claims.exp !== "number" || claims.exp + leeway <= now) return "the token has expired";
  if (claims.nbf !== undefined && (typeof claims.nbf !== "number" || claims.nbf - leeway > now)) {
    return "the token is not valid yet";
  }
  if (issuer !== undefined && claims.iss !== issuer) return "the token is from another issuer";
  const audiences = Array.isArray(claims.aud) ? claims.aud : [claims.aud];
  if (audience !== undefined && !audiences.includes(audience)) return "the token is for another audience";
  return undefined;
}
