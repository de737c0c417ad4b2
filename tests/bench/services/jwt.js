// Accepts a request only with a token that the issuer signed, as guests/typescript/jwt does. njs
// starts each request with a new context, so the key is imported for each.
const KEYS = { RS256: "${RS256}", ES256: "${ES256}" };
const IMPORT = {
  RS256: { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" },
  ES256: { name: "ECDSA", namedCurve: "P-256" },
};
const VERIFY = { RS256: { name: "RSASSA-PKCS1-v1_5" }, ES256: { name: "ECDSA", hash: "SHA-256" } };

async function check(r) {
  let isValid = false;
  try {
    const parts = r.headersIn.authorization.slice(7).split(".");
    const alg = JSON.parse(Buffer.from(parts[0], "base64url").toString()).alg;
    const claims = JSON.parse(Buffer.from(parts[1], "base64url").toString());
    const key = await crypto.subtle.importKey("spki", Buffer.from(KEYS[alg], "base64"), IMPORT[alg], false, ["verify"]);
    const signature = Buffer.from(parts[2], "base64url");
    isValid =
      (await crypto.subtle.verify(VERIFY[alg], key, signature, `${parts[0]}.${parts[1]}`)) &&
      claims.iss === "issuer" &&
      claims.aud.indexOf("api") >= 0 &&
      claims.exp > Date.now() / 1000;
  } catch (e) {
    r.error(`${e}`);
  }
  r.return(isValid ? 204 : 401);
}

export default { check };
