// Test fixture: says what it finds in its globals, then writes to all of them. A later call must find nothing.
import { reply, type Reply, type Request } from "@witgate/filter";

let counter = 0;
const list: number[] = [];
const world = globalThis as { mark?: number };

export function onRequest(_: Request): Reply {
  const found = { counter, list: list.length, mark: world.mark ?? 0, table: Object.keys(Array.prototype).length };
  counter += 1;
  for (let i = 0; i < 1000; i++) list.push(i);
  world.mark = 1;
  (Array.prototype as unknown as Record<string, number>)["leak"] = 1;
  return reply(200, found);
}
