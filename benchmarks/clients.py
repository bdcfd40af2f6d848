"""Many clients of one live backend, in a process of their own: ``python -m benchmarks.clients URL N SECONDS BODY``.

Each client sends the same request again as soon as it has its answer, over a connection that stays open, as cheaply as
Python can, so that the server is measured and not the clients. Prints JSON.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["ask", "main"]


def main() -> None:
    """Send requests for so many seconds, and print what they took."""
    url, clients, seconds, body = sys.argv[1:]
    took = asyncio.run(_all(url, int(clients), float(seconds), Path(body).read_bytes()))
    cuts = statistics.quantiles(took, n=100) if len(took) > 1 else took * 99
    print(json.dumps({"requests": len(took), "p50": cuts[49], "p99": cuts[98]}))


async def _all(url: str, clients: int, seconds: float, body: bytes) -> list[float]:
    end = time.perf_counter() + seconds
    found = await asyncio.gather(*(_one(url, body, end) for _ in range(clients)))
    return [latency for latencies in found for latency in latencies]


async def _one(url: str, body: bytes, end: float) -> list[float]:
    host, port = urlsplit(url).hostname, urlsplit(url).port
    reader, writer = await asyncio.open_connection(host, port)
    head = (
        f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    )
    message, took = head.encode() + b"\r\n" + body, []
    while time.perf_counter() < end:
        started = time.perf_counter()
        writer.write(message)
        await _answer(reader)
        took.append(time.perf_counter() - started)
    writer.close()
    return took


async def _answer(reader: asyncio.StreamReader) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b" 200 " not in head.split(b"\r\n", 1)[0]:
        raise SystemExit(f"the backend answered {head.decode(errors='replace').splitlines()[0]}")
    await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))


def ask(texts: list[str]) -> bytes:
    """The body of a request for predictions of these texts, as Label Studio sends it."""
    tasks = [{"id": number, "data": {"text": text}} for number, text in enumerate(texts, 1)]
    params = {"login": None, "password": None, "context": None}
    return json.dumps({"tasks": tasks, "project": None, "label_config": None, "params": params}).encode()


if __name__ == "__main__":
    main()
