import { fake, type FakeInit } from "@witgate/filter/testing";
import { base64url, crypto } from "@witgate/filter/crypto";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { onRequest } from "../src/filter.ts";

const NOW = 1_700_000_000_000;
const URL = "https://issuer.example/keys";
const CONFIG = { jwks_url: URL, issuer: "https://issuer.example", audience: "api" };
const node = (globalThis as any).process.getBuiltinModule("node:crypto");

const encoded = (value: unknown): string => base64url.encode(JSON.stringify(value));

function makePair(kid: string, alg: "RS256" | "ES256") {
  const [type, options] = alg === "RS256" ? ["rsa", { modulusLength: 2048 }] : ["ec", { namedCurve: "P-256" }];
  const { privateKey, publicKey } = node.generateKeyPairSync(type, options);
  const pem: string = privateKey.export({ type: "pkcs8", format: "pem" });
  return { kid, alg, pem, jwk: { ...publicKey.export({ format: "jwk" }), kid, alg, use: "sig" } };
}
type Pair = ReturnType<typeof makePair>;

const RSA = makePair("a", "RS256");
const EC = makePair("b", "ES256");
const CLAIMS = { iss: "https://issuer.example", aud: ["api"], sub: "ada", exp: NOW / 1000 + 60 };

function token(pair: Pair, claims: object = CLAIMS, header: object = { alg: pair.alg, kid: pair.kid }): string {
  const signed = `${encoded(header)}.${encoded(claims)}`;
  return `${signed}.${base64url.encode(crypto.sign(pair.alg, pair.pem, signed))}`;
}

let published: Pair[];
let fetches: number;

function send(bearer: string | undefined, init: FakeInit = {}) {
  vi.setSystemTime(init.now ?? NOW);
  const exchange = fake({
    config: CONFIG,
    now: NOW,
    headers: bearer === undefined ? {} : { authorization: `Bearer ${bearer}`, "x-user": "root" },
    http: ({ url }) => {
      expect(url).toBe(URL);
      fetches += 1;
      return { status: 200, body: JSON.stringify({ keys: published.map(({ jwk }) => jwk) }) };
    },
    ...init,
  });
  return { answer: onRequest(exchange.request), request: exchange.request, log: exchange.log };
}

afterEach(() => vi.useRealTimers());

beforeEach(() => {
  fake.reset();
  published = [RSA, EC];
  fetches = 0;
});

test("tokens of both algorithms pass, and the keys are fetched once", () => {
  for (const pair of [RSA, EC, RSA]) {
    const { answer, request } = send(token(pair));
    expect(answer).toBeUndefined();
    expect(request.header("x-user")).toBe("ada");
    expect(request.header("authorization")).toBeUndefined();
  }
  expect(fetches).toBe(1);
});

test("tokens that say or are something else are refused", () => {
  const foreign = { ...makePair("a", "RS256") };
  const [head, , signature] = token(RSA).split(".");
  for (const [bearer, why] of [
    [undefined, "required"],
    ["x.y.z", "malformed"],
    [token(RSA, { ...CLAIMS, exp: NOW / 1000 - 31 }), "expired"],
    [token(RSA, { ...CLAIMS, exp: undefined }), "expired"],
    [token(RSA, { ...CLAIMS, nbf: NOW / 1000 + 31 }), "not valid yet"],
    [token(RSA, { ...CLAIMS, iss: "other" }), "another issuer"],
    [token(RSA, { ...CLAIMS, aud: "other" }), "another audience"],
    [token(RSA, CLAIMS, { alg: "none", kid: "a" }), "algorithm"],
    [token(RSA, CLAIMS, { alg: "HS256", kid: "a" }), "algorithm"],
    [token(RSA, CLAIMS, { alg: "RS256", kid: "a", crit: ["x"] }), "extension"],
    [token(RSA, CLAIMS, { alg: "ES256", kid: "a" }), "signature"],
    [token(foreign), "signature"],
    [`${head}.${encoded({ ...CLAIMS, sub: "root" })}.${signature}`, "signature"],
  ] as const) {
    const { answer } = send(bearer);
    expect(answer?.status).toBe(401);
    expect(new TextDecoder().decode(answer?.body)).toContain(why);
  }
});

test("a key that is not known makes the filter fetch the keys again, but not often", () => {
  expect(send(token(RSA)).answer).toBeUndefined();
  const rotated = makePair("c", "ES256");
  published = [rotated];
  const later = { now: NOW + 11_000 };
  expect(send(token(rotated), later).answer).toBeUndefined();
  expect(fetches).toBe(2);
  for (let n = 0; n < 10; n++) expect(send(token(makePair(`invented-${n}`, "ES256")), later).answer?.status).toBe(401);
  expect(fetches).toBe(2);
});

test("the known keys stay in use while the issuer cannot be reached, and without keys nobody passes", () => {
  const http = () => ({ status: 500 });
  expect(send(token(RSA), { http }).answer?.status).toBe(503);
  fake.reset();
  expect(send(token(RSA)).answer).toBeUndefined();
  const { answer, log } = send(token(makePair("c", "ES256")), { http, now: NOW + 11_000 });
  expect(answer?.status).toBe(401);
  expect(log.join()).toContain("cannot be fetched again");
});
