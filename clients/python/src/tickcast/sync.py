"""The client without asyncio, for scripts and plain notebooks: the same calls, each of which waits for its result.

import tickcast.sync

with tickcast.sync.connect("ws://127.0.0.1:9001") as client:
    client.subscribe(["BTC-USD"], channels=["quote", "trade"])
    quotes = client.collect("quote", seconds=5).to_pandas()
    for record in client:
        print(record.symbol, record.as_dict(str))

A client and a publisher have an event loop in a thread of their own, so that the stream is read, pings are answered and
heartbeats are sent while the program computes. Records are decoded in the thread of the program: the two threads meet
once per packet. A wait that is interrupted, as by Ctrl-C, is cancelled as an asyncio call is: what was read comes next.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

from . import client as asynchronous
from . import http
from . import publish as publishing
from .client import DEFAULT_CHANNELS, TableChannel, TableChannels
from .errors import ClosedError, ConcurrentReadError
from .reading import Event, Packet
from .records import AnyRecord, Channel, Definition, Heartbeat, Instrument, State
from .subscriptions import Token

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .arrays import Arrays, Rows, Scales
    from .collection import Tables

T = TypeVar("T")
P = ParamSpec("P")


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        # A program that does not close its client ends all the same.
        self._thread = threading.Thread(target=self._loop.run_forever, name="tickcast", daemon=True)
        self._thread.start()

    @property
    def is_closed(self) -> bool:
        """It has ended."""
        return self._loop.is_closed()

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """The result of a call. If the wait for it is interrupted, the call is cancelled, and its end awaited."""
        if self._loop.is_closed() or threading.current_thread() is self._thread:
            call.close()
            if self._loop.is_closed():
                raise ClosedError(1000, "this client has been closed")
            raise RuntimeError("a call from within the event loop of the client: expected one of another thread")
        tasks: list[asyncio.Task[T]] = []
        ended = threading.Event()

        def start() -> None:
            tasks.append(self._loop.create_task(call))
            tasks[0].add_done_callback(lambda _: ended.set())

        def cancel() -> None:
            tasks[0].cancel()

        self._loop.call_soon_threadsafe(start)
        try:
            ended.wait()
        except BaseException:
            self._loop.call_soon_threadsafe(cancel)
            ended.wait()
            raise
        return tasks[0].result()

    def close(self) -> None:
        """Ends the loop and its thread."""
        if not self._loop.is_closed():
            self.run(self._loop.shutdown_default_executor())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Owner:
    """What has a loop, until it is closed."""

    _loop: Loop
    _of: Any

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        return self._loop.run(call)

    def close(self) -> None:
        """Ends the connection, and the thread."""
        if self._loop.is_closed:
            return
        try:
            self._run(self._of.close())
        finally:
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _blocking(call: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]) -> Callable[Concatenate[Any, P], T]:
    """A method that waits for the same method of the asyncio object."""

    @functools.wraps(call)
    def waiting(self: _Owner, /, *args: P.args, **options: P.kwargs) -> T:
        return self._run(call(self._of, *args, **options))

    return waiting


def _once(call: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """A function that waits for an asyncio function."""

    @functools.wraps(call)
    def waiting(*args: P.args, **options: P.kwargs) -> T:
        with Loop() as loop:
            return loop.run(call(*args, **options))

    return waiting


class Reading(Iterator[T], Generic[T]):
    """An iterator over a stream. After a `TimeoutError`, it can be used further."""

    def __init__(
        self, client: Client, read: Callable[[], Awaitable[T]], timeout_s: float | None, ready: Callable[[], T | None]
    ) -> None:
        self._client = client
        self._read = read
        self._ready = ready
        self._timeout_s = timeout_s

    def __next__(self) -> T:
        with self._client._reading:
            if (item := self._ready()) is not None:
                return item
            try:
                return self._client._run(self._wait())
            except EOFError:
                raise StopIteration from None

    async def _wait(self) -> T:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._read()
        except StopAsyncIteration:
            # It cannot be raised into a future.
            raise EOFError from None


class _Reading:
    """One thread reads at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise ConcurrentReadError("another thread")

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class Subscription:
    """A subscription, see `tickcast.Subscription`."""

    def __init__(self, owner: Client, of: asynchronous.Subscription) -> None:
        self._owner = owner
        self._of = of

    symbols = property(lambda self: self._of.symbols, doc=asynchronous.Subscription.symbols.__doc__)
    channels = property(lambda self: self._of.channels, doc=asynchronous.Subscription.channels.__doc__)
    conflate_ms = property(lambda self: self._of.conflate_ms, doc=asynchronous.Subscription.conflate_ms.__doc__)
    count = property(lambda self: self._of.count, doc=asynchronous.Subscription.count.__doc__)
    unknown = property(lambda self: self._of.unknown, doc=asynchronous.Subscription.unknown.__doc__)
    denied = property(lambda self: self._of.denied, doc=asynchronous.Subscription.denied.__doc__)
    limited = property(lambda self: self._of.limited, doc=asynchronous.Subscription.limited.__doc__)
    delayed = property(lambda self: self._of.delayed, doc=asynchronous.Subscription.delayed.__doc__)
    set_conflate_ms = _blocking(asynchronous.Subscription.set_conflate_ms)
    close = _blocking(asynchronous.Subscription.close)

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        return self._owner._run(call)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Client(_Owner):
    """A connection to a server that reconnects by itself, see `tickcast.Client`. `tickcast.sync.connect` makes one."""

    def __init__(self, loop: Loop, of: asynchronous.Client) -> None:
        self._loop = loop
        self._of: asynchronous.Client = of
        self._reading = _Reading()

    def subscribe(
        self,
        symbols: Iterable[str],
        *,
        channels: Iterable[Channel] = DEFAULT_CHANNELS,
        conflate_ms: int | None = None,
        snapshot: bool = True,
    ) -> Subscription:
        """Subscribes to channels of symbols, see `tickcast.Client.subscribe`."""
        call = self._of.subscribe(symbols, channels=channels, conflate_ms=conflate_ms, snapshot=snapshot)
        return Subscription(self, self._run(call))

    def __iter__(self) -> Reading[AnyRecord]:
        return self.records()

    def records(self, timeout_s: float | None = None) -> Reading[AnyRecord]:
        """Records of channels, gaps and states: the same as `for record in client`. A read that gets nothing for
        `timeout_s` raises `TimeoutError`."""
        return Reading(self, self._of.records().__anext__, timeout_s, self._ready_record)

    def events(self, timeout_s: float | None = None) -> Reading[Event]:
        """All records, with definitions and heartbeats, and changes of the connection and of the token."""
        return Reading(self, self._of.events().__anext__, timeout_s, self._of.ready)

    def packets(self, timeout_s: float | None = None) -> Reading[Packet]:
        """The packets, with the new records of each: of a packet that was read in part, the rest."""
        return Reading(self, self._of.packets().__anext__, timeout_s, lambda: None)

    def arrays(self, timeout_s: float | None = None) -> Reading[Arrays]:
        """The packets as numpy arrays by channel, see `tickcast.Client.arrays`."""
        return Reading(self, self._of.arrays().__anext__, timeout_s, lambda: None)

    @overload
    def batches(self, channels: TableChannel, *, seconds: float = ...) -> Reading[Rows]: ...

    @overload
    def batches(self, channels: TableChannels, *, seconds: float = ...) -> Reading[Tables]: ...

    def batches(
        self, channels: TableChannel | TableChannels, *, seconds: float = 1.0
    ) -> Reading[Rows] | Reading[Tables]:
        """What comes, `seconds` at a time, in the form of `collect`, see `tickcast.Client.batches`."""
        batches: Any = self._of.batches(channels, seconds=seconds)
        reading: Reading[Any] = Reading(self, batches.__anext__, None, lambda: None)
        return reading

    @overload
    def collect(self, channels: TableChannel, *, count: int | None = ..., seconds: float | None = ...) -> Rows: ...

    @overload
    def collect(self, channels: TableChannels, *, count: int | None = ..., seconds: float | None = ...) -> Tables: ...

    def collect(
        self, channels: TableChannel | TableChannels, *, count: int | None = None, seconds: float | None = None
    ) -> Rows | Tables:
        """Reads until there are `count` records or `seconds` have passed, see `tickcast.Client.collect`."""
        with self._reading:
            call: Any = self._of.collect(channels, count=count, seconds=seconds)
            rows: Rows | Tables = self._run(call)
            return rows

    def _ready_record(self) -> AnyRecord | None:
        while (record := self._of.ready()) is not None:
            if not isinstance(record, (Definition, Heartbeat)):
                return record
        return None

    ping = _blocking(asynchronous.Client.ping)
    snapshot = _blocking(asynchronous.Client.snapshot)
    bars = _blocking(asynchronous.Client.bars)
    trades = _blocking(asynchronous.Client.trades)

    # ---- properties

    @property
    def connected(self) -> bool:
        """Whether there is a connection at present."""
        return self._of.connected

    @property
    def token(self) -> Token | None:
        """Epoch and position of the last packet that was received."""
        return self._of.token

    @property
    def instruments(self) -> Mapping[str, Instrument]:
        """The instruments of the records read so far, by symbol."""
        return self._of.instruments

    @property
    def stats(self) -> dict[str, int]:
        """Counters: records read, of these conflated, repeated ones left out, gaps, missing records, and others."""
        return self._of.stats

    @property
    def scales(self) -> Scales:
        """Turns mantissas of arrays into floats, and ids into symbols, for the epoch read last."""
        return self._of.scales

    @property
    def user(self) -> str:
        """Who the client is to the server; empty for a server that does not know."""
        return self._of.user

    @property
    def expires_at(self) -> float | None:
        """When its token expires, Unix seconds; `None` if it does not."""
        return self._of.expires_at

    @property
    def version(self) -> str:
        """The server's version."""
        return self._of.version

    @property
    def delay_s(self) -> int:
        """The age of the data, seconds, where the server serves it later; 0: live."""
        return self._of.delay_s

    @property
    def reconnects(self) -> int:
        """How often the connection was lost and reopened."""
        return self._of.reconnects

    def state(self, symbol: str | None = None) -> State:
        """The state of an instrument; without a symbol, that of the connection."""
        return self._of.state(symbol)


class Publisher(_Owner):
    """A connection that publishes, see `tickcast.Publisher`. `tickcast.sync.publish` makes one."""

    def __init__(self, loop: Loop, of: publishing.Publisher) -> None:
        self._loop = loop
        self._of: publishing.Publisher = of

    define = _blocking(publishing.Publisher.define)
    quote = _blocking(publishing.Publisher.quote)
    trade = _blocking(publishing.Publisher.trade)
    ticker = _blocking(publishing.Publisher.ticker)
    book = _blocking(publishing.Publisher.book)
    raw = _blocking(publishing.Publisher.raw)
    publish_frame = _blocking(publishing.Publisher.publish_frame)
    heartbeat = _blocking(publishing.Publisher.heartbeat)
    flush = _blocking(publishing.Publisher.flush)


O = TypeVar("O")  # noqa: E741 the object of an owner
W = TypeVar("W", bound=_Owner)


def _opening(opener: Callable[P, Awaitable[O]], owner: Callable[[Loop, O], W]) -> Callable[P, W]:
    """A function that opens a connection, and returns it with its loop."""

    @functools.wraps(opener, updated=())
    def opened(*args: P.args, **options: P.kwargs) -> W:
        opening = opener(*args, **options)

        async def connected() -> O:
            return await opening

        loop = Loop()
        try:
            return owner(loop, loop.run(connected()))
        except BaseException:
            loop.close()
            raise

    return opened


connect = _opening(asynchronous.connect, Client)
publish = _opening(publishing.publish, Publisher)
bars = _once(http.bars)
instruments = _once(http.instruments)
snapshot = _once(http.snapshot)
trades = _once(http.trades)
