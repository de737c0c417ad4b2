// Accepts a webhook only if its sender knows the shared key (HMAC-SHA-256 of the body, as GitHub,
// Shopify and others sign). The key is the secret `webhook`, which does not enter the filter.
import { config, reply, type Reply, type Request } from "@witgate/filter";
import { crypto, hex } from "@witgate/filter/crypto";

export function onRequest(request: Request): Reply | void {
  const field = config.get("header") ?? "x-hub-signature-256";
  const digits = /^(?:sha256=)?([0-9a-f]{64})$/i.exec(request.header(field) ?? "")?.[1];
  if (digits === undefined) return reply(401, { error: `${field} has no signature` });
  const timeField = config.get("timestamp_header");
  let signed = request.bytes();
  if (timeField !== undefined) {
    const time = request.header(timeField) ?? "";
    const age = Math.abs(Date.now() / 1000 - Number(time));
    // The comparison is written so that a time that is not a number is too old.
    if (!/^\d+$/.test(time) || !(age <= config.number("age_seconds", 300))) {
      return reply(401, { error: `the time in ${timeField} is missing or too old` });
    }
    signed = joined(new TextEncoder().encode(`${time}.`), signed);
  }
  const code = crypto.hmac("SHA-256", { secret: "webhook" }, signed);
  if (!crypto.equal(code, hex.decode(digits))) return reply(401, { error: "the signature is wrong" });
  request.setHeader("x-webhook-verified", "true");
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array {
  const both = new Uint8Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}
