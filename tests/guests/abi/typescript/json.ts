// The job of `just bench-abi` in TypeScript, with the request as JSON.
import { encode } from "../../../../guests/sdk/typescript/src/text.ts";

type Head = { headers: [string, string][] };

/** The engine has no TextDecoder. This is the fastest that its built-in functions give: with the SDK's decoder a call takes more than twice as long. */
function decode(bytes: Uint8Array): string {
  const units = String.fromCharCode.apply(null, bytes as unknown as number[]);
  return /[^\0-\x7f]/.test(units) ? decodeURIComponent(escape(units)) : units;
}

export const jsonHandler = {
  handle(head: Uint8Array) {
    const { headers } = JSON.parse(decode(head)) as Head;
    if (headers.find(([name]) => name === "x-api-key")?.[1] !== "s3cret") return encode('{"respond":401}');
    const edits = [{ set: ["x-user", "alice"] }, { remove: "cookie" }, { set: ["authorization", "Bearer internal"] }];
    return encode(JSON.stringify({ modify: edits }));
  },
};
