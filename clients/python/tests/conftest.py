"""Fixtures: a real server for the tests that need one, and builders of packets for the others."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from tickcast.cursor import Cursor
from tickcast.follow import Follower

if TYPE_CHECKING:
    from tickcast.arrays import Arrays

ROOT = Path(__file__).parents[3]
# Longer than anything that a test waits for, also on a slow and busy machine.
DEADLINE_S = 40.0
TS = 1_763_700_000_000_000_000


def binary() -> Path | None:
    """The server: `$TICKCAST_BIN`, or the newest binary in the target folder."""
    given = os.environ.get("TICKCAST_BIN")
    if given:
        return Path(given)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    built = [path for profile in ("release", "debug") if (path := target / profile / "tickcast").is_file()]
    return max(built, key=lambda path: path.stat().st_mtime, default=None)


class Server:
    """A running server."""

    def __init__(self, process: asyncio.subprocess.Process, address: str, args: tuple[str, ...]) -> None:
        self.process = process
        self.address = address
        self.args = args

    @property
    def url(self) -> str:
        return f"ws://{self.address}"

    @classmethod
    async def start(cls, *args: str, address: str = "127.0.0.1:0") -> Server:
        program = binary()
        if program is None:
            pytest.skip("no server binary: run `cargo build --release`, or set TICKCAST_BIN")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TICKCAST_")}
        process = await asyncio.create_subprocess_exec(
            program, "--listen", address, *args, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            env=environment,
        )  # fmt: skip
        assert process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            async for line in process.stdout:
                if b"serving on http://" in line:
                    return cls(process, line.split(b"http://")[1].strip().decode(), args)
        pytest.fail("the server exited before it was ready")

    async def stop(self, by: signal.Signals = signal.SIGKILL) -> None:
        if self.process.returncode is None:
            self.process.send_signal(by)
            await self.process.communicate()

    async def start_again(self) -> Server:
        """The same server on the same address, after `stop`."""
        return await Server.start(*self.args, address=self.address)


class Start(Protocol):
    def __call__(self, *args: str) -> Awaitable[Server]: ...


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts servers, and stops them after the test."""
    servers: list[Server] = []

    async def started(*args: str) -> Server:
        servers.append(await Server.start(*args))
        return servers[-1]

    yield started
    for server in servers:
        await server.stop()


def packet(*records: bytes, position: int = 1, flags: int = 0, epoch: int = 7) -> bytes:
    return struct.pack("<BBHIQQ", 1, flags, len(records), epoch, position, TS) + b"".join(records)


def record(kind: int, sequence: int, body: bytes, *, instrument: int = 1, flags: int = 0x80) -> bytes:
    head = struct.pack("<HBBIQQQ", (32 + len(body)) // 8, kind, flags, instrument, sequence, 0, TS)
    return head + body


def definition(
    instrument: int = 1, symbol: str = "BTC-USD", *, px_exp: int = -2, sz_exp: int = -3, venue: str = ""
) -> bytes:
    names = (symbol + venue).encode()
    head = struct.pack("<bbcBB3xqqq", px_exp, sz_exp, b"T", len(symbol), len(venue), 1, 1, 0)
    body = head + names + bytes(-len(names) % 8)
    return record(16, 0, body, instrument=instrument)


def quote(sequence: int, bid_px: int = 100, *, instrument: int = 1, flags: int = 0x80) -> bytes:
    return record(1, sequence, struct.pack("<4q", bid_px, 1, bid_px + 1, 2), instrument=instrument, flags=flags)


def trade(sequence: int, px: int = 100, *, instrument: int = 1, flags: int = 0x80) -> bytes:
    return record(2, sequence, struct.pack("<qqQc7x", px, 1, sequence, b"B"), instrument=instrument, flags=flags)


def book(kind: bytes, levels: list[tuple[int, int, bytes]], sequence: int, *, flags: int = 0x80) -> bytes:
    body = struct.pack("<Hc5x", len(levels), kind) + b"".join(struct.pack("<qqc7x", *level) for level in levels)
    return record(4, sequence, body, flags=flags)


def gap(first: int, last: int, *, channel: int = 2, instrument: int = 1) -> bytes:
    return record(18, 0, struct.pack("<QQBc6x", first, last, channel, b"S"), instrument=instrument)


def status(state: str, *, instrument: int = 0) -> bytes:
    return record(19, 0, struct.pack("<c7x", state.encode()), instrument=instrument)


def read_arrays(follower: Follower, data: bytes) -> Arrays:
    """The arrays of a packet that has one part."""
    from tickcast import arrays

    cursor = Cursor(follower, data)
    read = arrays.take(cursor)
    if not cursor.is_done:
        arrays.take(cursor)
        pytest.fail("a second part")
    return read


async def until(condition: Callable[[], bool]) -> None:
    """Waits until other tasks make the condition true."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
