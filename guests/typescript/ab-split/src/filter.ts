// Divides clients into variants. A client without a cookie gets a variant at random, by the shares;
// the response then sets the cookie that keeps the client there.
import { config, notes, type Request, type Response } from "@witgate/filter";

const NOTE = "ab-split.new";
const VARIANT = /^[\w-]{1,32}$/;

export function onRequest(request: Request): void {
  const shares = variants();
  const sent = cookie(request.header("cookie") ?? "", config.get("cookie") ?? "variant");
  let variant = sent !== undefined && shares.has(sent) ? sent : undefined;
  if (variant === undefined) {
    variant = pick(shares, Math.random());
    notes.set(NOTE, variant);
  }
  request.setHeader(config.get("header") ?? "x-variant", variant);
}

export function onResponse(response: Response): void {
  const variant = notes.get(NOTE);
  if (variant === undefined) return;
  const name = config.get("cookie") ?? "variant";
  const seconds = config.number("days", 30) * 86_400;
  response.appendHeader("set-cookie", `${name}=${variant}; Path=/; Max-Age=${seconds}; HttpOnly; SameSite=Lax`);
  // A cache must not give one client's cookie to another.
  response.appendHeader("vary", "cookie");
}

/** The share of each variant. A share of 0 keeps clients that have the variant. */
export function variants(): Map<string, number> {
  const shares = new Map<string, number>();
  for (const [name, share] of Object.entries(JSON.parse(config.get("variants") ?? "{}") as Record<string, number>)) {
    if (!VARIANT.test(name) || !(share >= 0)) {
      throw new TypeError(`config variants: ${name}: ${share} is not a name with a share`);
    }
    shares.set(name, share);
  }
  if (shares.size === 0) throw new TypeError("config variants: write the share of each variant, such as {a: 90, b: 10}");
  return shares;
}

/** The variant for a random number of at least 0 and below 1. */
export function pick(shares: Map<string, number>, random: number): string {
  let at = random * [...shares.values()].reduce((sum, share) => sum + share, 0);
  let picked = "";
  for (const [name, share] of shares) {
    picked = name;
    if (at < share) break;
    at -= share;
  }
  return picked;
}

/** The value of a cookie (RFC 6265, section 5.4). */
function cookie(header: string, name: string): string | undefined {
  const pair = header.split(";").find((part) => part.trim().startsWith(`${name}=`));
  return pair?.trim().slice(name.length + 1);
}
