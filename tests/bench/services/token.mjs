// Prints key pairs and a token of each, as JSON: what an issuer would publish and sign.
import { generateKeyPairSync, sign } from "node:crypto";

const claims = { iss: "issuer", aud: ["api"], sub: "ada", exp: Math.floor(Date.now() / 1000) + 86_400 };
const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

function issue(alg, type, options) {
  const { publicKey, privateKey } = generateKeyPairSync(type, options);
  const signed = `${part({ alg, kid: alg })}.${part(claims)}`;
  const signature = sign("sha256", Buffer.from(signed), { key: privateKey, dsaEncoding: "ieee-p1363" });
  return {
    alg,
    jwk: { ...publicKey.export({ format: "jwk" }), kid: alg, use: "sig", alg },
    spki: publicKey.export({ format: "der", type: "spki" }).toString("base64"),
    token: `${signed}.${signature.toString("base64url")}`,
  };
}

console.log(
  JSON.stringify([issue("RS256", "rsa", { modulusLength: 2048 }), issue("ES256", "ec", { namedCurve: "P-256" })]),
);
