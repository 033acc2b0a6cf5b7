"""Tokens, against the real server: lives of a few seconds, renewal, revocation, another user."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import random
import time
import urllib.request
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import DEADLINE_S, Server, Start, until
from fake import Fake, Peer, quick, summaries, take

import tickcast
from tickcast import Authenticated, ClosedError, Connection, RefusedError, RejectedError, TokenFailure, TokenRequest

SECRET = "a-secret-of-the-tests-with-32-bytes-or-more"
API_KEY = "tk_0123456789abcdefghijkl"
OPERATOR = "token-of-the-operator"
MARKET = ("--feed", "sim:instruments=20,rate=2000,seed=1")
BTC = {"allow": [{"symbols": ["BTC-*"], "channels": ["quote", "trade"]}]}
EVERYTHING = {"allow": [{"symbols": ["*"]}]}

StartIdentifying = Callable[..., Awaitable[Server]]


def token_of(user: str, seconds: int, rights: Any = BTC, secret: str = SECRET) -> str:
    """A token of HS256, signed by Python's own HMAC."""
    now = int(time.time())
    claims = {"iss": "https://id.example.com", "aud": "tickcast", "sub": user, "iat": now, "exp": now + seconds}
    claims |= {"jti": str(uuid.uuid4()), "tickcast": rights}

    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

    signed = ".".join(part(json.dumps(value).encode()) for value in ({"alg": "HS256", "typ": "JWT"}, claims))
    return signed + "." + part(hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest())


@pytest.fixture
def identifying(start: Start, tmp_path: Path) -> StartIdentifying:
    """Starts servers that know one issuer and one API key."""

    async def started(*args: str, toml: str = "") -> Server:
        (tmp_path / "secret").write_text(SECRET)
        key = hashlib.sha256(API_KEY.encode()).hexdigest()
        keys = f"[[key]]\nuser = 'robot'\nsha256 = '{key}'\nrights.allow = [{{ symbols = ['ETH-*'] }}]\n"
        (tmp_path / "keys.toml").write_text(keys)
        (tmp_path / "tickcast.toml").write_text(
            "[[issuer]]\nname = 'test'\niss = 'https://id.example.com'\naudience = ['tickcast']\n"
            f"algorithms = ['HS256']\nsecret_file = '{tmp_path / 'secret'}'\nleeway_s = 0\n{toml}"
        )
        config = ("--config", str(tmp_path / "tickcast.toml"), "--api-keys-file", str(tmp_path / "keys.toml"))
        return await start(*MARKET, *config, "--operator-token", OPERATOR, *args)

    return started


class Issuer:
    """A function for tokens that notes why it is called."""

    def __init__(self, make: Callable[[int], str]) -> None:
        self.make = make
        self.asked: list[TokenRequest] = []
        self.tokens: list[str] = []

    async def __call__(self, why: TokenRequest) -> str:
        self.asked.append(why)
        self.tokens.append(self.make(len(self.asked)))
        return self.tokens[-1]

    def reasons(self) -> list[str]:
        return [why.reason for why in self.asked]


async def next_of(client: tickcast.Client, kind: type) -> Any:
    """The next event of a type."""
    async with asyncio.timeout(DEADLINE_S):
        async for event in client.events():
            if isinstance(event, kind):
                return event
    pytest.fail("the stream has ended")


def revoke(server: Server, user: str) -> None:
    url = f"http://{server.address}/v1/operator/revoke?user={user}"
    request = urllib.request.Request(url, method="POST", headers={"Authorization": f"Bearer {OPERATOR}"})
    with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
        assert answer.status == 200


async def test_a_token_of_some_seconds_is_renewed_without_a_break(identifying: StartIdentifying) -> None:
    server = await identifying()
    issuer = Issuer(lambda _: token_of("u1", 5))
    async with tickcast.connect(server.url, token=issuer) as client:
        await client.subscribe(["BTC-*"])
        for _ in range(3):
            event = await next_of(client, Authenticated)
            assert (event.user, event.dropped) == ("u1", ()) and event.expires_at > time.time()
        assert (client.user, client.reconnects, client.stats["gaps"]) == ("u1", 0, 0)
        assert issuer.reasons()[0] == "connect" and set(issuer.reasons()[1:]) == {"expiring"}


async def test_a_function_that_fails_is_told_and_asked_again(
    identifying: StartIdentifying, caplog: pytest.LogCaptureFixture
) -> None:
    server = await identifying("--token-grace-s", "1")

    def make(call: int) -> str:
        if call in (2, 3):
            raise OSError("the issuer is down")
        return token_of("u1", 10 if call == 1 else 600)

    issuer = Issuer(make)
    with caplog.at_level(logging.DEBUG):
        async with tickcast.connect(server.url, token=issuer) as client:
            await client.subscribe(["BTC-*"])
            for _ in range(2):
                failure = await next_of(client, TokenFailure)
                assert failure.reason == "the token function has failed: OSError: the issuer is down"
            await next_of(client, Authenticated)
            assert client.reconnects == 0
    assert "the issuer is down" in caplog.text and "[not logged]" in caplog.text
    assert not any(token.split(".")[2] in caplog.text for token in issuer.tokens)


async def test_a_token_that_has_expired_is_replaced_on_a_new_connection(identifying: StartIdentifying) -> None:
    server = await identifying("--token-grace-s", "1")
    hold = asyncio.Event()
    asked: list[TokenRequest] = []

    async def token(why: TokenRequest) -> str:
        asked.append(why)
        if why.reason == "expiring":
            await hold.wait()
            raise OSError("too late")
        return token_of("u1", 600 if why.reason == "refused" else 2)

    async with tickcast.connect(server.url, token=token, backoff=quick()) as client:
        await client.subscribe(["BTC-*"], channels=["trade"])
        while (event := await next_of(client, Connection)).state != "lost":
            pass
        assert "the token has expired" in event.reason
        # One call at a time: the connection waits for the one that was begun before.
        assert [why.reason for why in asked] == ["connect", "expiring"]
        hold.set()
        while (await next_of(client, Connection)).state != "live":
            pass
        assert asked[-1] == TokenRequest("refused", "the token has expired")
        assert (client.reconnects, client.stats["gaps"]) == (1, 0)


async def test_refused_tokens_end_the_client_after_three(
    identifying: StartIdentifying, caplog: pytest.LogCaptureFixture
) -> None:
    server = await identifying()
    expired = Issuer(lambda _: token_of("u1", -10))
    forged = Issuer(lambda _: token_of("u1", 60, secret="another-secret-of-the-tests-with-32-bytes"))
    with caplog.at_level(logging.DEBUG):
        for issuer, message in ((expired, "token: expired"), (forged, "token: not valid")):
            for wait in (False, True):
                issuer.asked.clear()
                with pytest.raises(RefusedError, match=message) as raised:
                    await tickcast.connect(server.url, token=issuer, backoff=quick(), wait=wait)
                assert (raised.value.status, issuer.reasons()) == (401, ["connect", "refused", "refused"])
                shown = caplog.text + repr(raised.value) + repr(issuer.asked)
                assert not any(token.split(".")[2] in shown for token in issuer.tokens)
        with pytest.raises(RefusedError, match="token: expired"):
            await tickcast.connect(server.url, token=token_of("u1", -10), wait=True)


async def test_another_user_and_a_revoked_token_end_the_client(identifying: StartIdentifying) -> None:
    server = await identifying()
    other = Issuer(lambda call: token_of(f"u{call}", 5 if call == 1 else 600))
    async with tickcast.connect(server.url, token=other) as client:
        with pytest.raises(ClosedError, match="of another user") as raised:
            await next_of(client, Authenticated)
        assert (raised.value.code, client.reconnects) == (4003, 0)
    issuer = Issuer(lambda _: token_of("u3", 600))
    async with tickcast.connect(server.url, token=issuer) as client:
        await client.subscribe(["BTC-*"])
        revoke(server, "u3")
        with pytest.raises(ClosedError, match="the credential was revoked") as raised:
            await next_of(client, Authenticated)
        assert (raised.value.code, issuer.reasons()) == (4001, ["connect"])
    with pytest.raises(RefusedError, match="token: revoked"):
        await tickcast.connect(server.url, token=issuer)
    assert issuer.reasons() == ["connect", "connect"]


async def test_rights_shrink_and_grow_with_the_next_token(identifying: StartIdentifying) -> None:
    server = await identifying()
    gates = [asyncio.Event(), asyncio.Event(), asyncio.Event()]
    gates[0].set()
    rights = [EVERYTHING, {"allow": [{"symbols": ["BTC-*"], "channels": ["quote"]}]}, EVERYTHING]
    calls = 0

    async def token(_: TokenRequest) -> str:
        nonlocal calls
        calls += 1
        call = calls
        await gates[call - 1].wait()
        return token_of("u1", 600 if call == 3 else 20, rights[call - 1])

    async with tickcast.connect(server.url, token=token) as client:
        all_of = await client.subscribe(["BTC-USD", "ETH-USD"], channels=["quote", "trade", "book"])
        only = await client.subscribe(["ETH-*"], channels=["trade"])
        assert (all_of.denied, all_of.limited) == ([], [])
        gates[1].set()
        assert set((await next_of(client, Authenticated)).dropped) == {"BTC-USD", "ETH-USD", "ETH-*"}
        await until(lambda: only.denied == ["ETH-*"] and client.state() is tickcast.State.LIVE)
        assert (all_of.denied, all_of.limited) == (["ETH-USD"], ["BTC-USD"])
        gates[2].set()
        await next_of(client, Authenticated)
        await until(lambda: not (all_of.denied or all_of.limited or only.denied))
        seen = set[str]()
        async with asyncio.timeout(DEADLINE_S):
            async for record in client:
                if isinstance(record, tickcast.Trade):
                    seen.add(record.symbol)
                if seen >= {"BTC-USD", "ETH-USD"} and client.state() is tickcast.State.LIVE:
                    break
        assert (client.reconnects, client.stats["gaps"]) == (0, 0)


async def test_api_keys_open_servers_and_anonymous_rights(identifying: StartIdentifying, start: Start) -> None:
    server = await identifying()
    async with tickcast.connect(server.url, token=API_KEY) as client:
        sub = await client.subscribe(["ETH-USD", "BTC-USD"])
        assert (client.user, client.expires_at, sub.denied) == ("robot", None, ["BTC-USD"])
        await until(lambda: client.state() is tickcast.State.LIVE)
    with pytest.raises(ClosedError, match="the server requires a token"):
        await tickcast.connect(server.url)
    delayed = {"allow": [{"symbols": ["XRP-*"], "delay_s": 900}, {"symbols": ["BTC-*"]}]}
    async with tickcast.connect(server.url, token=token_of("u1", 600, delayed)) as client:
        sub = await client.subscribe(["XRP-USD", "*"])
        assert (sub.denied, sub.limited, sub.delayed) == (["XRP-USD"], ["*"], ["XRP-USD"])
    toml = "[anonymous]\nallow = [{ symbols = ['BTC-USD'], channels = ['quote'] }]"
    anonymous = await identifying(toml=toml)
    async with tickcast.connect(anonymous.url) as client:
        assert (await client.subscribe(["ETH-USD"])).denied == ["ETH-USD"]
        await until(lambda: client.state() is tickcast.State.LIVE)
    everything = await start(*MARKET)
    async with tickcast.connect(everything.url, token="whatever") as client:
        assert (client.user, (await client.subscribe(["*"])).denied) == ("", [])


async def test_http_requests_have_the_token(identifying: StartIdentifying) -> None:
    server = await identifying()
    issuer = Issuer(lambda call: token_of("u1", 1 if call == 1 else 600))
    async with tickcast.connect(server.url, token=issuer) as client:
        assert "quote" in await client.snapshot("BTC-USD")
        assert "time" in await client.bars("BTC-USD", interval_s=1)
        with pytest.raises(RefusedError, match="not among your rights"):
            await client.snapshot("ETH-USD")
    token = token_of("u1", 600)
    assert "quote" in await tickcast.snapshot("BTC-USD", server.url, token=token)
    assert {one["symbol"][:4] for one in await tickcast.instruments(server.url, token=token)} == {"BTC-"}
    assert "time" in await tickcast.bars("BTC-USD", server.url, token=token)
    with pytest.raises(RefusedError, match="token: missing"):
        await tickcast.instruments(server.url)


async def test_an_http_request_that_is_refused_asks_for_another_token(identifying: StartIdentifying) -> None:
    server = await identifying("--token-grace-s", "600")
    hold = asyncio.Event()
    asked: list[str] = []

    async def token(why: TokenRequest) -> str:
        asked.append(why.reason)
        if why.reason == "expiring":
            await hold.wait()
        return token_of("u1", 600 if len(asked) > 1 else 1)

    async with tickcast.connect(server.url, token=token) as client:
        await until(lambda: len(asked) == 2)
        expires_at = client.expires_at
        assert expires_at is not None
        await until(lambda: time.time() > expires_at + 1)
        # The request is refused with the first token, and waits for the next one, which is asked for already.
        request = asyncio.create_task(client.snapshot("BTC-USD"))
        await asyncio.sleep(0)
        hold.set()
        assert "quote" in await request


async def test_one_call_of_the_function_at_a_time_and_a_limit_of_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tickcast.tokens.CALL_S", 0.05)
    running = most = 0

    async def token(_: TokenRequest) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await asyncio.sleep(3600)
        finally:
            running -= 1
        return "never"

    async def serve(peer: Peer) -> None:
        await peer.serve()

    async with Fake(serve) as server:
        waiting = [asyncio.create_task(_opened(server.url, token)) for _ in range(2)]
        for task in waiting:
            with pytest.raises(tickcast.TokenError, match="gave no answer within"):
                await task
        assert server.attempts == 0
        client = tickcast.connect(server.url, token=token)._client
        shared = [asyncio.create_task(client._endpoint.tokens.obtain()) for _ in range(3)]
        for failed in await asyncio.gather(*shared, return_exceptions=True):
            assert isinstance(failed, tickcast.TokenError)
    assert (running, most) == (0, 2)


async def _opened(url: str, token: Any) -> tickcast.Client:
    return await tickcast.connect(url, token=token)


async def test_a_function_that_returns_the_same_token_is_not_asked_in_a_loop() -> None:
    async def serve(peer: Peer) -> None:
        for _ in range(3):
            await peer.send(type="expiring", in_s=60)
            request = await peer.request()
            assert (request["op"], request["token"]) == ("auth", "same")
            await peer.send(type="authenticated", id=request["id"], user="u1", expires_in_s=60, dropped=[])
        await peer.send(type="expiring", in_s=60)
        await peer.serve()

    backoff = tickcast.Backoff(0.01, 3600.0)
    async with Fake(serve) as server, tickcast.connect(server.url, token=lambda _: "same", backoff=backoff) as client:
        assert [name for name, _ in await take(summaries(client), 3)] == ["live", *["Authenticated"] * 2]
        assert client._renewal._attempts >= 1
        # Without progress, the waits grow.
        backoff.chance = random.Random(1)
        waits = [client._renewal.next_s(backoff, client.expires_at) for _ in range(7)]
        assert all(2.0**at / 2 <= wait <= 2.0 ** (at + 2) for at, wait in enumerate(waits)), waits


async def test_a_renewal_that_is_refused_is_asked_for_again_and_a_revoked_one_is_not() -> None:
    async def serve(peer: Peer) -> None:
        await peer.send(type="expiring", in_s=60)
        for code, message in (
            ("unauthorized", "token: expired"),
            ("unavailable", "no keys"),
            ("unauthorized", "revoked"),
        ):
            request = await peer.request()
            await peer.send(type="error", id=request["id"], code=code, message=message)
        await peer.serve()

    issuer = Issuer(lambda call: f"token-{call}")
    async with Fake(serve) as server, tickcast.connect(server.url, token=issuer, backoff=quick()) as client:
        reasons = [(await next_of(client, TokenFailure)).reason for _ in range(2)]
        assert reasons == ["unauthorized: token: expired", "unavailable: no keys"]
        with pytest.raises(RejectedError, match="unauthorized: revoked"):
            await next_of(client, TokenFailure)
    assert issuer.asked[1:] == [
        TokenRequest("expiring"),
        TokenRequest("refused", "token: expired"),
        TokenRequest("refused", "token: expired"),
    ]


@pytest.mark.parametrize("token", ["", "a b", "ü", "x" * 8193])
async def test_a_token_that_cannot_be_one_is_refused_without_its_text(token: str) -> None:
    with pytest.raises(ValueError, match=r"token: .* expected 1 to 8192 visible ASCII") as raised:
        tickcast.connect("127.0.0.1:1", token=token)
    assert not token or token not in str(raised.value)
    with pytest.raises(tickcast.TokenError, match="the token function: token: "):
        await tickcast.connect("127.0.0.1:1", token=lambda _: token)
    with pytest.raises(TypeError, match="token: a value of the type int: expected a str, a function, or None"):
        tickcast.connect(token=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="token: given beside an Authorization in headers"):
        tickcast.connect(token="t", headers={"authorization": "Basic x"})
