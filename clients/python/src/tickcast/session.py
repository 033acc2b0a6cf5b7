"""The connection of a client: opened, and reopened after a loss, with all subscriptions requested again.

A task reads the socket, passes answers to the calls that wait for them, and puts packets into a bounded inbox.

What
always holds: a subscription resumes from the last packet before which nothing of it is missing, or starts with a
snapshot; requests are sent one after another; and a call that waits for an answer gets it, or the reason why there is
none.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Coroutine, Iterable
from types import TracebackType
from typing import Any, Self, cast

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from . import wire
from .backoff import Backoff
from .connection import Endpoint, closed
from .errors import (
    ClosedError,
    ProtocolError,
    RefusedError,
    RejectedError,
    TickcastError,
    TokenError,
    UnreachableError,
)
from .events import Authenticated, Connection, Forget, Item, TokenFailure
from .inbox import Inbox
from .records import Channel, State
from .subscriptions import Interest, Key, Request, Token, requests, split
from .tokens import Renewal

logger = logging.getLogger("tickcast")

# Packets in the inbox at which the socket is no longer read.
INBOX_PACKETS = 256
# A connection that lasted this long resets the back-off.
HELD_S = 5.0
# The connection is lost after a silence of two heartbeats and this time for the network.
SILENCE_S = 5.0


class Session:
    """The base class of `Client`."""

    def __init__(self, endpoint: Endpoint, *, backoff: Backoff, inbox_packets: int) -> None:
        self._endpoint = endpoint
        self._backoff = backoff
        self._inbox: Inbox[Item] = Inbox(inbox_packets)
        self._interests: list[Interest] = []
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._pending: dict[int, Request] = {}
        self._next_id = 0
        self._socket: ClientConnection | None = None
        self._reading: asyncio.Task[None] | None = None
        self._connected = asyncio.Event()
        self._lost = asyncio.Event()
        self._request_lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._rejected: RejectedError | None = None
        self._restart: ClosedError | None = None
        self._state = State.STALE
        self._token: Token | None = None
        self._limits: dict[str, int] = {}
        self._heartbeat_s = 5.0
        self._reconnect_s = 0.0
        self._renewing: asyncio.Task[None] | None = None
        self._is_expiring = False
        self._renewal = Renewal()
        self.user: str = ""
        """Who the client is to the server; empty for a server that does not know."""
        self.expires_at: float | None = None
        """When its token expires, Unix seconds; `None` if it does not."""
        self.version = ""
        """The server's version."""
        self.delay_s = 0
        """The age of the data, seconds, where the server serves it later; 0: live."""
        self.reconnects = 0
        """How often the connection was lost and reopened."""
        self.packets_read = 0
        """Packets received."""
        self.bytes_read = 0
        """Their bytes, uncompressed."""

    # ---- from open to close

    async def open(self, *, wait: bool = False) -> Self:
        """Connects; `wait` also waits for a server that is not reachable yet. `tickcast.connect` calls it."""
        socket = await (self._open_retrying() if wait else self._open_once())
        self._reading = asyncio.create_task(self._run(socket), name="tickcast")
        try:
            await self._until_connected()
        except BaseException:
            # No call could close a client that was never returned.
            self._reading.cancel()
            self._reading = None
            raise
        return self

    async def close(self) -> None:
        """Ends the connection and all iterations, also if the call is cancelled."""
        task, self._reading = self._reading, None
        if task is not None:
            task.cancel()
            task.add_done_callback(_retrieve)
            await asyncio.wait({task})
        self._endpoint.tokens.close()
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

    async def _until_connected(self) -> None:
        """Waits for a connection with the server's welcome; raises the error that ended the client."""
        task = self._reading
        if task is None:
            raise ClosedError(1000, "this client has been closed")
        waiting = asyncio.create_task(self._connected.wait())
        try:
            with self._inbox.lifted():
                await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if task.done() and not task.cancelled():
            task.result()
            raise ClosedError(1000, "this client has ended")

    async def _request(self, request: dict[str, Any]) -> dict[str, Any]:
        """Sends a request that is no subscription, and returns the answer."""
        self._next_id += 1
        return await self._exchange(self._next_id, json.dumps({**request, "id": self._next_id}))

    async def _send_request(self, request: Request) -> dict[str, Any]:
        self._next_id += 1
        self._pending[self._next_id] = request
        return await self._exchange(self._next_id, request.text(self._next_id))

    async def _exchange(self, request_id: int, text: str) -> dict[str, Any]:
        """Sends a request and waits for its answer; packets before the answer go into the inbox beyond its bound."""
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
            self._pending.pop(request_id, None)

    def _spawn(self, operation: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Starts a change of subscriptions: tasks run in the order in which they are started."""
        task = asyncio.create_task(operation, name="tickcast request")
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.debug("request: %s", error)

    async def _begin(self, interest: Interest) -> None:
        """Requests a new interest. If the call is cancelled or fails, what was requested is ended."""
        self._interests.append(interest)
        try:
            await self._spawn(self._request_until_answered(interest))
        except BaseException:
            if interest in self._interests:
                self._interests.remove(interest)
            if self._reading is not None:
                self._spawn(self._release(interest, self._socket))
            raise
        interest.is_new = False

    async def _request_until_answered(self, interest: Interest) -> None:
        while not interest.answered:
            await self._until_connected()
            await self._send_requests([interest])

    async def _end(self, interest: Interest) -> None:
        """Ends an interest. Nothing is to be sent without a connection: it is not requested again."""
        if interest in self._interests:
            self._interests.remove(interest)
            await asyncio.shield(self._spawn(self._release(interest, self._socket)))

    async def _change_interval(self, interest: Interest, conflate_ms: int) -> None:
        await asyncio.shield(self._spawn(self._request_interval(interest, conflate_ms)))

    async def _request_interval(self, interest: Interest, conflate_ms: int) -> None:
        whole = Request("subscribe", interest.channels, interest.symbols, conflate_ms, False, None, [])
        async with self._request_lock:
            for part in split(whole, self._symbols_max()):
                answer = await self._send_request(part)
                interest.conflate_ms = int(answer["conflate_ms"])

    async def _release(self, interest: Interest, socket: ClientConnection | None) -> None:
        """Unsubscribes what no other interest has requested. `socket` is the connection of its requests."""
        async with self._request_lock:
            others = [other for other in self._interests if other.requested]
            kept = set[Key]().union(*(other.keys() for other in others))
            dropped = interest.sent - kept
            # Up to this token nothing is missing of the interests that a pattern covers.
            token = self._token
            # After a loss of the connection nothing is to be ended: it is not requested again.
            is_present = socket is not None and socket is self._socket
            with contextlib.suppress(ClosedError):
                if is_present:
                    await self._unsubscribe(interest.channels, interest.symbols, dropped)
                    await self._restore_intervals(interest, others)
            self._inbox.put_now(Forget(frozenset(interest.keys() - kept), frozenset(kept)))
            # Unsubscribing a pattern ends all names that it covers, those of other subscriptions as well: these resume.
            # The answer to a resume always completes, also for names that the server still holds.
            covered = [other for other in others if other.is_covered_by(dropped)]
            if not covered or not is_present or socket is not self._socket:
                return
            for other in covered:
                other.connection_lost(token)
            with contextlib.suppress(ClosedError):
                await self._send_due(covered)

    async def _restore_intervals(self, ended: Interest, others: list[Interest]) -> None:
        """The server has one interval for each name and channel: that of the last request."""
        for other in others:
            channels = tuple(channel for channel in other.channels if channel in ended.channels)
            names = tuple(name for name in other.symbols if any((one, name) in ended.sent for one in channels))
            if names and other.conflate_ms != ended.conflate_ms:
                whole = Request("subscribe", channels, names, other.conflate_ms, False, None, [])
                for part in split(whole, self._symbols_max()):
                    await self._send_request(part)

    async def _unsubscribe(self, channels: Iterable[Channel], symbols: Iterable[str], dropped: set[Key]) -> None:
        for channel in channels:
            names = tuple(symbol for symbol in symbols if (channel, symbol) in dropped)
            if not names:
                continue
            whole = Request("unsubscribe", (channel,), names, 0, False, None, [])
            for part in split(whole, self._symbols_max()):
                await self._send_request(part)

    async def _send_requests(self, interests: list[Interest]) -> None:
        """Requests the interests that are not requested yet.

        Returns after a loss of the connection as well: after the reconnect all interests are requested again.
        """
        try:
            # One after another, also with the requests after a reconnect.
            async with self._request_lock:
                if self._socket is None:
                    raise ClosedError(1006, "there is no connection")
                await self._send_due([interest for interest in interests if not interest.requested])
        except ClosedError:
            with self._inbox.lifted():
                await self._lost.wait()

    async def _send_due(self, interests: list[Interest]) -> None:
        due = requests(interests, self._symbols_max())
        for request in due:
            for interest in request.interests:
                interest.unanswered = interest.unanswered + 1 if interest.requested else 1
                interest.requested = True
                interest.forget_names()
        for number, request in enumerate(due, start=1):
            for interest in request.interests:
                interest.note_sent(request, True)
            try:
                await self._send_request(request)
            except RejectedError:
                for interest in request.interests:
                    interest.note_sent(request, False)
                raise
            if number % max(self._limits.get("requests_per_s", 50) // 2, 1) == 0:
                await asyncio.sleep(1.0)

    def _take_answer(self, request: Request, answer: dict[str, Any]) -> None:
        continues = answer.get("type") == "resumed" and answer.get("how") == "replay"
        for interest in request.interests:
            if "book" in request.channels and interest.take_depth(int(answer.get("book_depth", 0)), continues):
                # A replay does not change the depth of a book: it begins anew, on a new connection.
                self._restart = ClosedError(1006, "books have another depth than before: they begin anew")
            interest.unanswered -= 1
            interest.count += int(answer.get("count", 0))
            interest.take_names(answer)
            interest.conflate_ms = int(answer.get("conflate_ms", interest.conflate_ms))
            interest.answered = interest.unanswered <= 0
            if interest.answered and not self._has_catch_up(interest):
                interest.caught_up = True
        if denied := answer.get("denied"):
            # A later right to them begins anew: what came meanwhile is not missing.
            keys = frozenset((channel, name) for channel in request.channels for name in denied)
            kept = frozenset[Key]().union(*(interest.granted_keys() for interest in self._interests))
            self._inbox.put_now(Forget(keys, kept - keys))

    def _has_catch_up(self, interest: Interest) -> bool:
        """Whether a snapshot or a replay follows the answer.

        A replay always follows a resume; a snapshot follows only for known names that are not subscribed already.
        """
        if interest.token is not None or not interest.snapshot:
            return interest.token is not None
        others = (other for other in self._interests if other.answered and other is not interest)
        held = set[Key]().union(*(other.keys() for other in others))
        without = {*interest.unknown, *interest.denied}
        return any(symbol not in without for _, symbol in interest.keys() - held)

    # ---- the reading task

    async def _open_once(self) -> ClientConnection:
        """Connects, with another token where one is refused. Raises what another token would not change."""
        while True:
            try:
                return await self._endpoint.open()
            except RefusedError as error:
                if not self._endpoint.tokens.may_follow(error):
                    raise
                await asyncio.sleep(self._backoff.next_s(self._reconnect_s))

    async def _open_retrying(self) -> ClientConnection:
        """Connects, with as many attempts as needed. Raises a refusal that another attempt would not change."""
        while True:
            try:
                return await self._endpoint.open()
            except RefusedError as error:
                if error.is_final and not self._endpoint.tokens.may_follow(error):
                    raise
                least_s, why = error.retry_after_s or 0.0, str(error)
                is_token = error.status == 401
            except (UnreachableError, TokenError) as error:
                least_s, why = 0.0, str(error)
                is_token = isinstance(error, TokenError)
            wait_s = self._backoff.next_s(max(least_s, self._reconnect_s))
            if is_token:
                self._inbox.put_now(TokenFailure(why, wait_s))
            logger.info("%s; retrying in %.2f s", why, wait_s)
            await asyncio.sleep(wait_s)

    async def _run(self, socket: ClientConnection) -> None:
        try:
            while True:
                started = time.monotonic()
                lost = await self._serve(socket)
                if self._rejected is not None:
                    raise self._rejected
                self._connection_lost(lost)
                if lost.is_final and not self._endpoint.tokens.may_follow(lost):
                    raise lost
                # Reconnecting for a program that does not read would only lead to another loss.
                await self._inbox.until_space()
                if time.monotonic() - started >= HELD_S:
                    self._backoff.reset()
                await asyncio.sleep(self._backoff.next_s(self._reconnect_s))
                socket = await self._open_retrying()
                self._reconnect_s = 0.0
                self.reconnects += 1
        except TickcastError as error:
            self._inbox.end(error)
            if self._socket is not None:
                self._connection_lost(ClosedError(1006, str(error)))
            raise
        finally:
            self._detach(ClosedError(1000, "this client has been closed"))
            self._inbox.end()

    async def _serve(self, socket: ClientConnection) -> ClosedError:
        """Reads a connection until it ends; returns the reason."""
        resubscribing: asyncio.Task[None] | None = None
        self._restart = None
        try:
            while True:
                async with asyncio.timeout(2 * self._heartbeat_s + SILENCE_S):
                    message = await socket.recv()
                if isinstance(message, bytes):
                    await self._until_space(socket)
                    self._take_packet(message)
                elif (control := json.loads(message)).get("type") == "welcome":
                    self._welcome(control, socket)
                    resubscribing = asyncio.create_task(self._resubscribe())
                else:
                    self._control(control)
                    if self._restart is not None:
                        return self._restart
        except ConnectionClosed as error:
            return closed(error)
        except TimeoutError:
            return ClosedError(1006, "the server was silent for too long")
        except ValueError as error:
            raise ProtocolError(f"control message: invalid JSON: {error}") from error
        finally:
            tasks = [task for task in (resubscribing, self._renewing) if task is not None]
            self._renewing = None
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await socket.close()

    def _connection_lost(self, why: ClosedError) -> None:
        self._detach(why)
        self._inbox.put_now(Connection("lost", str(why)))

    def _detach(self, why: ClosedError) -> None:
        """There is no connection from here on, and its requests get no answer."""
        self._socket = None
        self._connected.clear()
        self._state = State.STALE
        for interest in self._interests:
            interest.connection_lost(self._token)
        for future in self._answers.values():
            if not future.done():
                future.set_exception(why)
        self._lost.set()

    def _welcome(self, control: dict[str, Any], socket: ClientConnection) -> None:
        self.version = str(control.get("version", ""))
        self._heartbeat_s = float(control.get("heartbeat_ms", 5000)) / 1e3
        self._limits = cast("dict[str, int]", control.get("limits", {}))
        self.delay_s = int(control.get("delay_s", 0))
        if control.get("auth") == "required":
            raise ClosedError(4001, "the server requires a token")
        self._identified(control)
        self._endpoint.tokens.accepted()
        self._renewal = Renewal()
        self._socket = socket
        self._lost.clear()

    async def _resubscribe(self) -> None:
        """Requests all interests on a new connection."""
        if self._interests:
            self._state = State.RESYNCING
            self._inbox.put_now(Connection("resyncing"))
        self._connected.set()
        try:
            # A new interest is requested by the call of `subscribe` that waits for it, and that gets a rejection.
            await self._send_requests([interest for interest in self._interests if not interest.is_new])
        except RejectedError as error:
            # The stream would lack a subscription, and no call of the program could raise the error.
            self._rejected = error
            if self._socket is not None:
                await self._socket.close()
            return
        self._update_state()

    def _control(self, control: dict[str, Any]) -> None:
        kind, request_id = control.get("type"), control.get("id")
        if kind == "expiring":
            self._is_expiring = True
            if self._renewing is None or self._renewing.done():
                self._renewing = asyncio.create_task(self._renew(), name="tickcast renewal")
            return
        if kind == "closing":
            self._reconnect_s = float(control.get("reconnect_ms", 0)) / 1e3
            logger.info("the server is closing the connection: %s", control.get("reason"))
            return
        future = self._answers.get(request_id) if isinstance(request_id, int) else None
        if kind == "error":
            error = RejectedError(str(control.get("code")), str(control.get("message")))
            if future is None:
                logger.warning("error of the server: %s", error)
            elif not future.done():
                future.set_exception(error)
            return
        request = self._pending.get(request_id) if isinstance(request_id, int) else None
        if request is not None and future is not None and kind in ("subscribed", "resumed"):
            self._take_answer(request, control)
        if future is not None and not future.done():
            future.set_result(control)

    def _identified(self, control: dict[str, Any]) -> None:
        self.user = str(control.get("user") or "")
        expires_in_s = control.get("expires_in_s")
        self.expires_at = None if expires_in_s is None else time.time() + float(expires_in_s)

    async def _renew(self) -> None:
        while self._is_expiring:
            self._is_expiring = False
            await self._renew_once()

    async def _renew_once(self) -> None:
        """Presents the next token on the open connection: again with a back-off, until the connection ends."""
        of = self._endpoint.tokens
        if not of.can_change:
            if of.is_given:
                self._inbox.put_now(TokenFailure("the token expires, and the client has no function for another", 0.0))
            return
        of.expiring()
        wait_s = self._renewal.next_s(self._backoff, self.expires_at)
        while True:
            await asyncio.sleep(wait_s)
            try:
                token = await of.obtain()
                # What was announced before was the end of the former token.
                self._is_expiring = False
                answer = await self._request({"op": "auth", "token": token})
            except (TokenError, RejectedError) as error:
                if isinstance(error, RejectedError) and error.code == "unauthorized" and not of.may_follow(error):
                    self._rejected = error
                    if self._socket is not None:
                        await self._socket.close()
                    return
                wait_s = self._renewal.next_s(self._backoff, self.expires_at)
                logger.warning("token: %s; asking again in %.2f s", error, wait_s)
                self._inbox.put_now(TokenFailure(str(error), wait_s))
            except ClosedError:
                return
            else:
                of.accepted()
                self._identified(answer)
                await self._rights_changed(tuple(answer.get("dropped", ())))
                return

    async def _rights_changed(self, dropped: tuple[str, ...]) -> None:
        """Subscribes again to what the client did not get, or has lost, wholly or in part: its rights may be others.

        What the server holds goes on without a snapshot, and what is allowed from now on begins with one.
        """
        self._inbox.put_now(Authenticated(self.user, self.expires_at, dropped))
        if dropped:
            # What is not sent meanwhile is not missing.
            logs = frozenset[Key]((channel, name) for channel in ("trade", "raw") for name in dropped)
            self._inbox.put_now(Forget(logs, frozenset()))
        lost = set(dropped)
        async with self._request_lock:
            due = [one for one in self._interests if one.answered and one.is_restricted(lost)]
            for interest in due:
                of = interest
                whole = Request("subscribe", of.channels, of.symbols, of.conflate_ms, True, None, [])
                try:
                    answers = [await self._send_request(part) for part in split(whole, self._symbols_max())]
                except ClosedError:
                    return
                except RejectedError as error:
                    logger.warning("subscribing again: %s", error)
                    continue
                interest.forget_names()
                for answer in answers:
                    interest.count += int(answer.get("count", 0))
                    interest.take_names(answer)

    async def _until_space(self, socket: ClientConnection) -> None:
        """Waits until the inbox has space. Raises `ConnectionClosed` if the connection ends before.

        A packet without space is not taken, and neither is its token: it is requested again after the reconnect.
        """
        if self._inbox.has_space():
            return
        space, end = asyncio.create_task(self._inbox.until_space()), asyncio.create_task(socket.wait_closed())
        try:
            await asyncio.wait({space, end}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            space.cancel()
            end.cancel()
        if not space.done():
            raise ConnectionClosed(socket.protocol.close_rcvd, socket.protocol.close_sent, None)

    def _take_packet(self, data: bytes) -> None:
        header = wire.read_header(data)
        self.packets_read += 1
        self.bytes_read += len(data)
        self._token = (header.epoch, header.position)
        # Before the event `live`, which this packet may cause.
        self._inbox.put_now(data)
        if header.is_caught_up:
            for interest in self._interests:
                interest.caught_up |= interest.answered
        if self._state is not State.LIVE:
            self._update_state()

    def _update_state(self) -> None:
        """Becomes live once all interests are answered and their snapshots and replays complete."""
        if self._state is not State.LIVE and self._socket and all(one.caught_up for one in self._interests):
            self._state = State.LIVE
            self._inbox.put_now(Connection("live"))


def _retrieve(task: asyncio.Task[None]) -> None:
    """The error of a task was raised elsewhere: asyncio need not log it."""
    if not task.cancelled():
        task.exception()
