"""Live market data from a tickcast server, for notebooks and scripts.

import tickcast

async with tickcast.connect("ws://127.0.0.1:9001") as client:
    await client.subscribe(["BTC-USD"], channels=["quote", "trade"])
    async for record in client:
        print(record.symbol, record.as_dict(str))
"""

from . import sync
from .backoff import Backoff
from .book import OrderBook
from .client import Client, Ping, Subscription, connect
from .errors import (
    ClosedError,
    ConcurrentReadError,
    ProtocolError,
    QuoteWarning,
    RefusedError,
    RejectedError,
    RescaledError,
    RestartedError,
    TickcastError,
    TokenError,
    UnreachableError,
)
from .events import Authenticated, Connection, TokenFailure
from .http import bars, instruments, snapshot, trades
from .publish import Publisher, publish
from .reading import Packet
from .records import (
    CHANNELS,
    NO_INSTRUMENT,
    AnyRecord,
    Book,
    Channel,
    Definition,
    Gap,
    Heartbeat,
    Instrument,
    Level,
    Quote,
    Raw,
    Record,
    State,
    Status,
    Ticker,
    Trade,
)
from .tokens import TokenRequest
from .wire import PacketHeader

__version__ = "0.1.0"

__all__ = [
    "CHANNELS",
    "NO_INSTRUMENT",
    "AnyRecord",
    "Authenticated",
    "Backoff",
    "Book",
    "Channel",
    "Client",
    "ClosedError",
    "ConcurrentReadError",
    "Connection",
    "Definition",
    "Gap",
    "Heartbeat",
    "Instrument",
    "Level",
    "OrderBook",
    "Packet",
    "PacketHeader",
    "Ping",
    "ProtocolError",
    "Publisher",
    "Quote",
    "QuoteWarning",
    "Raw",
    "Record",
    "RefusedError",
    "RejectedError",
    "RescaledError",
    "RestartedError",
    "State",
    "Status",
    "Subscription",
    "TickcastError",
    "Ticker",
    "TokenError",
    "TokenFailure",
    "TokenRequest",
    "Trade",
    "UnreachableError",
    "bars",
    "connect",
    "instruments",
    "publish",
    "snapshot",
    "sync",
    "trades",
]
