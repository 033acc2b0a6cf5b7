"""Python's websockets: client.py URL off|on. Prints its results as one line of JSON, or fails."""

import json
import os
import struct
import sys

sys.path.insert(0, os.path.abspath("target/interop/python"))

from websockets.sync.client import connect  # noqa: E402

URL, DEFLATE = sys.argv[1], "deflate" if sys.argv[2] == "on" else None
RECORDS = 300


def extensions(socket):
    return socket.response.headers.get("Sec-WebSocket-Extensions", "")


def stream():
    last, records = {}, 0
    with connect(f"{URL}/v1/stream", compression=DEFLATE, subprotocols=["tickcast.v1"]) as socket:
        symbols = ["*"] + ["NO-SUCH"] * 200
        socket.send(json.dumps({"op": "subscribe", "id": 1, "channels": ["trade"], "symbols": symbols}))
        while records < RECORDS:
            message = socket.recv(timeout=30)
            if isinstance(message, str):
                assert json.loads(message)["type"] != "error", message
                continue
            at = 24
            while at < len(message):
                length, kind, _, instrument, sequence = struct.unpack_from("<HBBIQ", message, at)
                if kind == 2:
                    before = last.get(instrument, sequence - 1)
                    assert sequence == before + 1, f"{sequence} after {before}"
                    last[instrument] = sequence
                    records += 1
                at += length * 8
        assert socket.ping().wait(30)
        socket.close()
        return {"extensions": extensions(socket), "records": records, "code": socket.close_code}


def echo():
    messages = ["", "grüße €", " ".join(map(str, range(12000))), b"", bytes([0, 255, 128])]
    messages.append(bytes((at * at >> 7) & 255 for at in range(200000)))
    with connect(f"{URL}/v1/echo", compression=DEFLATE) as socket:
        for message in messages:
            socket.send(message)
        socket.send(iter(["in ", "three ", "parts"]))
        for message in messages + ["in three parts"]:
            assert socket.recv(timeout=30) == message
        socket.close(1000, "bye")
        return {"echo": extensions(socket), "echoes": len(messages), "echo_code": socket.close_code}


print(json.dumps({**stream(), **echo()}))
