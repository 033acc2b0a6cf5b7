"""The connection behind a client: opened, kept, lost and opened again, with all that is wanted asked for anew.

A task reads the socket, answers whoever waits for an answer, and puts packets into a bounded inbox. What always holds:
a subscription goes on from the last packet before which nothing of it is missing, or begins with a snapshot; requests
go one after another; and whoever waits for an answer has it, or the reason why there is none.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, cast

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from . import wire
from .connection import Link, closed
from .errors import ClosedError, ProtocolError, RefusedError, RejectedError, TickcastError, UnreachableError
from .inbox import Inbox
from .pace import Backoff
from .records import State
from .subscriptions import Key, Request, Token, Wanted, requests

logger = logging.getLogger("tickcast")

# Packets that wait to be read before the socket is read no further.
INBOX_PACKETS = 256
# A connection that has held for so long has ended a series of failures.
HELD_S = 5.0
# Silence is a lost connection after two heartbeats that did not come, and some time for the network.
SILENCE_S = 5.0


@dataclass(slots=True, frozen=True)
class Connection:
    """What became of the connection, among the events.

    `state` is `resyncing` (connected; what was missed is on its way), `live`, or `lost`, with a `reason`.
    """

    state: Literal["resyncing", "live", "lost"]
    reason: str = ""


@dataclass(slots=True, frozen=True)
class Forget:
    """Nothing of these is subscribed to any more; what comes of them later follows nothing."""

    keys: frozenset[Key]
    kept: frozenset[Key]
    """What other subscriptions want as well, and is followed on."""


Item: TypeAlias = bytes | Connection | Forget


class Session:
    """What `Client` is built on."""

    def __init__(self, link: Link, *, backoff: Backoff, inbox_packets: int) -> None:
        self._link = link
        self._backoff = backoff
        self._inbox: Inbox[Item] = Inbox(inbox_packets)
        self._wanted: list[Wanted] = []
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._said: dict[int, Request] = {}
        self._next_id = 0
        self._socket: ClientConnection | None = None
        self._reading: asyncio.Task[None] | None = None
        self._came_back = asyncio.Event()
        self._lost = asyncio.Event()
        self._asking = asyncio.Lock()
        self._refused: RejectedError | None = None
        self._state = State.STALE
        self._token: Token | None = None
        self._limits: dict[str, int] = {}
        self._heartbeat_s = 5.0
        self._asked_s = 0.0
        self.version = ""
        """The server's version."""
        self.reconnects = 0
        """How often the connection was lost and came back."""
        self.packets_read = 0
        """Packets that have come."""
        self.bytes_read = 0
        """Their bytes, as they were before compression."""

    # ---- from open to close

    async def open(self, *, wait: bool = False) -> Self:
        """Connects; `wait` also waits for a server that is not there yet. `tickcast.connect` calls it."""
        socket = await (self._dial() if wait else self._link.open())
        self._reading = asyncio.create_task(self._run(socket), name="tickcast")
        await self._until_back()
        return self

    async def close(self) -> None:
        """Ends the connection and all iterations."""
        task, self._reading = self._reading, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._inbox.end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # ---- requests and answers

    def _symbols_max(self) -> int:
        return self._limits.get("symbols", 10_000)

    async def _until_back(self) -> None:
        """Waits for a connection that has been greeted; raises what ended the client."""
        task = self._reading
        if task is None:
            raise ClosedError(1000, "this client has been closed")
        waiting = asyncio.create_task(self._came_back.wait())
        try:
            with self._inbox.lifted():
                await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if task.done() and not task.cancelled():
            task.result()
            raise ClosedError(1000, "this client has ended")

    async def _answer_to(self, request: dict[str, Any]) -> dict[str, Any]:
        self._next_id += 1
        return await self._exchange(self._next_id, json.dumps({**request, "id": self._next_id}))

    async def _say(self, request: Request) -> dict[str, Any]:
        self._next_id += 1
        self._said[self._next_id] = request
        return await self._exchange(self._next_id, request.text(self._next_id))

    async def _exchange(self, request_id: int, text: str) -> dict[str, Any]:
        """Sends a request and waits for its answer; the packets before it wait to be read."""
        socket = self._socket
        if socket is None:
            raise ClosedError(1006, "there is no connection")
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[request_id] = future
        try:
            with self._inbox.lifted():
                await socket.send(text)
                return await future
        except ConnectionClosed as error:
            raise closed(error) from None
        finally:
            self._answers.pop(request_id, None)
            self._said.pop(request_id, None)

    async def _ask(self, wanted: list[Wanted]) -> None:
        """Asks for what has not been asked for. A lost connection ends it: after the next, all is asked for anew."""
        try:
            # One after another, with what is asked for after a reconnect as well.
            async with self._asking:
                if self._socket is None:
                    raise ClosedError(1006, "there is no connection")
                asked = requests([one for one in wanted if not one.asked], self._symbols_max())
                for request in asked:
                    for one in request.wanted:
                        one.parts = one.parts + 1 if one.asked else 1
                        one.asked, one.count, one.unknown = True, 0, []
                for at, request in enumerate(asked, start=1):
                    await self._say(request)
                    if at % max(self._limits.get("requests_per_s", 50) // 2, 1) == 0:
                        await asyncio.sleep(1.0)
        except ClosedError:
            with self._inbox.lifted():
                await self._lost.wait()

    def _take_answer(self, request: Request, answer: dict[str, Any]) -> None:
        for wanted in request.wanted:
            wanted.parts -= 1
            wanted.count += int(answer.get("count", 0))
            names = set(wanted.symbols)
            wanted.unknown += [name for name in answer.get("unknown", ()) if name in names]
            wanted.conflate_ms = int(answer.get("conflate_ms", wanted.conflate_ms))
            wanted.answered = wanted.parts <= 0
            if wanted.answered and not self._begins_anew(wanted):
                wanted.caught_up = True

    def _begins_anew(self, wanted: Wanted) -> bool:
        """Whether a snapshot or a replay comes of it.

        A replay always does; a snapshot only of what is not held already, and of names that are known.
        """
        if wanted.token is not None or not wanted.snapshot:
            return wanted.token is not None
        held = set[Key]().union(*(other.keys() for other in self._wanted if other.answered and other is not wanted))
        unknown = set(wanted.unknown)
        return any(symbol not in unknown for _, symbol in wanted.keys() - held)

    # ---- the task that reads

    async def _dial(self) -> ClientConnection:
        """Connects, as often as it takes. Raises what another try would not change."""
        while True:
            try:
                return await self._link.open()
            except RefusedError as error:
                if error.is_final:
                    raise
                asked_s, why = error.retry_after_s or 0.0, str(error)
            except UnreachableError as error:
                asked_s, why = 0.0, str(error)
            wait_s = self._backoff.next_s(max(asked_s, self._asked_s))
            logger.info("%s; trying again in %.2f s", why, wait_s)
            await asyncio.sleep(wait_s)

    async def _run(self, socket: ClientConnection) -> None:
        try:
            while True:
                started = time.monotonic()
                lost = await self._serve(socket)
                if self._refused is not None:
                    raise self._refused
                self._lose(lost)
                if lost.is_final:
                    raise lost
                # A program that does not read would only be connected to be lost again.
                await self._inbox.room()
                if time.monotonic() - started >= HELD_S:
                    self._backoff.reset()
                await asyncio.sleep(self._backoff.next_s(self._asked_s))
                socket = await self._dial()
                self._asked_s = 0.0
                self.reconnects += 1
        except TickcastError as error:
            self._inbox.end(error)
            if self._socket is not None:
                self._lose(ClosedError(1006, str(error)))
            raise
        finally:
            self._inbox.end()

    async def _serve(self, socket: ClientConnection) -> ClosedError:
        """Reads a connection to its end, and says why it ended."""
        asking: asyncio.Task[None] | None = None
        try:
            while True:
                async with asyncio.timeout(2 * self._heartbeat_s + SILENCE_S):
                    message = await socket.recv()
                if isinstance(message, bytes):
                    await self._has_room(socket)
                    self._take_packet(message)
                elif (control := json.loads(message)).get("type") == "welcome":
                    self._welcome(control, socket)
                    asking = asyncio.create_task(self._ask_again())
                else:
                    self._control(control)
        except ConnectionClosed as error:
            return closed(error)
        except TimeoutError:
            return ClosedError(1006, "the server was silent for too long")
        except ValueError as error:
            raise ProtocolError(f"a control message is no JSON: {error}") from error
        finally:
            if asking is not None:
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
            await socket.close()

    def _lose(self, why: ClosedError) -> None:
        self._socket = None
        self._came_back.clear()
        self._state = State.STALE
        for wanted in self._wanted:
            wanted.lose(self._token)
        for future in self._answers.values():
            if not future.done():
                future.set_exception(why)
        self._lost.set()
        self._inbox.put_now(Connection("lost", str(why)))

    def _welcome(self, control: dict[str, Any], socket: ClientConnection) -> None:
        self.version = str(control.get("version", ""))
        self._heartbeat_s = float(control.get("heartbeat_ms", 5000)) / 1e3
        self._limits = cast("dict[str, int]", control.get("limits", {}))
        self._socket = socket
        self._lost.clear()

    async def _ask_again(self) -> None:
        """Asks for all that is wanted, on a connection that has just been greeted."""
        if self._wanted:
            self._state = State.RESYNCING
            self._inbox.put_now(Connection("resyncing"))
        self._came_back.set()
        try:
            # What the program is waiting for at this moment it asks for itself, and has the refusal.
            await self._ask([one for one in self._wanted if not one.is_new])
        except RejectedError as error:
            # What is left would be a stream with less than what is wanted, and nobody to say so.
            self._refused = error
            if self._socket is not None:
                await self._socket.close()
            return
        self._judge()

    def _control(self, control: dict[str, Any]) -> None:
        kind, request_id = control.get("type"), control.get("id")
        if kind == "closing":
            self._asked_s = float(control.get("reconnect_ms", 0)) / 1e3
            logger.info("the server is closing the connection: %s", control.get("reason"))
            return
        future = self._answers.get(request_id) if isinstance(request_id, int) else None
        if kind == "error":
            error = RejectedError(str(control.get("code")), str(control.get("message")))
            if future is None:
                logger.warning("the server says %s", error)
            elif not future.done():
                future.set_exception(error)
            return
        request = self._said.get(request_id) if isinstance(request_id, int) else None
        if request is not None and future is not None and kind in ("subscribed", "resumed"):
            self._take_answer(request, control)
        if future is not None and not future.done():
            future.set_result(control)

    async def _has_room(self, socket: ClientConnection) -> None:
        """Waits for the program to read. Raises `ConnectionClosed` where the connection does not last so long.

        What has come over it and found no room is not taken, and its token neither: it is asked for again.
        """
        if self._inbox.has_room():
            return
        room, end = asyncio.create_task(self._inbox.room()), asyncio.create_task(socket.wait_closed())
        try:
            await asyncio.wait({room, end}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            room.cancel()
            end.cancel()
        if not room.done():
            raise ConnectionClosed(socket.protocol.close_rcvd, socket.protocol.close_sent, None)

    def _take_packet(self, data: bytes) -> None:
        header = wire.read_header(data)
        self.packets_read += 1
        self.bytes_read += len(data)
        self._token = (header.epoch, header.position)
        # Before what comes next: a caught-up stream is live with the packet that says so.
        self._inbox.put_now(data)
        if header.is_caught_up:
            for wanted in self._wanted:
                wanted.caught_up |= wanted.answered
        if self._state is not State.LIVE:
            self._judge()

    def _judge(self) -> None:
        """Live is the connection on which all that is wanted has been answered and has had its snapshot or replay."""
        if self._state is not State.LIVE and self._socket and all(one.caught_up for one in self._wanted):
            self._state = State.LIVE
            self._inbox.put_now(Connection("live"))
