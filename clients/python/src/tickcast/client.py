"""The client: one stream over as many connections as it takes.

Whoever iterates over the client decodes what has come. So `instruments`, `state` and the counters are those of what has
been read.
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
from .connection import Link
from .errors import ClosedError, RestartedError
from .follow import Follower
from .pace import Backoff
from .records import AnyRecord, Channel, Definition, Heartbeat, Instrument, State
from .session import INBOX_PACKETS, Connection, Forget, Session
from .subscriptions import Key, Request, Token, Wanted, check, split
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
    """A round trip: its seconds, and how far the server's clock is ahead of this one's, seconds, to half of that."""

    rtt_s: float
    clock_ahead_s: float


Event: TypeAlias = AnyRecord | Connection


class Subscription:
    """What `Client.subscribe` gives back. It lasts over reconnects, until `close` or the client's end."""

    def __init__(self, client: Client, wanted: Wanted) -> None:
        self._client = client
        self._wanted = wanted

    @property
    def symbols(self) -> tuple[str, ...]:
        """The names and patterns asked for."""
        return self._wanted.symbols

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels asked for."""
        return self._wanted.channels

    @property
    def conflate_ms(self) -> int:
        """The interval that the server has granted: the one asked for, rounded up to one it offers."""
        return self._wanted.conflate_ms

    @property
    def count(self) -> int:
        """How many instruments it covered when it was answered."""
        return self._wanted.count

    @property
    def unknown(self) -> list[str]:
        """Exact names that no instrument had. They are asked for again after a reconnect, and not before."""
        return self._wanted.unknown

    async def set_conflate_ms(self, conflate_ms: int) -> None:
        """Changes the interval, with no new snapshot. Raises `RejectedError` where the server does not take it."""
        await self._client.reprofile(self._wanted, conflate_ms)

    async def close(self) -> None:
        """Ends it. What another subscription wants as well stays."""
        await self._client.unsubscribe(self._wanted)

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Client(Session):
    """A connection to a server that comes back by itself. `tickcast.connect` makes one.

    Iterate over it with `async for` for records, or over `events`, `packets` or `arrays`; one at a time.
    """

    def __init__(self, link: Link, *, conflate_ms: int, backoff: Backoff, inbox_packets: int) -> None:
        super().__init__(link, backoff=backoff, inbox_packets=inbox_packets)
        self._conflate_ms = conflate_ms
        self._follower = Follower()
        self._rest: dict[str, Rows] = {}

    # ---- what is wanted

    async def subscribe(
        self,
        symbols: Iterable[str],
        *,
        channels: Iterable[Channel] = DEFAULT_CHANNELS,
        conflate_ms: int | None = None,
        snapshot: bool = True,
    ) -> Subscription:
        """Asks for channels of symbols: exact names, or patterns with one `*` at the end.

        With `conflate_ms` above 0 the server sends at most one value for each instrument and state channel (quote,
        ticker, book) in that interval, the newest. `snapshot=False` begins with what comes next.
        Raises `RejectedError` where the server does not take it, and `ValueError` where no server would.
        """
        interval = self._conflate_ms if conflate_ms is None else conflate_ms
        names, chosen = check(symbols, channels, interval)
        wanted = Wanted(names, chosen, interval, snapshot)
        self._wanted.append(wanted)
        try:
            while not wanted.answered:
                await self._until_back()
                await self._ask([wanted])
        except BaseException:
            self._wanted.remove(wanted)
            raise
        wanted.is_new = False
        return Subscription(self, wanted)

    async def reprofile(self, wanted: Wanted, conflate_ms: int) -> None:
        """What `Subscription.set_conflate_ms` does."""
        check(wanted.symbols, wanted.channels, conflate_ms)
        whole = Request("subscribe", wanted.channels, wanted.symbols, conflate_ms, False, None, [])
        for part in split(whole, self._symbols_max()):
            answer = await self._say(part)
            wanted.conflate_ms = int(answer["conflate_ms"])

    async def unsubscribe(self, wanted: Wanted) -> None:
        """What `Subscription.close` does."""
        if wanted not in self._wanted:
            return
        self._wanted.remove(wanted)
        kept = set[Key]().union(*(other.keys() for other in self._wanted))
        if not wanted.answered or self._socket is None:
            return
        gone = wanted.keys() - kept
        # Before it takes effect nothing is missing of what it takes along.
        token = self._token
        for channel in wanted.channels:
            names = tuple(symbol for symbol in wanted.symbols if (channel, symbol) in gone)
            if not names:
                continue
            whole = Request("unsubscribe", (channel,), names, 0, False, None, [])
            for part in split(whole, self._symbols_max()):
                await self._say(part)
        self._inbox.put_now(Forget(frozenset(gone), frozenset(kept)))
        # A pattern takes the names that it covers with it, those of other subscriptions, too: these go on from where
        # they were. A resume always comes to its end, also where the server holds all of it still.
        taken = [other for other in self._wanted if other.is_covered_by(gone)]
        for other in taken:
            other.lose(token)
        if taken:
            await self._ask(taken)

    # ---- what comes

    def __aiter__(self) -> AsyncIterator[AnyRecord]:
        return self.records()

    async def records(self) -> AsyncIterator[AnyRecord]:
        """Records of channels, gaps and states, one after another, as `async for record in client` has them."""
        async for event in self.events():
            if not isinstance(event, (Connection, Definition, Heartbeat)):
                yield event

    async def events(self) -> AsyncIterator[Event]:
        """All records, definitions and heartbeats among them, and what becomes of the connection."""
        async for item in self._items():
            if isinstance(item, Connection):
                yield item
            else:
                for record in self._decoded(item)[1]:
                    yield record

    async def packets(self) -> AsyncIterator[Packet]:
        """The packets, with what is new in each."""
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

        Without a `count`, what came before the call is left out, but for the newest quote or ticker of each instrument.
        With one it goes on where the last call with one has ended: rows of its last packet beyond `count` are kept.
        Records of other channels are passed over. `rows.scales.columns(rows)` makes a DataFrame's columns of them.
        Raises `RestartedError`, with the rows so far, where the server was started anew amid them.
        """
        from . import arrays

        if count is None and seconds is None:
            raise ValueError("collect has no end: say count, seconds, or both")
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
        """Reads past what waits, here and in the socket; of a state the newest of each instrument is taken over."""
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

    # ---- what is known

    @property
    def connected(self) -> bool:
        """There is a connection at this moment."""
        return self._socket is not None

    @property
    def token(self) -> Token | None:
        """Epoch and position of the last packet that has come."""
        return self._token

    @property
    def instruments(self) -> Mapping[str, Instrument]:
        """By symbol, the instruments of what has been read."""
        return self._follower.by_symbol

    @property
    def stats(self) -> dict[str, int]:
        """Counts of what has been read: records, conflated ones, repeated ones left out, gaps, and missing records."""
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
        """Turns mantissas of arrays into floats, and instruments into symbols: those of the epoch read last."""
        from .arrays import Scales

        return Scales(self._follower.directory, self._follower.epoch)

    def state(self, symbol: str | None = None) -> State:
        """LIVE, STALE, RESYNCING, HALTED or ENDED: of an instrument, or of the connection where none is named."""
        if self._state is not State.LIVE or symbol is None:
            return self._state
        return self._follower.state(symbol)

    async def ping(self) -> Ping:
        """Asks the server for its time."""
        await self._until_back()
        before, started = time.time(), time.perf_counter()
        answer = await self._answer_to({"op": "ping"})
        rtt_s = time.perf_counter() - started
        return Ping(rtt_s, answer["ts"] / 1e9 - (before + rtt_s / 2))

    async def snapshot(self, symbol: str) -> dict[str, Any]:
        """The last values of an instrument, over HTTP; see `tickcast.snapshot`."""
        return await http.snapshot(symbol, self._link.url, headers=self._link.headers, tls=self._link.tls)

    async def bars(self, symbol: str, **options: Any) -> dict[str, Any]:
        """Bars of an instrument, over HTTP; see `tickcast.bars`."""
        of = self._link
        told: dict[str, Any] = await http.bars(symbol, of.url, headers=of.headers, tls=of.tls, **options)
        return told


class connect:
    """Connects to a server: `async with tickcast.connect(url) as client`, or `client = await tickcast.connect(url)`.

    `url` is `ws://HOST:PORT`, `wss://...`, or `HOST:PORT` alone. `conflate_ms` is for subscriptions that name none.
    `compression` offers permessage-deflate, for networks where bytes cost more than time. `headers` go with the upgrade
    and with HTTP requests, as an `Authorization` for what stands before the server. `wait` waits for a server that is
    not there yet, where the first failure is raised otherwise; a connection that is lost later comes back by itself.
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
        link = Link(http.stream_url(url), headers or {}, compression, tls, open_timeout_s)
        pace = Backoff() if backoff is None else backoff
        self._client = Client(link, conflate_ms=conflate_ms, backoff=pace, inbox_packets=inbox_packets)
        self._wait = wait

    def __await__(self) -> Generator[Any, None, Client]:
        return self._client.open(wait=self._wait).__await__()

    async def __aenter__(self) -> Client:
        return await self._client.open(wait=self._wait)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()
