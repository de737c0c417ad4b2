// The services `http` and `crypto` on the fake of the gateway.
import { afterEach, expect, test, vi } from "vitest";
import { base64url, crypto, hex, subtle } from "../src/crypto.ts";
import { interfaces } from "../src/fake.ts";
import { fetch, http, HttpError } from "../src/http.ts";
import { fake, type FakeCall } from "../src/testing.ts";

afterEach(() => vi.restoreAllMocks());

// RFC 8037, appendix A.
const ED25519 = {
  kty: "OKP",
  crv: "Ed25519",
  d: "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
  x: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
};

test("a call has the parts that the filter gives, and its response is read in several forms", () => {
  const calls: FakeCall[] = [];
  fake({
    http: (call) => {
      calls.push(call);
      return { status: 201, headers: { "X-A": "1" }, body: '{"a":1}' };
    },
  });
  const response = http.post("https://a.example/x", { b: 2 }, { headers: { "x-b": 1 }, timeoutMs: 50.9 });
  expect([response.status, response.ok, response.headers.get("x-a"), response.json()]).toEqual([201, true, "1", { a: 1 }]);
  http.get(new URL("https://a.example/y"));
  http.send("https://a.example/z", { method: "PUT", body: new URLSearchParams({ q: "a b" }) });
  const shown = calls.map(({ method, url, headers, body, timeoutMs }) =>
    [method, url, ...headers.flat(), new TextDecoder().decode(body), timeoutMs].join(" "),
  );
  expect(shown).toEqual([
    'POST https://a.example/x content-type application/json x-b 1 {"b":2} 50',
    "GET https://a.example/y  0",
    "PUT https://a.example/z content-type application/x-www-form-urlencoded;charset=UTF-8 q=a+b 0",
  ]);
});

test("a call without a response throws an error of its kind", async () => {
  fake();
  expect(() => http.get("https://a.example")).toThrow("GET https://a.example: denied:");
  const failure = await fetch("https://a.example").catch((error: unknown) => error);
  expect(failure).toBeInstanceOf(HttpError);
  expect((failure as HttpError).kind).toBe("denied");
});

test("mistakes are exceptions before the call", async () => {
  fake({ http: () => ({ status: 302, headers: { location: "/" } }) });
  const wrong = (call: () => unknown, text: string) => expect(call).toThrow(text);
  wrong(() => http.send("u", { body: { a: 1 } as never }), "use JSON.stringify");
  wrong(() => http.send("u", { timeoutMs: 0 }), "timeoutMs");
  wrong(() => http.get("u", { headers: { host: "x" } }), "only the gateway writes");
  wrong(() => http.get(1 as never), "the URL must be a string");
  await expect(fetch("u", { redirect: "follow" as never })).rejects.toThrow("never follows");
  await expect(fetch("u", { redirect: "error" })).rejects.toThrow("redirect");
  const response = await fetch("u");
  expect([response.status, response.redirected, await response.text()]).toEqual([302, false, ""]);
});

test("digests, codes, signatures and encryption", () => {
  fake({ secrets: { shared: "Jefe" } });
  expect(hex.encode(crypto.digest("SHA-1", "abc"))).toBe("a9993e364706816aba3e25717850c26c9cd0d89d");
  const code = crypto.hmac("SHA-256", { secret: "shared" }, "what do ya want for nothing?");
  expect(hex.encode(code)).toBe("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  expect(crypto.equal(code, hex.decode(hex.encode(code)))).toBe(true);
  const signed = crypto.sign("EdDSA", ED25519, "data");
  expect([crypto.verify("EdDSA", ED25519, "data", signed), crypto.verify("EdDSA", ED25519, "x", signed)]).toEqual([true, false]);
  const key = new Uint8Array(32);
  const sealed = crypto.encrypt(key, "text", "more");
  expect(crypto.decrypt(key, sealed, "more")).toEqual(new TextEncoder().encode("text"));
  expect([crypto.decrypt(key, sealed), crypto.decrypt(key, new Uint8Array(3))]).toEqual([undefined, undefined]);
  expect(crypto.derive("SHA-256", "passwd", "salt", 1, 32).length).toBe(32);
  expect(base64url.decode(base64url.encode("\u{1f600}>?"))).toEqual(new TextEncoder().encode("\u{1f600}>?"));
});

test("refusals and mistakes of cryptography say what is wrong", () => {
  fake();
  const wrong = (call: () => unknown, text: string) => expect(call).toThrow(text);
  wrong(() => crypto.hmac("SHA-256", { secret: "absent" }, "x"), "crypto.hmac: denied: there is no key");
  wrong(() => crypto.verify("EdDSA", "no key", "x", "y"), "invalid-key");
  wrong(() => crypto.digest("MD5" as never, "x"), "the hash must be");
  wrong(() => crypto.sign("HS256" as never, ED25519, "x"), "the algorithm must be");
  wrong(() => crypto.derive("SHA-256", "p", "s", 1.5, 32), "iterations");
  wrong(() => base64url.decode("a+b"), "base64url");
  wrong(() => hex.decode("abc"), "hexadecimal");
  vi.spyOn(interfaces.crypto, "digest").mockImplementation(() => {
    throw { payload: { tag: "invalid", val: "too much" } };
  });
  wrong(() => crypto.digest("SHA-1", "x"), "crypto.digest: invalid: too much");
});

test("crypto.subtle signs, verifies, encrypts and derives", async () => {
  fake({ secrets: { shared: "Jefe" } });
  const bytes = (text: string) => new TextEncoder().encode(text);
  const hmac = await subtle.importKey("raw", bytes("Jefe"), { name: "hmac", hash: "SHA-256" }, false, ["sign", "verify"]);
  const code = await subtle.sign("HMAC", hmac, bytes("x"));
  const secret = { secret: "shared" };
  const same = await subtle.importKey("raw", secret, { name: "HMAC", hash: { name: "sha-256" } }, false, ["verify"]);
  expect(await subtle.verify("HMAC", same, code, bytes("x"))).toBe(true);
  await expect(subtle.sign("HMAC", same, bytes("x"))).rejects.toThrow("usage sign");
  const ed = await subtle.importKey("jwk", ED25519, "Ed25519", false, ["sign", "verify"]);
  expect(await subtle.verify("Ed25519", ed, await subtle.sign("Ed25519", ed, bytes("x")), bytes("x"))).toBe(true);
  const aes = await subtle.importKey("raw", new Uint8Array(16), "AES-GCM", false, ["encrypt", "decrypt"]);
  const algorithm = { name: "AES-GCM", iv: new Uint8Array(12) };
  const sealed = await subtle.encrypt(algorithm, aes, bytes("text"));
  expect(new Uint8Array(await subtle.decrypt(algorithm, aes, sealed))).toEqual(bytes("text"));
  await expect(subtle.decrypt(algorithm, aes, new Uint8Array(20))).rejects.toThrow("cannot be decrypted");
  const password = await subtle.importKey("raw", bytes("p"), "PBKDF2", false, ["deriveBits"]);
  const derive = { name: "PBKDF2", hash: "SHA-256", salt: bytes("s"), iterations: 2 };
  expect((await subtle.deriveBits(derive, password, 256)).byteLength).toBe(32);
  expect((await subtle.digest("SHA-384", bytes(""))).byteLength).toBe(48);
  const ec = { name: "ECDSA", namedCurve: "P-256" };
  const wrong = await subtle.importKey("jwk", { kty: "EC" }, ec, false, ["sign"]);
  await expect(subtle.sign({ name: "ECDSA", hash: "SHA-384" }, wrong, bytes(""))).rejects.toThrow("P-384");
});
