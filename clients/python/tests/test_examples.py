"""The examples, as a stranger runs them: with the package installed, and not from the sources."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import DEADLINE_S, ROOT, Start, binary

import tickcast

PACKAGE = ROOT / "clients/python"
MARKET = ("--feed", "sim:instruments=5,rate=500,seed=1")
LIBRARIES = ("numpy", "pandas", "polars", "pyarrow", "hatchling")


async def run(environment: dict[str, str], folder: Path, *args: str | Path) -> str:
    """Runs a command of Python in a folder; returns what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-B", *args, cwd=folder, env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(6 * DEADLINE_S):
            printed, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode == 0, printed.decode()
    return printed.decode()


@pytest.fixture
async def installed(tmp_path: Path) -> dict[str, str]:
    """The environment of a program with the package in a folder of its own, installed by pip without a network."""
    for library in LIBRARIES:
        pytest.importorskip(library, reason=f"{library} is not installed: run tests/clients/install")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TICKCAST_")}
    environment |= {"HOME": str(tmp_path), "PYTHONWARNINGS": "error"}
    target = tmp_path / "site"
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", "--no-build-isolation"]
    pip = environment | {"PYTHONWARNINGS": "default"}
    await run(pip, tmp_path, "-m", "pip", "install", *options, "--target", target, PACKAGE)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(target), environment.get("PYTHONPATH"))))
    where = await run(environment, tmp_path, "-c", "import tickcast; print(tickcast.__file__)")
    assert Path(where.strip()).is_relative_to(target), where
    return environment


async def test_the_first_hour_is_as_the_example_says(start: Start, installed: dict[str, str], tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a-token-of-this-test\n")
    server = await start(*MARKET, "--publish-token-file", str(token))
    printed = await run(
        installed, tmp_path, PACKAGE / "examples/first_hour.py", server.url, "--publish-token-file", token
    )
    print(printed)
    for part in ("first price after", "rows of book", "bars of a second", "published and read back", "done"):
        assert part in printed


async def test_the_first_hour_of_a_feed_owner(start: Start, installed: dict[str, str], tmp_path: Path) -> None:
    token, ticks, bars = tmp_path / "token", tmp_path / "ticks.csv", tmp_path / "bars"
    token.write_text("a-token-of-this-test\n")
    rows = [f"2026-01-05T14:30:00.{nth:03}Z,{price},0.5,buy" for nth, price in enumerate(("10.25", "10.75", "10.5"))]
    ticks.write_text("\n".join(["ts_event,price,size,side", *rows]) + "\n")
    past = tmp_path / "past.csv"
    past.write_text("time,open,high,low,close,volume\n2025-12-01,9,11,8.5,10,1000\n")
    load = ["archive", "load", "--archive-dir", str(bars), "--symbol", "MINE-USD", "--interval-s", "86400", str(past)]
    program = binary()
    if program is None:
        pytest.skip("no server binary: run `cargo build --release`, or set TICKCAST_BIN")
    loading = await asyncio.create_subprocess_exec(program, *load, stdout=asyncio.subprocess.PIPE)
    printed, _ = await loading.communicate()
    assert "MINE-USD: 1 bars of 86400 s from 2025-12-01" in printed.decode(), printed.decode()
    server = await start("--feed", "none", "--publish-token-file", str(token), "--archive-dir", str(bars))

    script = PACKAGE / "examples/publish_csv.py"
    options = ["--symbol", "MINE-USD", "--url", server.url, "--publish-token-file", str(token)]
    publisher = await asyncio.create_subprocess_exec(
        sys.executable, "-B", script, ticks, *options, env=installed, cwd=tmp_path, stdout=asyncio.subprocess.PIPE
    )
    assert publisher.stdout is not None
    try:
        async with asyncio.timeout(2 * DEADLINE_S):
            lines = [(await publisher.stdout.readline()).decode() for _ in range(2)]
            print("".join(lines))
            assert "first price after" in lines[0] and "MINE-USD 10.25" in lines[0]
            assert "published 3 trades; MINE-USD is live" in lines[1]
            # Beside the trades: the day before them, and a ticker that the server has computed.
            days = await tickcast.bars("MINE-USD", server.url, interval_s=86_400)
            assert (days["open"], days["close"], days["trades"]) == (["9.00", "10.25"], ["10.00", "10.50"], [1, 3])
            async with tickcast.connect(server.url) as client:
                await client.subscribe(["MINE-USD"], channels=["ticker"])
                values = await anext(record.as_dict(str) async for record in client if record.TYPE == "ticker")
            assert (values["high_px"], values["low_px"], values["volume"]) == ("10.75", "10.25", "1.5")
            publisher.send_signal(signal.SIGINT)
            assert "done" in (await publisher.stdout.read()).decode()
            assert await publisher.wait() == 0
    finally:
        if publisher.returncode is None:
            publisher.kill()
            await publisher.wait()

    ticks.write_text("ts_event,price,size\n2026-01-05T14:30:00Z,x,1\n")
    with pytest.raises(AssertionError, match="line 2: "):
        await run(installed, tmp_path, script, ticks, *options)


async def test_the_notebook_runs(start: Start, installed: dict[str, str], tmp_path: Path) -> None:
    for library in ("nbclient", "ipykernel"):
        pytest.importorskip(library, reason=f"{library} is not installed: run tests/clients/install")
    server = await start(*MARKET)
    notebook = tmp_path / "market.ipynb"
    shutil.copy(PACKAGE / "examples/market.ipynb", notebook)
    # The libraries of notebooks have warnings of their own.
    environment = installed | {"TICKCAST_URL": server.url, "PYTHONWARNINGS": "default", "JUPYTER_PLATFORM_DIRS": "1"}
    execute = "from nbclient.cli import main; main()"
    await run(environment, tmp_path, "-c", execute, "--inplace", f"--timeout={DEADLINE_S:.0f}", notebook)
    cells: list[dict[str, Any]] = [
        one for one in json.loads(notebook.read_text())["cells"] if one["cell_type"] == "code"
    ]
    assert [one["execution_count"] for one in cells] == list(range(1, len(cells) + 1))
    assert "bid_px" in json.dumps(cells[1]["outputs"]) and "datetime64[ns, UTC]" in json.dumps(cells[2]["outputs"])


@pytest.mark.parametrize("document", ["clients/python/README.md", "docs/clients.md"])
async def test_the_first_frame_of_the_documents_is_made(
    start: Start, installed: dict[str, str], tmp_path: Path, document: str
) -> None:
    server = await start(*MARKET)
    text = (ROOT / document).read_text()
    code = next(part for part in text.split("```python\n")[1:] if "tickcast.sync.connect" in part).partition("```")[0]
    assert "ws://127.0.0.1:9001" in code and "seconds=5" in code
    code = code.replace("ws://127.0.0.1:9001", server.url).replace("seconds=5", "seconds=1")
    printed = await run(installed, tmp_path, "-c", code + "\nprint(len(quotes), 'quotes')")
    assert int(printed.split()[-2]) > 0


def test_notebooks_are_kept_without_results() -> None:
    for path in (PACKAGE / "examples").glob("*.ipynb"):
        for cell in json.loads(path.read_text())["cells"]:
            assert not cell.get("outputs") and cell.get("execution_count") is None, path
