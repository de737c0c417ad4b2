// Accepts a request only with a JSON Web Token (RFC 7519) that the issuer signed.
//
// The issuer's keys come from its key set (RFC 7517) and are kept in the key-value store. An issuer
// that changes its keys names a key in a token that the filter does not know: then the filter
// fetches the set again, at most once in `refetch_seconds`, so that invented names cause no flood.
import { config, log, reply, type Reply, type Request } from "@witgate/filter";
import { type Algorithm, base64url, crypto } from "@witgate/filter/crypto";
import { http } from "@witgate/filter/http";
import { keyvalue } from "@witgate/filter/keyvalue";
import { checkClaims, type Claims, type Jwk, parseToken } from "./token.ts";

const KEYS = "jwks";
const FETCHED = "jwks.fetched";

export function onRequest(request: Request): Reply | void {
  const token = /^Bearer +([\w-]+\.[\w-]+\.[\w-]+)$/i.exec(request.header("authorization") ?? "")?.[1];
  if (token === undefined) return unauthorized("a bearer token is required");
  const parsed = parseToken(token, base64url.decode);
  if (typeof parsed === "string") return unauthorized(parsed);
  const { header, claims, signed, signature } = parsed;
  let keys: Jwk[];
  try {
    keys = keysFor(header.kid);
  } catch (error) {
    // Without the keys no token can be checked, and a token that is not checked is not valid.
    log.error(`the keys of the issuer cannot be fetched: ${String(error)}`);
    return reply(503, { error: "tokens cannot be checked at the moment" });
  }
  const candidates = keys.filter((key) => fits(key, header.kid, header.alg));
  if (!candidates.some((key) => crypto.verify(header.alg, key, signed, signature))) {
    return unauthorized("the signature is not valid");
  }
  const now = Math.floor(Date.now() / 1000);
  const wrong = checkClaims(claims, {
    now,
    leeway: config.number("leeway_seconds", 30),
    issuer: config.get("issuer"),
    audience: config.get("audience"),
  });
  if (wrong !== undefined) return unauthorized(wrong);
  forward(request, claims);
}

/** Replaces what the client sent: only a token says who the user is. */
function forward(request: Request, claims: Claims): void {
  request.setHeader("x-user", typeof claims.sub === "string" ? claims.sub : "");
  request.removeHeader("authorization");
}

/** The keys of the issuer: from the store, or fetched anew if they do not contain this one. */
function keysFor(kid: string | undefined): Jwk[] {
  const known = keyvalue.get(KEYS);
  const keys = known === undefined ? undefined : (JSON.parse(known) as Jwk[]);
  if (keys !== undefined && (kid === undefined || keys.some((key) => key.kid === kid))) return keys;
  // Only the first of simultaneous calls fetches. The others use what is known.
  const isFirst = keyvalue.increment(FETCHED, 1, config.number("refetch_seconds", 10) * 1000) === 1;
  if (keys !== undefined && !isFirst) return keys;
  try {
    return fetchKeys();
  } catch (error) {
    if (keys === undefined) throw error;
    log.warn(`the keys of the issuer cannot be fetched again: ${String(error)}`);
    return keys;
  }
}

function fetchKeys(): Jwk[] {
  const url = config.get("jwks_url");
  if (url === undefined) throw new Error("config: jwks_url is missing");
  const response = http.get(url, { headers: { accept: "application/json" } });
  if (!response.ok) throw new Error(`${url} answered with status ${response.status}`);
  const { keys } = response.json() as { keys?: Jwk[] };
  if (!Array.isArray(keys)) throw new Error(`${url} has no array "keys"`);
  const usable = keys.filter((key) => key.use === undefined || key.use === "sig").slice(0, 20);
  keyvalue.set(KEYS, JSON.stringify(usable), config.number("cache_seconds", 600) * 1000);
  return usable;
}

const KEY_TYPES: Record<Algorithm, string> = { RS256: "RSA", PS256: "RSA", ES256: "EC", ES384: "EC", EdDSA: "OKP" };

function fits(key: Jwk, kid: string | undefined, algorithm: Algorithm): boolean {
  const isNamed = kid === undefined || key.kid === undefined || key.kid === kid;
  return isNamed && key.kty === KEY_TYPES[algorithm] && (key.alg === undefined || key.alg === algorithm);
}

function unauthorized(why: string): Reply {
  const challenge = `Bearer error="invalid_token", error_description="${why}"`;
  return reply(401, { error: why }, { headers: { "www-authenticate": challenge } });
}
