// Test fixture: shows what an author's usual calls give in the sandbox, and fails in the ways that a header asks for.
import { reply, type Reply, type Request } from "@witgate/filter";

export function onRequest(request: Request): Reply {
  const fail = request.header("x-fail");
  if (fail === "throw") missing();
  if (fail === "loop") for (;;);
  if (fail === "memory") {
    const hoard: unknown[] = [];
    for (;;) hoard.push(new Uint8Array(1 << 20));
  }
  if (fail === "recursion") recurse(0);
  console.log("probe", { a: 1 });
  const tricky = "aé€😀\ud800";
  return reply(200, {
    random: Math.random(),
    uuid: crypto.randomUUID(),
    now: Date.now(),
    iso: new Date().toISOString(),
    fixed: new Date(2020, 1, 2).getFullYear(),
    isDate: new Date() instanceof Date,
    text: new TextDecoder().decode(new TextEncoder().encode(tricky)),
    bytes: new TextEncoder().encode(tricky).length,
  });
}

function missing(): never {
  throw new TypeError("on purpose");
}

function recurse(depth: number): number {
  return recurse(depth + 1) + 1;
}
