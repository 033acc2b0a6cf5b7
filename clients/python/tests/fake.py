"""A fake server with scripted behaviour, and readers of what a client makes of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from conftest import DEADLINE_S
from websockets.asyncio.server import Server as Listener
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

import tickcast
from tickcast import Authenticated, Backoff, Connection, Gap, TokenFailure, wire

CAUGHT_UP = wire.SNAPSHOT | wire.CAUGHT_UP
WELCOME = {"type": "welcome", "epoch": 7, "version": "9", "heartbeat_ms": 1000, "limits": {"symbols": 3}}


class Peer:
    """A connection of the fake server."""

    def __init__(self, socket: ServerConnection, number: int) -> None:
        self.socket = socket
        self.number = number
        self.requests: list[dict[str, Any]] = []

    async def send(self, **control: Any) -> None:
        await self.socket.send(json.dumps(control))

    async def request(self) -> dict[str, Any]:
        self.requests.append(json.loads(await self.socket.recv()))
        return self.requests[-1]

    async def answer(self, **more: Any) -> dict[str, Any]:
        """Reads a request and answers it as the real server does."""
        request = await self.request()
        kind = {"subscribe": "subscribed", "unsubscribe": "unsubscribed", "resume": "resumed", "ping": "pong"}[
            request["op"]
        ]
        fields = {
            "type": kind,
            "id": request["id"],
            "ts": 1_763_700_000_000_000_000,
            "count": len(request.get("symbols", ())),
            "unknown": [],
        }
        await self.send(**fields, conflate_ms=request.get("conflate_ms", 0), **more)
        return request

    async def serve(self) -> None:
        """Answers requests until the client disconnects."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                await self.answer()

    def reset(self) -> None:
        """Resets the connection, without a closing handshake."""
        self.socket.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


class Fake:
    """A server with one script, and more of the welcome, per connection; the last one is used for all further ones."""

    def __init__(
        self,
        *scripts: Script,
        refuse: Callable[[int], Response | None] = lambda _: None,
        welcomes: Sequence[dict[str, Any]] = ({},),
    ) -> None:
        self.scripts = scripts
        self.welcomes = welcomes
        self.peers: list[Peer] = []
        self.attempts = 0
        self.refuse = refuse
        self.errors: list[BaseException] = []

    async def __aenter__(self) -> Fake:
        def upgrade(_: ServerConnection, __: Request) -> Response | None:
            self.attempts += 1
            return self.refuse(self.attempts)

        self.listener: Listener = await serve(
            self._serve, "127.0.0.1", 0, process_request=upgrade, subprotocols=[Subprotocol("tickcast.v1")]
        )
        self.url = f"ws://127.0.0.1:{next(iter(self.listener.sockets)).getsockname()[1]}"
        return self

    async def _serve(self, socket: ServerConnection) -> None:
        peer = Peer(socket, len(self.peers))
        self.peers.append(peer)
        try:
            await peer.send(**WELCOME, **self.welcomes[min(peer.number, len(self.welcomes) - 1)])
            await self.scripts[min(peer.number, len(self.scripts) - 1)](peer)
        except ConnectionClosed:
            pass
        except AssertionError as error:
            self.errors.append(error)

    async def __aexit__(self, *_: object) -> None:
        self.listener.close()
        await self.listener.wait_closed()
        assert not self.errors, self.errors


def quick() -> Backoff:
    return Backoff(0.01, 0.02, chance=random.Random(1))


async def summaries(client: tickcast.Client) -> AsyncIterator[tuple[str, int]]:
    """Types and sequences of records; `gap` with its first sequence; changes of the connection and of the token."""
    async for one in client.events():
        if isinstance(one, Connection):
            yield one.state, 0
        elif isinstance(one, (Authenticated, TokenFailure)):
            yield type(one).__name__, 0
        elif isinstance(one, Gap):
            yield "gap", one.from_sequence
        elif one.sequence:
            yield one.TYPE, one.sequence


async def take(source: AsyncIterator[tuple[str, int]], count: int) -> list[tuple[str, int]]:
    async with asyncio.timeout(DEADLINE_S):
        return [await anext(source) for _ in range(count)]
