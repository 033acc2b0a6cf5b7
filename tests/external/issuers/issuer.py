"""An issuer as Keycloak and Auth0 are seen from outside: discovery, key sets, tokens of their shape, refresh tokens.

It listens on a free port of 127.0.0.1, prints it, and serves until its stdin is closed. With the paths of a certificate
and its key as arguments it speaks TLS.
"""

import json
import ssl
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

REALM = "/realms/quotes"
CLAIM = "https://quotes.example.com/tickcast"
USERS = {
    "alice": {"sub": "0b9f1e0a-8a4c-4c55-9d4e-3f1f3f1f2a11", "products": ["CRYPTO-L1"]},
    "bob": {"sub": "5d7c2c1e-1c1b-4f43-8d21-77aa55bb66cc", "products": None},
}


def new_key():
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


# Keys by kid: one is withdrawn by `rotate`. Keycloak's sets also have a key for encryption.
keys = {"sig-1": new_key()}
encryption = new_key()
foreign = new_key()
settings = {"lifetime_s": 300, "fault": None}
refresh_tokens = {}


def jwks():
    def public(key, **more):
        return RSAAlgorithm.to_jwk(key.public_key(), as_dict=True) | more

    listed = [public(key, kid=kid, use="sig", alg="RS256") for kid, key in keys.items()]
    return {"keys": [public(encryption, kid="enc-1", use="enc", alg="RSA-OAEP"), *listed]}


def sign(claims, kid=None, key=None, typ="JWT"):
    kid = kid or list(keys)[-1]
    return jwt.encode(claims, key or keys[kid], algorithm="RS256", headers={"kid": kid, "typ": typ})


def keycloak_claims(base, user):
    now = int(time.time())
    claims = {
        "exp": now + settings["lifetime_s"],
        "iat": now,
        "jti": str(uuid.uuid4()),
        "iss": base + REALM,
        "aud": ["tickcast", "account"],
        "sub": USERS[user]["sub"],
        "typ": "Bearer",
        "azp": "dashboard",
        "sid": str(uuid.uuid4()),
        "acr": "1",
        "allowed-origins": [base],
        "realm_access": {"roles": ["offline_access", "default-roles-quotes"]},
        "resource_access": {"account": {"roles": ["manage-account", "view-profile"]}},
        "scope": "profile email tickcast",
        "preferred_username": user,
    }
    return claims | ({"tickcast": {"products": USERS[user]["products"]}} if USERS[user]["products"] else {})


def auth0_claims(base, user):
    now = int(time.time())
    claims = {
        "iss": base + "/",
        "sub": f"auth0|{user}",
        "aud": ["tickcast", base + "/userinfo"],
        "iat": now,
        "exp": now + settings["lifetime_s"],
        "scope": "openid profile",
        "azp": "2jmj7l5rSw0yVb",
    }
    return claims | ({CLAIM: {"products": USERS[user]["products"]}} if USERS[user]["products"] else {})


APP = """<!doctype html><meta charset="utf-8"><title>app</title><script type="module">
const server = new URLSearchParams(location.search).get("server");
const { connect } = await import(`${server}/tickcast.js`);
const { token_endpoint: endpoint } = await (await fetch("/realms/quotes/.well-known/openid-configuration")).json();
let session;
async function grant(body) {
  const form = new URLSearchParams({ client_id: "dashboard", ...body });
  const answer = await fetch(endpoint, { method: "POST", body: form });
  session = await answer.json();
}
await grant({ grant_type: "password", username: "alice" });
globalThis.reasons = [];
const token = async ({ reason }) => {
  reasons.push(reason);
  if (reason !== "connect") await grant({ grant_type: "refresh_token", refresh_token: session.refresh_token });
  return session.access_token;
};
const client = (globalThis.client = connect({ url: server, token }));
globalThis.dropped = [];
client.on("authenticated", (identity) => dropped.push(identity.dropped));
globalThis.quotes = client.subscribe({ symbols: ["BTC-USD", "ETH-USD"] });
</script>"""


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    @property
    def base(self):
        return f"{self.server.scheme}://{self.server.name}:{self.server.server_address[1]}"

    def answer(self, status, body, kind="application/json"):
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        path = urlsplit(self.path).path
        if path == "/app":
            return self.answer(200, APP, "text/html")
        if path in (REALM + "/protocol/openid-connect/certs", "/.well-known/jwks.json"):
            return self.faulty() if settings["fault"] else self.answer(200, jwks())
        if path == REALM + "/.well-known/openid-configuration":
            at = self.base + REALM
            return self.answer(200, self.discovery(at, at + "/protocol/openid-connect"))
        if path == "/.well-known/openid-configuration":
            return self.answer(200, self.discovery(self.base + "/", self.base + "/oauth"))
        self.answer(404, {"error": "not found"})

    def discovery(self, issuer, endpoints):
        certs = endpoints + "/certs" if "/realms/" in issuer else self.base + "/.well-known/jwks.json"
        return {"issuer": issuer, "jwks_uri": certs, "token_endpoint": endpoints + "/token"}

    def faulty(self):
        match settings["fault"]:
            case "html":
                self.answer(200, "<html>maintenance</html>", "text/html")
            case "huge":
                self.answer(200, {"keys": [], "padding": "x" * 70_000})
            case "none":
                self.answer(200, {"keys": []})
            case status:
                self.answer(int(status), "")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/control":
            settings.update(json.loads(body))
            return self.answer(200, {})
        if self.path == "/rotate":
            keys.clear()
            keys[f"sig-{uuid.uuid4()}"] = new_key()
            return self.answer(200, {})
        if self.path == "/sign":
            asked = json.loads(body)
            claims = keycloak_claims(self.base, "alice")
            now = int(time.time())
            claims |= {name: now + value for name, value in asked.get("times", {}).items()} | asked.get("claims", {})
            claims = {name: value for name, value in claims.items() if value is not None}
            key = foreign if asked.get("foreign") else None
            return self.answer(200, {"token": sign(claims, asked.get("kid"), key or keys[list(keys)[-1]])})
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        if form.get("grant_type") == "refresh_token":
            user = refresh_tokens.pop(form.get("refresh_token"), None)
        else:
            user = form.get("username")
        if user not in USERS:
            return self.answer(400, {"error": "invalid_grant"})
        refresh_tokens[refresh := str(uuid.uuid4())] = user
        claims = (keycloak_claims if "/realms/" in self.path else auth0_claims)(self.base, user)
        typ = "JWT" if "/realms/" in self.path else "at+jwt"
        granted = {"access_token": sign(claims, typ=typ), "token_type": "Bearer", "expires_in": settings["lifetime_s"]}
        self.answer(200, granted | {"refresh_token": refresh})


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
server.scheme, server.name = "http", "127.0.0.1"
if len(sys.argv) == 3:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*sys.argv[1:])
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.scheme, server.name = "https", "localhost"
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.server_address[1], flush=True)
sys.stdin.read()
