"""The client: one stream over successive connections.

Iterating over the client decodes its packets, so `instruments`, `state` and the counters are those of the records that
the program has read.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, overload

from . import arguments, http, tokens
from .backoff import Backoff, check_backoff
from .connection import Endpoint
from .errors import ClosedError, RefusedError, RescaledError, RestartedError
from .extras import required
from .follow import Follower
from .reading import Event, Iteration, Packet, Reader
from .records import CHANNELS, AnyRecord, Channel, Instrument, State
from .session import INBOX_PACKETS, Session
from .subscriptions import Interest, Token, check, check_interval

if TYPE_CHECKING:
    from .arrays import Arrays, Rows, Scales
    from .collection import Collected, Collection, Tables

T = TypeVar("T")
TableChannel: TypeAlias = Literal["quote", "trade", "ticker", "book"]
TableChannels: TypeAlias = list[TableChannel] | tuple[TableChannel, ...]
TABLE_CHANNELS = ("quote", "trade", "ticker", "book")
DEFAULT_CHANNELS: tuple[Channel, ...] = ("quote", "trade")


@dataclass(slots=True, frozen=True)
class Ping:
    """The seconds of a round trip, and by how many the server's clock is ahead, exact to half a round trip."""

    rtt_s: float
    clock_ahead_s: float


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
        """Exact names that no instrument had when the server answered. The server holds them: the definition and the
        records of each follow once it is defined, without another request."""
        return self._interest.unknown

    @property
    def denied(self) -> list[str]:
        """Names and patterns of which the client gets nothing: its rights do not allow them."""
        return self._interest.denied

    @property
    def limited(self) -> list[str]:
        """Those of which it gets fewer channels, or fewer symbols of a pattern, than were requested."""
        return self._interest.limited

    @property
    def delayed(self) -> list[str]:
        """Of both, those to which it has a right to delayed data."""
        return self._interest.delayed

    async def set_conflate_ms(self, conflate_ms: int) -> None:
        """Changes the interval, without a new snapshot. Raises `RejectedError` if the server rejects it.

        If the call is cancelled, the change is still completed.
        """
        await self._client.set_interval(self._interest, conflate_ms)

    async def close(self) -> None:
        """Ends it, also if the call is cancelled. Channels and names of other subscriptions stay subscribed."""
        await self._client.unsubscribe(self._interest)

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class Client(Session):
    """A connection to a server that reconnects by itself. `tickcast.connect` makes one.

    Iterate over it with `async for` for records, or over `events`, `packets` or `arrays`: one at a time. The client has
    one position in its stream, at which each of them continues: what was not handed out yet comes next. All calls may
    be cancelled.
    """

    def __init__(self, endpoint: Endpoint, *, conflate_ms: int, backoff: Backoff, inbox_packets: int) -> None:
        super().__init__(endpoint, backoff=backoff, inbox_packets=inbox_packets)
        self._conflate_ms = conflate_ms
        self._reader = Reader(self._inbox)
        self._channels: set[str] = set()
        """The channels that were ever subscribed to: what came of them may be read later."""

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
        Raises `RejectedError` if the server rejects it, and `ValueError` or `TypeError` for arguments that no server
        accepts. If the call is cancelled or fails, nothing of it stays subscribed.
        """
        interval = self._conflate_ms if conflate_ms is None else conflate_ms
        names, chosen = check(symbols, channels, interval)
        interest = Interest(names, chosen, int(interval), arguments.boolean("snapshot", snapshot))
        await self._begin(interest)
        self._channels.update(chosen)
        return Subscription(self, interest)

    async def set_interval(self, interest: Interest, conflate_ms: int) -> None:
        """Implements `Subscription.set_conflate_ms`."""
        await self._change_interval(interest, check_interval(conflate_ms))

    async def unsubscribe(self, interest: Interest) -> None:
        """Implements `Subscription.close`."""
        await self._end(interest)

    # ---- reading

    def __aiter__(self) -> Iteration[AnyRecord]:
        return self.records()

    def records(self) -> Iteration[AnyRecord]:
        """Records of channels, gaps and states, one after another: the same as `async for record in client`."""
        return Iteration(self._reader.record, self._reader.exclusive)

    def events(self) -> Iteration[Event]:
        """All records, with definitions and heartbeats, and changes of the connection and of the token."""
        return Iteration(self._reader.event, self._reader.exclusive)

    def ready(self) -> AnyRecord | None:
        """The next of `events` that is a record and needs no waiting; `None` at the end of the present packet."""
        return self._reader.ready()

    def packets(self) -> Iteration[Packet]:
        """The packets, with the new records of each: of a packet that was read in part, the rest."""
        return Iteration(self._reader.packet, self._reader.exclusive)

    def arrays(self) -> Iteration[Arrays]:
        """The packets as numpy arrays by channel. Needs numpy.

        Of a packet that was read in part, the rest. A packet with rows of an instrument before and after a change of
        its exponents comes in parts.
        """
        required("numpy", "arrays")
        return Iteration(self._reader.arrays, self._reader.exclusive)

    @overload
    async def collect(
        self, channels: TableChannel, *, count: int | None = ..., seconds: float | None = ...
    ) -> Rows: ...

    @overload
    async def collect(
        self, channels: TableChannels, *, count: int | None = ..., seconds: float | None = ...
    ) -> Tables: ...

    async def collect(
        self,
        channels: TableChannel | TableChannels,
        *,
        count: int | None = None,
        seconds: float | None = None,
    ) -> Collected:
        """Reads until there are `count` records of a channel or `seconds` have passed, and returns them as one array.

        `channels` is quote, trade, ticker or book, or a list of these: then the result is a dict of arrays by channel,
        and `count` is that of all records together. An array has a row for each record, and of books one for each
        level. `to_pandas()`, `to_polars()` and `to_arrow()` of the result make frames, and `gaps` of an array has the
        gaps of its channel.

        Without a `count`, records from before the call are skipped, except for the newest quote or ticker of each
        instrument, and the changes of books since their last snapshot. With a `count` it ends directly after the last
        record, where the next read continues. Records of other channels before that are skipped. Raises, with the rows
        so far, `RestartedError` if the server is restarted, and `RescaledError` if the exponents of an instrument with
        rows change. If the call is cancelled, its records come next.
        """
        required("numpy", "collect")
        chosen, is_one = self._chosen(channels)
        if count is None and seconds is None:
            raise ValueError("collect: no end: expected count, seconds, or both")
        rows_max = None if count is None else arguments.integer("count", count, 1, 2**63 - 1)
        limit_s = None if seconds is None else arguments.seconds("seconds", seconds, zero=True)
        self._reader.exclusive.begin()
        return await self._reader.exclusive.during(self._collect(chosen, is_one, rows_max, limit_s))

    @overload
    def batches(self, channels: TableChannel, *, seconds: float = ...) -> Iteration[Rows]: ...

    @overload
    def batches(self, channels: TableChannels, *, seconds: float = ...) -> Iteration[Tables]: ...

    def batches(
        self, channels: TableChannel | TableChannels, *, seconds: float = 1.0
    ) -> Iteration[Rows] | Iteration[Tables]:
        """What comes, `seconds` at a time, in the form of `collect`: without a break between one and the next.

        A batch may be empty. It ends earlier where the server is restarted or the exponents of an instrument change,
        so that all of its rows have one scale.
        """
        required("numpy", "batches")
        chosen, is_one = self._chosen(channels)
        limit_s = arguments.seconds("seconds", seconds)
        batches: Iteration[Any] = Iteration(lambda: self._batch(chosen, is_one, limit_s), self._reader.exclusive)
        return batches

    def _chosen(self, channels: object) -> tuple[tuple[str, ...], bool]:
        """The channels to collect, and whether one was given by its name alone."""
        is_one = isinstance(channels, str)
        chosen = (
            (arguments.one_of("channels", channels, TABLE_CHANNELS),)
            if is_one
            else arguments.some_of("channels", channels, TABLE_CHANNELS)
        )
        for channel in chosen:
            if channel not in self._channels:
                have = ", ".join(one for one in CHANNELS if one in self._channels) or "no channel"
                raise ValueError(
                    f"channels: {channel} is not subscribed, and would never come: expected some of {have}, "
                    f"or subscribe(..., channels=[{channel!r}]) before"
                )
        return chosen, is_one

    async def _collect(
        self, channels: tuple[str, ...], is_one: bool, count: int | None, limit_s: float | None
    ) -> Collected:
        from .collection import Collection

        into = Collection(channels, self.scales, is_one=is_one)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    if count is None:
                        await self._skip(into)
                    await self._gather(into, count)
        except (RestartedError, RescaledError):
            raise
        except BaseException:
            self._give_back(into)
            raise
        return into.result()

    async def _batch(self, channels: tuple[str, ...], is_one: bool, limit_s: float) -> Collected | None:
        from .collection import Collection

        into = Collection(channels, self.scales, is_one=is_one)
        try:
            async with asyncio.timeout(limit_s):
                await self._gather(into, None)
            # The stream has ended.
            return into.result() if into.count else None
        except TimeoutError:
            return into.result()
        except (RestartedError, RescaledError) as error:
            part: Collected = error.rows
            return part
        except BaseException:
            self._give_back(into)
            raise

    async def _gather(self, into: Collection, count: int | None) -> None:
        from . import arrays

        while count is None or into.count < count:
            cursor = await self._reader.cursor()
            if cursor is None:
                return
            packet = arrays.take(cursor, None if count is None else into.limit(count))
            try:
                into.add(packet)
            except (RestartedError, RescaledError):
                # The records that do not fit come next.
                self._give_back(into.rest(packet))
                raise

    def _give_back(self, what: Collection) -> None:
        if (cursor := what.returned(self._follower)) is not None:
            self._reader.give_back(cursor)

    async def _skip(self, into: Collection) -> None:
        """Skips the packets in the inbox and the socket; keeps the newest quote or ticker of each instrument, and the
        books."""
        from . import arrays
        from .collection import Newest

        if not len(self._reader):
            return
        with contextlib.suppress(ClosedError):
            await self.ping()
        newest = Newest(into.channels)
        while len(self._reader) or self._state is State.RESYNCING:
            cursor = await self._reader.cursor()
            if cursor is None:
                return
            newest.add(arrays.take(cursor))
        newest.fill(into, books_only=self._state is not State.LIVE)

    @property
    def _follower(self) -> Follower:
        return self._reader.follower

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
        required("numpy", "scales")
        from .arrays import Scales

        return Scales(self._follower.share(), self._follower.epoch)

    def state(self, symbol: str | None = None) -> State:
        """The state of an instrument; without a symbol, that of the connection."""
        if symbol is not None:
            arguments.text("symbol", symbol)
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
        return await self._query(
            lambda token: http.snapshot(symbol, of.url, headers=of.headers, tls=of.tls, token=token)
        )

    async def bars(self, /, symbol: str, **options: Any) -> http.Bars:
        """Bars of an instrument, over HTTP; see `tickcast.bars`."""
        of = self._endpoint
        return await self._query(
            lambda token: http.bars(symbol, of.url, headers=of.headers, tls=of.tls, token=token, **options)
        )

    async def trades(self, symbol: str, *, limit: int = 100) -> dict[str, Any]:
        """The newest trades of an instrument, over HTTP; see `tickcast.trades`."""
        of = self._endpoint
        return await self._query(
            lambda token: http.trades(symbol, of.url, limit=limit, headers=of.headers, tls=of.tls, token=token)
        )

    async def _query(self, query: Callable[[str | None], Awaitable[T]]) -> T:
        """A request with the client's token; once more with another one where it is refused."""
        of = self._endpoint.tokens
        try:
            return await query(await of.present())
        except RefusedError as error:
            if error.status != 401 or not of.can_change or "revoked" in error.message:
                raise
        return await query(await of.obtain())


class connect:
    """Connects to a server: `async with tickcast.connect(url) as client`, or `client = await tickcast.connect(url)`.

    `url` is `ws://HOST:PORT`, `wss://...`, or `HOST:PORT` alone. `conflate_ms` is the conflation interval of
    subscriptions without one of their own. `compression` offers permessage-deflate, for networks where bytes cost more
    than time. `token` is a token, an API key, or a function for one, which may be async: it is called with a
    `TokenRequest` for each connection, before a token expires and after one was refused. `headers` are sent with the
    upgrade and with HTTP requests, such as those for a proxy.
    `wait` waits for a server that is not reachable yet; otherwise the first failure is raised. The client reconnects
    by itself after a later loss.
    """

    def __init__(
        self,
        url: str = http.DEFAULT_URL,
        *,
        conflate_ms: int = 0,
        compression: bool = False,
        token: str | tokens.Provider | None = None,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        open_timeout_s: float = 10.0,
        wait: bool = False,
        backoff: Backoff | None = None,
        inbox_packets: int = INBOX_PACKETS,
    ) -> None:
        endpoint = Endpoint(
            http.stream_url(url), headers or {}, compression, tls, open_timeout_s, tokens=tokens.check(token)
        ).checked()
        backoff = check_backoff(Backoff() if backoff is None else backoff)
        interval = check_interval(conflate_ms)
        packets = arguments.integer("inbox_packets", inbox_packets, 1, 2**31)
        self._client = Client(endpoint, conflate_ms=interval, backoff=backoff, inbox_packets=packets)
        self._wait = arguments.boolean("wait", wait)

    def __await__(self) -> Generator[Any, None, Client]:
        return self._client.open(wait=self._wait).__await__()

    async def __aenter__(self) -> Client:
        return await self._client.open(wait=self._wait)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()
