"""HTTP requests of a client use the TLS context of its stream."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from shutil import which

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

import tickcast

WELCOME = '{"type":"welcome","epoch":7,"version":"9","heartbeat_ms":1000,"limits":{}}'


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    if which("openssl") is None:
        pytest.skip("openssl is not installed")
    chain, key = folder / "chain.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(chain), "-days", "2", "-subj", "/CN=tickcast"]
    subprocess.run([*command, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    return chain, key


async def test_snapshots_and_bars_use_the_clients_tls_context(tmp_path: Path) -> None:
    chain, key = certificate(tmp_path)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(chain, key)

    def plain(_: ServerConnection, request: Request) -> Response | None:
        if request.path == "/v1/stream":
            return None
        body = b'{"path":"%s"}' % request.path.encode()
        return Response(200, "OK", Headers({"Content-Length": str(len(body)), "Connection": "close"}), body)

    async def stream(socket: ServerConnection) -> None:
        await socket.send(WELCOME)
        await socket.wait_closed()

    async with serve(
        stream, "127.0.0.1", 0, ssl=serving, process_request=plain, subprotocols=[Subprotocol("tickcast.v1")]
    ) as server:
        url = f"wss://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        trusting = ssl.create_default_context(cafile=str(chain))
        async with tickcast.connect(url, tls=trusting) as client:
            assert await client.snapshot("A") == {"path": "/v1/snapshot/A"}
            assert (await client.bars("A"))["path"].startswith("/v1/bars/A?")
        with pytest.raises(tickcast.UnreachableError, match="certificate"):
            await tickcast.snapshot("A", url)
