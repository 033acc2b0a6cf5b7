"""Against a fake server with scripted behaviour: losses, delays, refusals, missing answers."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

import pytest
from conftest import DEADLINE_S, definition, packet, quote, trade, until
from fake import CAUGHT_UP, Fake, Peer, Script, quick, summaries, take
from websockets.http11 import Response

import tickcast
from tickcast import Backoff, ClosedError, RefusedError, RejectedError, State, Trade, wire


async def test_a_lost_connection_resumes_with_its_token_without_repetition() -> None:
    async def first(peer: Peer) -> None:
        await peer.answer()
        await peer.socket.send(packet(definition(), quote(1), trade(1), position=10, flags=CAUGHT_UP))
        await peer.socket.send(packet(trade(2), position=11))
        await peer.answer()
        peer.reset()

    async def second(peer: Peer) -> None:
        request = await peer.answer(how="replay")
        assert [request[name] for name in ("op", "epoch", "position", "symbols")] == ["resume", 7, 11, ["BTC-USD"]]
        await peer.socket.send(packet(trade(2), trade(3), position=12, flags=wire.REPLAY | wire.CAUGHT_UP))
        await peer.socket.send(packet(trade(4), position=13))
        await peer.serve()

    async with Fake(first, second) as server, tickcast.connect(server.url, backoff=quick()) as client:
        await client.subscribe(["BTC-USD"])
        source = summaries(client)
        assert await take(source, 3) == [("live", 0), ("quote", 1), ("trade", 1)]
        assert client.state("BTC-USD") is State.LIVE
        await client.ping()
        seen = await take(source, 6)
        assert seen == [("trade", 2), ("lost", 0), ("resyncing", 0), ("trade", 3), ("live", 0), ("trade", 4)]
        assert client.stats["repeated"] == 1
        assert client.stats["reconnects"] == 1


async def test_the_age_of_the_data_is_that_of_the_last_welcome() -> None:
    renewed = asyncio.Event()

    async def delayed(peer: Peer) -> None:
        await renewed.wait()
        peer.reset()

    fake = Fake(delayed, Peer.serve, welcomes=[{"delay_s": 900}, {}])
    async with fake as server, tickcast.connect(server.url, backoff=quick()) as client:
        assert client.delay_s == 900
        renewed.set()
        await until(lambda: client.reconnects == 1 and client.delay_s == 0)


async def test_a_snapshot_after_a_resume_reports_the_gap() -> None:
    async def first(peer: Peer) -> None:
        await peer.answer()
        await peer.socket.send(packet(definition(), trade(1), position=10, flags=CAUGHT_UP))
        await peer.answer()
        peer.reset()

    async def second(peer: Peer) -> None:
        await peer.answer(how="snapshot")
        await peer.socket.send(packet(definition(), trade(9, flags=0xA0), position=90, flags=CAUGHT_UP))
        await peer.serve()

    async with Fake(first, second) as server, tickcast.connect(server.url, backoff=quick()) as client:
        await client.subscribe(["BTC-USD"])
        await client.ping()
        seen = [one for one in await take(summaries(client), 7) if one[0] in ("trade", "gap")]
        assert seen == [("trade", 1), ("gap", 2), ("trade", 9)]


async def test_books_of_another_depth_begin_anew() -> None:
    ops: list[str] = []

    def script(lasts: bool, **more: Any) -> Script:
        async def answer(peer: Peer) -> None:
            ops.append((await peer.answer(**more))["op"])
            await peer.socket.send(packet(definition(), position=10, flags=CAUGHT_UP))
            if lasts:
                await peer.serve()
            else:
                await peer.answer()
                peer.reset()

        return answer

    again = script(False, how="replay", book_depth=5)
    fake = Fake(script(False, book_depth=5), again, script(True, how="replay"), script(True))
    async with fake as server, tickcast.connect(server.url, backoff=quick()) as client:
        await client.subscribe(["BTC-USD"], channels=["book"])
        await client.ping()
        await until(lambda: len(ops) == 2)
        await client.ping()
        await until(lambda: len(ops) == 4)
    assert ops == ["subscribe", "resume", "resume", "subscribe"]


async def test_an_interrupted_snapshot_is_requested_again() -> None:
    async def first(peer: Peer) -> None:
        await peer.answer()
        await peer.socket.send(packet(definition(), quote(1), position=10, flags=wire.SNAPSHOT))
        peer.reset()

    async def second(peer: Peer) -> None:
        assert (await peer.answer())["op"] == "subscribe"
        await peer.socket.send(packet(definition(), quote(1, flags=0xA0), position=11, flags=CAUGHT_UP))
        await peer.serve()

    async with Fake(first, second) as server, tickcast.connect(server.url, backoff=quick()) as client:
        await client.subscribe(["BTC-USD"])
        expected = [("live", 0), ("quote", 1), ("lost", 0), ("resyncing", 0), ("quote", 1), ("live", 0)]
        assert await take(summaries(client), 6) == expected


async def test_resubscribing_keeps_the_limit_of_symbols() -> None:
    async def first(peer: Peer) -> None:
        for _ in range(4):
            await peer.answer()
        await peer.socket.send(packet(position=10, flags=CAUGHT_UP))
        await peer.answer()
        peer.reset()

    async def second(peer: Peer) -> None:
        await peer.answer(how="replay")
        await peer.answer(how="replay")
        await peer.socket.send(packet(position=10, flags=wire.REPLAY | wire.CAUGHT_UP))
        await peer.serve()

    async with Fake(first, second) as server, tickcast.connect(server.url, backoff=quick()) as client:
        for symbol in "ABCD":
            await client.subscribe([symbol])
        await client.ping()
        await until(lambda: client.state() is State.LIVE and client.stats["reconnects"] == 1)
        requests = server.peers[1].requests
        assert [(one["op"], one["symbols"]) for one in requests] == [("resume", ["A", "B", "C"]), ("resume", ["D"])]


async def test_the_servers_reconnect_delay_is_used() -> None:
    class Recording(Backoff):
        delays: list[float] = []  # noqa: RUF012

        def next_s(self, asked_s: float = 0.0) -> float:
            self.delays.append(asked_s)
            return 0.0

    async def first(peer: Peer) -> None:
        await peer.send(type="closing", reason="going_away", reconnect_ms=1500)
        await peer.socket.close(1001)

    async with Fake(first, Peer.serve) as server, tickcast.connect(server.url, backoff=Recording()) as client:
        await until(lambda: client.stats["reconnects"] == 1 and client.connected)
        assert Recording.delays == [1.5]


@pytest.mark.parametrize("code", [4001, 4003, 4005])
async def test_close_codes_of_credentials_and_sessions_are_final(code: int) -> None:
    async def first(peer: Peer) -> None:
        await peer.answer()
        await peer.socket.close(code, "expired")

    async with Fake(first) as server, tickcast.connect(server.url, backoff=quick()) as client:
        await client.subscribe(["*"])
        with pytest.raises(ClosedError, match=f"{code}: expired"):
            async for _ in client:
                pass
        with pytest.raises(ClosedError):
            await client.subscribe(["A"])
        assert server.attempts == 1


async def test_other_close_codes_lead_to_a_reconnect() -> None:
    async def first(peer: Peer) -> None:
        await peer.socket.close(4002, "slow")

    async with Fake(first, first, Peer.serve) as server, tickcast.connect(server.url, backoff=quick()) as client:
        await until(lambda: client.stats["reconnects"] == 2 and client.connected)


def refused(status: HTTPStatus, **headers: str) -> Response:
    from websockets.datastructures import Headers

    body = json.dumps({"error": {"code": "no", "message": "not you"}}).encode()
    return Response(status, status.phrase, Headers({**headers, "Content-Length": str(len(body))}), body)


async def test_refused_credentials_are_final() -> None:
    async with Fake(Peer.serve, refuse=lambda _: refused(HTTPStatus.UNAUTHORIZED)) as server:
        with pytest.raises(RefusedError, match="401 no: not you"):
            await tickcast.connect(server.url, wait=True, backoff=quick())
        assert server.attempts == 1


async def test_a_busy_server_is_retried() -> None:
    def busy(attempts: int) -> Response | None:
        return refused(HTTPStatus.SERVICE_UNAVAILABLE, **{"Retry-After": "0"}) if attempts < 3 else None

    async with Fake(Peer.serve, refuse=busy) as server:
        with pytest.raises(RefusedError, match="503"):
            await tickcast.connect(server.url)
        async with tickcast.connect(server.url, wait=True, backoff=quick()) as client:
            assert (client.version, server.attempts) == ("9", 3)


async def test_a_rejected_request_is_raised_and_not_repeated() -> None:
    async def first(peer: Peer) -> None:
        request = await peer.request()
        await peer.send(type="error", id=request["id"], code="limit", message="symbols: too many")
        await peer.answer()
        peer.reset()

    async with Fake(first, Peer.serve) as server, tickcast.connect(server.url, backoff=quick()) as client:
        with pytest.raises(RejectedError, match="limit: symbols: too many"):
            await client.subscribe(["A"])
        await client.ping()
        await until(lambda: len(server.peers) == 2 and client.connected)
        assert server.peers[1].requests == []


async def test_a_subscription_without_an_answer_survives_a_loss() -> None:
    async def first(peer: Peer) -> None:
        await peer.request()
        peer.reset()

    async def second(peer: Peer) -> None:
        await peer.answer()
        await peer.socket.send(packet(definition(), quote(1), position=3, flags=CAUGHT_UP))
        await peer.serve()

    async with Fake(first, second) as server, tickcast.connect(server.url, backoff=quick()) as client:
        assert (await client.subscribe(["A"])).count == 1
        assert len(server.peers[1].requests) == 1


async def test_closing_keeps_the_names_of_other_subscriptions() -> None:
    async with Fake(Peer.serve) as server, tickcast.connect(server.url) as client:
        everything = await client.subscribe(["*"], channels=["trade"])
        await client.subscribe(["A"], channels=["trade"])
        both = await client.subscribe(["A", "B"], channels=["trade"])
        await both.close()
        await everything.close()
        await client.ping()
        sent = [(one["op"], one.get("symbols")) for one in server.peers[0].requests]
        assert sent[3:6] == [("unsubscribe", ["B"]), ("unsubscribe", ["*"]), ("subscribe", ["A"])]


async def test_the_interval_changes_without_a_snapshot() -> None:
    async with Fake(Peer.serve) as server, tickcast.connect(server.url, conflate_ms=100) as client:
        subscription = await client.subscribe(["A"])
        assert subscription.conflate_ms == 100
        await subscription.set_conflate_ms(500)
        requests = server.peers[0].requests
        assert [(one["conflate_ms"], one["snapshot"]) for one in requests] == [(100, True), (500, False)]
        assert subscription.conflate_ms == 500


async def test_a_full_inbox_stops_reading_and_answers_still_come() -> None:
    async def flood(peer: Peer) -> None:
        await peer.answer()
        await peer.socket.send(packet(definition(), position=1, flags=CAUGHT_UP))
        for sequence in range(1, 2001):
            await peer.socket.send(packet(trade(sequence), position=1 + sequence))
        await peer.answer()
        await peer.serve()

    async with Fake(flood) as server, tickcast.connect(server.url, inbox_packets=8) as client:
        await client.subscribe(["A"])
        await until(lambda: client.packets_read >= 8)
        assert client.packets_read < 2000, "a full inbox stops reading the socket"
        assert (await client.ping()).rtt_s > 0, "an answer behind unread packets"
        sequences = []
        async for record in client:
            assert isinstance(record, Trade)
            sequences.append(record.sequence)
            if len(sequences) == 2000:
                break
        assert sequences == list(range(1, 2001))


async def test_silence_leads_to_a_reconnect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tickcast.session.SILENCE_S", -1.9)
    async with Fake(Peer.serve) as server, tickcast.connect(server.url, backoff=quick()) as client:
        await until(lambda: client.stats["reconnects"] >= 1)


async def test_an_invalid_packet_raises() -> None:
    async def first(peer: Peer) -> None:
        await peer.answer()
        await peer.socket.send(packet(quote(1), position=1))
        await peer.serve()

    async with Fake(first) as server, tickcast.connect(server.url) as client:
        await client.subscribe(["A"])
        with pytest.raises(tickcast.ProtocolError, match="before its definition"):
            async for _ in client:
                pass


async def test_close_ends_iterations_and_later_calls_raise() -> None:
    async with Fake(Peer.serve) as server:
        client = await tickcast.connect(server.url)
        reading = asyncio.create_task(anext(aiter(client), None))
        await client.close()
        assert await reading is None
        with pytest.raises(ClosedError, match="has been closed"):
            await client.subscribe(["A"])


async def test_an_unreachable_server_raises() -> None:
    with pytest.raises(tickcast.UnreachableError, match="is the server running"):
        await tickcast.connect("ws://127.0.0.1:1")
    with pytest.raises(tickcast.UnreachableError, match="is the server running"):
        await tickcast.snapshot("A", "ws://127.0.0.1:1")


async def test_closing_a_pattern_resumes_covered_names_only() -> None:
    async def first(peer: Peer) -> None:
        for _ in range(3):
            await peer.answer()
        start = packet(definition(), definition(2, "ETH-USD"), trade(1), trade(1, instrument=2), flags=CAUGHT_UP)
        await peer.socket.send(start)
        assert (await peer.answer())["op"] == "unsubscribe"
        assert (await peer.answer())["symbols"] == ["BTC-USD"]
        again = packet(trade(1), trade(2), position=3, flags=wire.REPLAY | wire.CAUGHT_UP)
        await peer.socket.send(again)
        await peer.answer()
        peer.reset()

    async with Fake(first, Peer.serve) as server, tickcast.connect(server.url, backoff=quick()) as client:
        await client.subscribe(["BTC-USD"], channels=["trade"])
        await client.subscribe(["ETH-USD"], channels=["trade"])
        pattern = await client.subscribe(["BTC-*"], channels=["trade"])
        await until(lambda: client.state() is State.LIVE)
        await pattern.close()
        await client.ping()
        await until(lambda: len(server.peers) == 2 and len(server.peers[1].requests) > 0)
        sent = [(one["op"], one.get("position"), one.get("symbols")) for one in server.peers[0].requests[3:5]]
        assert sent == [("unsubscribe", None, ["BTC-*"]), ("resume", 1, ["BTC-USD"])]
        after = server.peers[1].requests
        assert [(one["op"], one["position"]) for one in after] == [("resume", 3)], "both resume from the last packet"
        assert set(after[0]["symbols"]) == {"BTC-USD", "ETH-USD"}
        seen = [one for one in await take(summaries(client), 6) if one[0] == "trade"]
        assert seen == [("trade", 1), ("trade", 1), ("trade", 2)], "repeated records are left out"


async def test_collect_over_a_restart_raises_with_the_rows_before() -> None:
    pytest.importorskip("numpy")

    async def first(peer: Peer) -> None:
        await peer.answer()
        await peer.socket.send(packet(definition(), quote(1), flags=CAUGHT_UP))
        await peer.socket.send(packet(definition(1, "ETH-USD"), quote(1), epoch=8))
        await peer.socket.send(packet(quote(2), epoch=8, position=2))
        await peer.serve()

    async with Fake(first) as server, tickcast.connect(server.url) as client:
        await client.subscribe(["*"], channels=["quote"])
        with pytest.raises(tickcast.RestartedError, match="1 rows") as raised:
            await client.collect("quote", count=3)
        before = raised.value.rows
        assert before.scales.symbols(before).tolist() == ["BTC-USD"]
        after = await client.collect("quote", count=2)
        assert client.scales.symbols(after).tolist() == ["ETH-USD", "ETH-USD"]
        with pytest.raises(ValueError, match="restart"):
            client.scales.columns(before)


async def test_a_rejection_while_resubscribing_ends_the_client() -> None:
    async def first(peer: Peer) -> None:
        await peer.answer()
        peer.reset()

    ended = asyncio.Event()

    async def second(peer: Peer) -> None:
        request = await peer.request()
        await peer.send(type="error", id=request["id"], code="limit", message="symbols: too many")
        await peer.socket.wait_closed()
        ended.set()

    async with Fake(first, second) as server, tickcast.connect(server.url, backoff=quick()) as client:
        await client.subscribe(["A"])
        async with asyncio.timeout(DEADLINE_S):
            await ended.wait()
            with pytest.raises(RejectedError, match="too many"):
                async for _ in client:
                    pass
        reading = client._reading
        await until(lambda: reading is not None and reading.done())
        assert not client.connected and client.state() is State.STALE


async def test_a_loss_with_a_full_inbox_is_detected_and_nothing_is_missing() -> None:
    async def first(peer: Peer) -> None:
        await peer.answer()
        await peer.socket.send(packet(definition(), position=1, flags=CAUGHT_UP))
        for sequence in range(1, 15):
            await peer.socket.send(packet(trade(sequence), position=1 + sequence))
        await peer.serve()

    async def second(peer: Peer) -> None:
        request = await peer.answer(how="replay")
        for sequence in range(request["position"], 20):
            await peer.socket.send(packet(trade(sequence), position=1 + sequence, flags=wire.REPLAY))
        await peer.serve()

    async with Fake(first, second) as server, tickcast.connect(server.url, inbox_packets=4, backoff=quick()) as client:
        await client.subscribe(["A"], channels=["trade"])
        await until(lambda: len(client._inbox) >= 4)
        assert client.connected and client.packets_read < 15
        server.peers[0].socket.transport.abort()
        await until(lambda: not client.connected)
        assert client.state() is State.STALE
        assert len(server.peers) == 1, "no reconnect while the inbox is full"
        seen = [one for one in await take(summaries(client), 22) if one[0] in ("trade", "gap")]
        assert seen == [("trade", sequence) for sequence in range(1, 20)]


async def test_collect_by_count_keeps_the_rest_of_its_last_packet() -> None:
    pytest.importorskip("numpy")

    async def first(peer: Peer) -> None:
        await peer.answer()
        await peer.socket.send(packet(definition(), *map(trade, range(1, 8)), flags=CAUGHT_UP))
        await peer.socket.send(packet(trade(8), position=2))
        await peer.serve()

    async with Fake(first) as server, tickcast.connect(server.url) as client:
        await client.subscribe(["*"], channels=["trade"])
        async with asyncio.timeout(DEADLINE_S):
            rows = [(await client.collect("trade", count=count))["sequence"].tolist() for count in (2, 3, 3)]
        assert rows == [[1, 2], [3, 4, 5], [6, 7, 8]]


async def test_collect_by_seconds_skips_earlier_records() -> None:
    pytest.importorskip("numpy")

    async def first(peer: Peer) -> None:
        await peer.answer()
        defined = (definition(), definition(2, "ETH-USD"), quote(1, instrument=2))
        await peer.socket.send(packet(*defined, *map(quote, range(1, 30)), *map(trade, range(1, 9)), flags=CAUGHT_UP))
        for number in range(30, 60):
            await peer.socket.send(packet(quote(number), trade(number), position=number))
        for number in (60, 61):
            await peer.answer()
            await peer.socket.send(packet(quote(number), trade(number), position=number))
        await peer.serve()

    async with Fake(first) as server, tickcast.connect(server.url, inbox_packets=4) as client:
        await client.subscribe(["*"])
        await until(lambda: len(client._inbox) >= 4)
        quotes = await client.collect("quote", seconds=0.3)
        rows = list(zip(quotes["instrument"].tolist(), quotes["sequence"].tolist(), strict=True))
        assert rows in ([(2, 1), (1, 59), (1, 60)], [(2, 1), (1, 60)]), (
            "of earlier quotes the newest of each instrument"
        )
        await client.ping()
        await until(lambda: client.packets_read == 33)
        trades = await client.collect("trade", seconds=0.05)
        assert not len(trades)


@pytest.mark.parametrize("flags", [0, wire.SNAPSHOT, CAUGHT_UP])
async def test_a_name_that_is_defined_later_begins_without_another_request(flags: int) -> None:
    async def first(peer: Peer) -> None:
        request = await peer.request()
        await peer.send(type="subscribed", id=request["id"], conflate_ms=0, count=0, unknown=["BTC-USD"])
        await peer.answer()
        await peer.socket.send(packet(definition(), quote(1), trade(1), position=5, flags=flags))
        await peer.socket.send(packet(trade(2), position=6))
        await peer.answer()
        peer.reset()

    async def second(peer: Peer) -> None:
        await peer.answer(how="replay")
        await peer.socket.send(packet(definition(), trade(3), position=7, flags=wire.REPLAY | wire.CAUGHT_UP))
        await peer.serve()

    async with Fake(first, second) as server, tickcast.connect(server.url, backoff=quick()) as client:
        subscription = await client.subscribe(["BTC-USD"])
        assert subscription.unknown == ["BTC-USD"]
        assert client.state() is State.LIVE
        await client.ping()
        source = summaries(client)
        assert await take(source, 4) == [("live", 0), ("quote", 1), ("trade", 1), ("trade", 2)]
        assert client.state("BTC-USD") is State.LIVE
        await client.ping()
        assert await take(source, 4) == [("lost", 0), ("resyncing", 0), ("trade", 3), ("live", 0)]
        sent = [(one["op"], one.get("position")) for one in server.peers[0].requests + server.peers[1].requests]
        assert sent == [("subscribe", None), ("ping", None), ("ping", None), ("resume", 6)]
