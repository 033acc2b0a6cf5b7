"""The client: one stream over successive connections.

Iterating over the client decodes its packets, so `instruments`, `state` and the counters are those of the records that
the program has read.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Generator, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from . import http
from .backoff import Backoff
from .connection import Endpoint
from .errors import ClosedError, RestartedError
from .follow import Follower
from .records import AnyRecord, Channel, Definition, Heartbeat, Instrument, State
from .session import INBOX_PACKETS, Connection, Forget, Session
from .subscriptions import Interest, Key, Request, Token, check, split
from .wire import PacketHeader

if TYPE_CHECKING:
    from .arrays import Arrays, Collection, Rows, Scales, Structured

DEFAULT_CHANNELS: tuple[Channel, ...] = ("quote", "trade")


@dataclass(slots=True, frozen=True)
class Packet:
    """The new records of one packet. `(header.epoch, header.position)` is its token."""

    header: PacketHeader
    records: list[AnyRecord]


@dataclass(slots=True, frozen=True)
class Ping:
    """The seconds of a round trip, and by how many the server's clock is ahead, exact to half a round trip."""

    rtt_s: float
    clock_ahead_s: float


Event: TypeAlias = AnyRecord | Connection


class Subscription:
    """A subscription of `Client.subscribe`. It lasts over reconnects, until `close` or the end of the client."""

    def __init__(self, client: Client, interest: Interest) -> None:
        self._client = client
        self._interest = interest

    @property
    def symbols(self) -> tuple[str, ...]:
        """Its names and patterns."""
        return self._interest.symbols

    @property
    def channels(self) -> tuple[Channel, ...]:
        """Its channels."""
        return self._interest.channels

    @property
    def conflate_ms(self) -> int:
        """The granted conflation interval: the requested one, rounded up to one of the server's."""
        return self._interest.conflate_ms

    @property
    def count(self) -> int:
        """The number of instruments that it covered when the server answered."""
        return self._interest.count

    @property
    def unknown(self) -> list[str]:
        """Exact names that no instrument had. They are requested again after a reconnect, and not before."""
        return self._interest.unknown

    async def set_conflate_ms(self, conflate_ms: int) -> None:
        """Changes the interval, without a new snapshot. Raises `RejectedError` if the server rejects it."""
        await self._client.set_interval(self._interest, conflate_ms)

    async def close(self) -> None:
        """Ends it. Channels and names of other subscriptions stay subscribed."""
        await self._client.unsubscribe(self._interest)

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Client(Session):
    """A connection to a server that reconnects by itself. `tickcast.connect` makes one.

    Iterate over it with `async for` for records, or over `events`, `packets` or `arrays`: one at a time.
    """

    def __init__(self, endpoint: Endpoint, *, conflate_ms: int, backoff: Backoff, inbox_packets: int) -> None:
        super().__init__(endpoint, backoff=backoff, inbox_packets=inbox_packets)
        self._conflate_ms = conflate_ms
        self._follower = Follower()
        self._rest: dict[str, Rows] = {}

    # ---- subscriptions

    async def subscribe(
        self,
        symbols: Iterable[str],
        *,
        channels: Iterable[Channel] = DEFAULT_CHANNELS,
        conflate_ms: int | None = None,
        snapshot: bool = True,
    ) -> Subscription:
        """Subscribes to channels of symbols: exact names, or patterns with one `*` at the end.

        With `conflate_ms` above 0 the server sends in each interval at most one value per instrument and state channel
        (quote, ticker, book), the newest. `snapshot=False` starts with the next records.
        Raises `RejectedError` if the server rejects it, and `ValueError` for arguments that no server accepts.
        """
        interval = self._conflate_ms if conflate_ms is None else conflate_ms
        names, chosen = check(symbols, channels, interval)
        interest = Interest(names, chosen, interval, snapshot)
        self._interests.append(interest)
        try:
            while not interest.answered:
                await self._until_connected()
                await self._send_requests([interest])
        except BaseException:
            self._interests.remove(interest)
            raise
        interest.is_new = False
        return Subscription(self, interest)

    async def set_interval(self, interest: Interest, conflate_ms: int) -> None:
        """Implements `Subscription.set_conflate_ms`."""
        check(interest.symbols, interest.channels, conflate_ms)
        whole = Request("subscribe", interest.channels, interest.symbols, conflate_ms, False, None, [])
        for part in split(whole, self._symbols_max()):
            answer = await self._send_request(part)
            interest.conflate_ms = int(answer["conflate_ms"])

    async def unsubscribe(self, interest: Interest) -> None:
        """Implements `Subscription.close`."""
        if interest not in self._interests:
            return
        self._interests.remove(interest)
        kept = set[Key]().union(*(other.keys() for other in self._interests))
        if not interest.answered or self._socket is None:
            return
        dropped = interest.keys() - kept
        # Up to this token nothing is missing of the interests that a pattern covers.
        token = self._token
        for channel in interest.channels:
            names = tuple(symbol for symbol in interest.symbols if (channel, symbol) in dropped)
            if not names:
                continue
            whole = Request("unsubscribe", (channel,), names, 0, False, None, [])
            for part in split(whole, self._symbols_max()):
                await self._send_request(part)
        self._inbox.put_now(Forget(frozenset(dropped), frozenset(kept)))
        # Unsubscribing a pattern ends all names that it covers, those of other subscriptions as well: these resume. The
        # answer to a resume always completes, also for names that the server still holds.
        covered = [other for other in self._interests if other.is_covered_by(dropped)]
        for other in covered:
            other.connection_lost(token)
        if covered:
            await self._send_requests(covered)

    # ---- reading

    def __aiter__(self) -> AsyncIterator[AnyRecord]:
        return self.records()

    async def records(self) -> AsyncIterator[AnyRecord]:
        """Records of channels, gaps and states, one after another: the same as `async for record in client`."""
        async for event in self.events():
            if not isinstance(event, (Connection, Definition, Heartbeat)):
                yield event

    async def events(self) -> AsyncIterator[Event]:
        """All records, with definitions and heartbeats, and changes of the connection."""
        async for item in self._items():
            if isinstance(item, Connection):
                yield item
            else:
                for record in self._decoded(item)[1]:
                    yield record

    async def packets(self) -> AsyncIterator[Packet]:
        """The packets, with the new records of each."""
        async for item in self._items():
            if isinstance(item, bytes):
                yield Packet(*self._decoded(item))

    async def arrays(self) -> AsyncIterator[Arrays]:
        """The packets as numpy arrays by channel. Needs `pip install tickcast[numpy]`."""
        from . import arrays

        async for item in self._items():
            if isinstance(item, bytes):
                yield arrays.read(self._follower, item)

    async def collect(
        self, channel: Literal["quote", "trade", "ticker"], *, count: int | None = None, seconds: float | None = None
    ) -> Rows:
        """Reads until there are `count` records of a channel or `seconds` have passed, and returns them as one array.

        Without a `count`, records from before the call are skipped, except for the newest quote or ticker of each
        instrument. With a `count` it continues after the last call with one: rows of the last packet beyond `count` are
        kept for the next call. Records of other channels are skipped. `rows.scales.columns(rows)` makes the columns of
        a DataFrame. Raises `RestartedError`, with the rows so far, if the server is restarted meanwhile.
        """
        from . import arrays

        if count is None and seconds is None:
            raise ValueError("collect: no end: expected count, seconds, or both")
        rest = self._rest.pop(channel, None)
        into = arrays.Collection(channel, self.scales)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                if count is None:
                    await self._skip(into)
                elif rest is not None:
                    into.add(rest, rest.scales or into.scales)
                if count is None or into.count < count:
                    await self._gather(into, count)
        together = into.rows()
        if count is not None and len(together) > count:
            self._rest[channel] = into.scales.marked(together[count:])
        return into.scales.marked(together[:count])

    async def _gather(self, into: Collection, count: int | None) -> None:
        async for packet in self.arrays():
            rows: Structured = getattr(packet, into.channel)
            try:
                into.add(rows, packet.scales)
            except RestartedError:
                self._rest[into.channel] = packet.scales.marked(rows)
                raise
            if count is not None and into.count >= count:
                break

    async def _skip(self, into: Collection) -> None:
        """Skips the packets in the inbox and the socket; keeps the newest quote or ticker of each instrument."""
        from . import arrays

        if not len(self._inbox):
            return
        with contextlib.suppress(ClosedError):
            await self.ping()
        before = arrays.Collection(into.channel, into.scales)
        while len(self._inbox) or self._state is State.RESYNCING:
            item = await self._inbox.get()
            if item is None:
                return
            if isinstance(item, Forget):
                self._follower.forget(item.keys, item.kept)
            elif isinstance(item, bytes):
                packet = arrays.read(self._follower, item)
                if packet.scales.epoch != before.scales.epoch:
                    before = arrays.Collection(into.channel, packet.scales)
                before.add(getattr(packet, into.channel), packet.scales)
        if self._state is State.LIVE and into.channel != "trade":
            into.add(before.newest(), before.scales)

    async def _items(self) -> AsyncIterator[bytes | Connection]:
        while (item := await self._inbox.get()) is not None:
            if isinstance(item, Forget):
                self._follower.forget(item.keys, item.kept)
            else:
                yield item

    def _decoded(self, item: bytes) -> tuple[PacketHeader, list[AnyRecord]]:
        return self._follower.packet(item)

    # ---- properties

    @property
    def connected(self) -> bool:
        """Whether there is a connection at present."""
        return self._socket is not None

    @property
    def token(self) -> Token | None:
        """Epoch and position of the last packet that was received."""
        return self._token

    @property
    def instruments(self) -> Mapping[str, Instrument]:
        """The instruments of the records read so far, by symbol."""
        return self._follower.by_symbol

    @property
    def stats(self) -> dict[str, int]:
        """Counters: records read, of these conflated, repeated ones left out, gaps, missing records, and others."""
        of = self._follower
        counts = {"records": of.records, "conflated": of.conflated, "repeated": of.repeated, "gaps": of.gaps}
        return counts | {
            "missing": of.missing,
            "packets": self.packets_read,
            "bytes": self.bytes_read,
            "reconnects": self.reconnects,
        }

    @property
    def scales(self) -> Scales:
        """Turns mantissas of arrays into floats, and ids into symbols, for the epoch read last."""
        from .arrays import Scales

        return Scales(self._follower.directory, self._follower.epoch)

    def state(self, symbol: str | None = None) -> State:
        """The state of an instrument; without a symbol, that of the connection."""
        if self._state is not State.LIVE or symbol is None:
            return self._state
        return self._follower.state(symbol)

    async def ping(self) -> Ping:
        """Measures the round trip and the server's clock."""
        await self._until_connected()
        before, started = time.time(), time.perf_counter()
        answer = await self._request({"op": "ping"})
        rtt_s = time.perf_counter() - started
        return Ping(rtt_s, answer["ts"] / 1e9 - (before + rtt_s / 2))

    async def snapshot(self, symbol: str) -> dict[str, Any]:
        """The last values of an instrument, over HTTP; see `tickcast.snapshot`."""
        of = self._endpoint
        return await http.snapshot(symbol, of.url, headers=of.headers, tls=of.tls)

    async def bars(self, symbol: str, **options: Any) -> dict[str, Any]:
        """Bars of an instrument, over HTTP; see `tickcast.bars`."""
        of = self._endpoint
        answer: dict[str, Any] = await http.bars(symbol, of.url, headers=of.headers, tls=of.tls, **options)
        return answer


class connect:
    """Connects to a server: `async with tickcast.connect(url) as client`, or `client = await tickcast.connect(url)`.

    `url` is `ws://HOST:PORT`, `wss://...`, or `HOST:PORT` alone. `conflate_ms` is the conflation interval of
    subscriptions without one of their own. `compression` offers permessage-deflate, for networks where bytes cost more
    than time. `headers` are sent with the upgrade and with HTTP requests, such as an `Authorization` for a proxy.
    `wait` waits for a server that is not reachable yet; otherwise the first failure is raised. The client reconnects
    by itself after a later loss.
    """

    def __init__(
        self,
        url: str = http.DEFAULT_URL,
        *,
        conflate_ms: int = 0,
        compression: bool = False,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        open_timeout_s: float = 10.0,
        wait: bool = False,
        backoff: Backoff | None = None,
        inbox_packets: int = INBOX_PACKETS,
    ) -> None:
        endpoint = Endpoint(http.stream_url(url), headers or {}, compression, tls, open_timeout_s)
        backoff = Backoff() if backoff is None else backoff
        self._client = Client(endpoint, conflate_ms=conflate_ms, backoff=backoff, inbox_packets=inbox_packets)
        self._wait = wait

    def __await__(self) -> Generator[Any, None, Client]:
        return self._client.open(wait=self._wait).__await__()

    async def __aenter__(self) -> Client:
        return await self._client.open(wait=self._wait)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()
