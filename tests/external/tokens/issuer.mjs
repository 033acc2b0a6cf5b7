// npm's jose as an issuer: keys and tokens of each algorithm, as one JSON object.

import { SignJWT, exportJWK, generateKeyPair } from "../../../target/interop/node_modules/jose/dist/webapi/index.js";

const keys = [];
const tokens = {};
for (const alg of ["RS256", "PS256", "ES256", "ES384", "EdDSA"]) {
  const { publicKey, privateKey } = await generateKeyPair(alg, { crv: alg === "EdDSA" ? "Ed25519" : undefined });
  keys.push({ ...(await exportJWK(publicKey)), kid: alg, alg, use: "sig" });
  tokens[alg] = await new SignJWT({ tickcast: { allow: [{ symbols: ["SIM-*"], channels: ["quote"] }] } })
    .setProtectedHeader({ alg, kid: alg, typ: "at+jwt" })
    .setIssuer("https://id.example.com")
    .setAudience("tickcast")
    .setSubject("u-17")
    .setIssuedAt()
    .setExpirationTime("10m")
    .sign(privateKey);
}
console.log(JSON.stringify({ jwks: { keys }, tokens, forged: {} }));
