"""PyJWT as an issuer: keys, tokens of each algorithm, and tokens that nothing may accept, as one JSON object."""

import base64
import hashlib
import hmac
import json
import time

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

NOW = int(time.time())
CLAIMS = {
    "iss": "https://id.example.com",
    "aud": ["account", "tickcast"],
    "sub": "u-17",
    "iat": NOW,
    "nbf": NOW,
    "exp": NOW + 600,
    "jti": "1",
    "tickcast": {"allow": [{"symbols": ["SIM-*"], "channels": ["quote"]}]},
}
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
KEYS = {
    "RS256": (RSA, RSAAlgorithm),
    "PS256": (RSA, RSAAlgorithm),
    "ES256": (ec.generate_private_key(ec.SECP256R1()), ECAlgorithm),
    "ES384": (ec.generate_private_key(ec.SECP384R1()), ECAlgorithm),
    "EdDSA": (ed25519.Ed25519PrivateKey.generate(), OKPAlgorithm),
}


def part(value):
    """A part of a token."""
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def sign(algorithm, claims=CLAIMS, **headers):
    return jwt.encode(claims, KEYS[algorithm][0], algorithm=algorithm, headers={"kid": algorithm} | headers)


def confused(algorithm, encoding, form):
    """An HMAC whose secret is the public key."""
    secret = KEYS[algorithm][0].public_key().public_bytes(encoding, form)
    signed = part({"alg": "HS256", "typ": "JWT", "kid": algorithm}) + "." + part(CLAIMS)
    return signed + "." + part(hmac.new(secret, signed.encode(), hashlib.sha256).digest())


def tampered():
    header, claims, signature = sign("ES256").split(".")
    return ".".join([header, part(CLAIMS | {"sub": "admin"}), signature])


pem = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
der = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
jwks = []
for name, (key, kind) in KEYS.items():
    jwks.append(kind.to_jwk(key.public_key(), as_dict=True) | {"kid": name, "use": "sig", "alg": name})
print(
    json.dumps(
        {
            "jwks": {"keys": jwks},
            "tokens": {name: sign(name) for name in KEYS},
            "forged": {
                "alg none": jwt.encode(CLAIMS, None, algorithm="none"),
                "alg none, kid": jwt.encode(CLAIMS, None, algorithm="none", headers={"kid": "ES256"}),
                "HMAC with the PEM of RSA": confused("RS256", *pem),
                "HMAC with the DER of RSA": confused("RS256", *der),
                "HMAC with the PEM of P-256": confused("ES256", *pem),
                "RS256 with the key of PS256": sign("RS256", kid="PS256"),
                "another key's kid": sign("ES256", kid="EdDSA"),
                "no such kid": sign("ES256", kid="../../../../dev/null"),
                "kid of SQL": sign("ES256", kid="x' UNION SELECT 'key"),
                "own key in the header": sign("ES256", kid="own", jwk=jwks[2]),
                "key at a URL": sign("ES256", kid="own", jku="https://attacker.example.com/jwks"),
                "unknown crit": sign("ES256", crit=["x"], x=1),
                "tampered": tampered(),
                "expired": sign("ES256", CLAIMS | {"exp": NOW - 3600}),
                "not yet": sign("ES256", CLAIMS | {"nbf": NOW + 3600}),
                "no exp": sign("ES256", {name: value for name, value in CLAIMS.items() if name != "exp"}),
                "no aud": sign("ES256", {name: value for name, value in CLAIMS.items() if name != "aud"}),
                "another aud": sign("ES256", CLAIMS | {"aud": "account"}),
                "another iss": sign("ES256", CLAIMS | {"iss": "https://id.example.com/"}),
                "lives too long": sign("ES256", CLAIMS | {"exp": NOW + 400 * 86400}),
                "over 8 KiB": sign("ES256", CLAIMS | {"x": "x" * 6200}),
            },
        }
    )
)
