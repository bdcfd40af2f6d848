"""What a connection may cost: clients that never finish, and heads without an end."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from lsbatch.serving import wire

SECONDS = 0.2
HEAD = b"POST / HTTP/1.1\r\nhost: a\r\n"
gone: list[str] = []


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers with how much it was sent."""
    request = Request(scope, receive)
    try:
        body = await request.body()
    except ClientDisconnect:
        gone.append(request.url.path)
        return
    if request.url.path == "/slow":
        await asyncio.sleep(SECONDS * 2)  # longer than a request may take
    await PlainTextResponse(str(len(body)))(scope, receive, send)


@contextmanager
def quick() -> Iterator[None]:
    """Connections whose time is short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "REQUEST_SECONDS", SECONDS)
        yield


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def use(do: Callable[[Callable[[], Awaitable[Streams]]], Awaitable[None]]) -> None:
    """Do something with a server's connections."""

    async def main() -> None:
        config = uvicorn.Config(echo, http=wire.PatientProtocol, lifespan="off", log_config=None, ws="none")
        config.load()
        loop = asyncio.get_running_loop()
        state = uvicorn.server.ServerState()

        def protocol() -> asyncio.Protocol:
            return wire.PatientProtocol(config=config, server_state=state, app_state={})

        server = await loop.create_server(protocol, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, asyncio.timeout(20):
            await do(lambda: asyncio.open_connection("127.0.0.1", port))

    asyncio.run(main())


WHOLE = HEAD + b"content-length: 3\r\n\r\nabc"


@pytest.mark.parametrize("sent", [b"", b"PO", b"\r\n", HEAD, HEAD + b"content-length: 10\r\n\r\n12345"])
def test_a_request_that_does_not_end_is_not_waited_for(sent: bytes) -> None:
    async def do(connect: Callable[[], Awaitable[Streams]]) -> None:
        reader, writer = await connect()
        writer.write(sent)
        loop = asyncio.get_running_loop()
        started = loop.time()
        answer = await reader.read()
        assert loop.time() - started >= SECONDS * 0.9
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert answer.count(b"HTTP/1.1") == 1
        writer.close()

    gone.clear()
    with quick():
        use(do)
    assert gone == (["/"] if b"12345" in sent else [])


def test_an_idle_connection_is_none_of_these() -> None:
    async def do(connect: Callable[[], Awaitable[Streams]]) -> None:
        reader, writer = await connect()
        for _ in range(3):
            writer.write(WHOLE)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            assert await reader.readexactly(1) == b"3"
            await asyncio.sleep(SECONDS * 1.5)  # longer than a request may take: nothing is to happen
        writer.close()

    with quick():
        use(do)


def test_empty_lines_keep_no_connection_open() -> None:
    async def do(connect: Callable[[], Awaitable[Streams]]) -> None:
        reader, writer = await connect()
        writer.write(WHOLE)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert await reader.readexactly(1) == b"3"
        loop = asyncio.get_running_loop()
        started = loop.time()
        ended = asyncio.ensure_future(reader.read())
        while not ended.done():
            writer.write(b"\r\n")
            await asyncio.wait({ended}, timeout=SECONDS / 4)
        assert (await ended).startswith(b"HTTP/1.1 408 ")
        assert loop.time() - started < SECONDS * 4
        writer.close()

    with quick():
        use(do)


@pytest.mark.parametrize("second", [b"PO", HEAD, HEAD + b"content-length: 10\r\n\r\n12345"])
def test_a_stalled_request_behind_another_is_answered_after_it(second: bytes) -> None:
    async def do(connect: Callable[[], Awaitable[Streams]]) -> None:
        reader, writer = await connect()
        writer.write(WHOLE.replace(b" / ", b" /slow ") + second)
        answer = await reader.read()
        assert re.findall(rb"HTTP/1.1 (\d+) ", answer) == [b"200", b"408"]
        writer.close()

    with quick():
        use(do)


def test_a_head_has_a_limit() -> None:
    async def do(connect: Callable[[], Awaitable[Streams]]) -> None:
        reader, writer = await connect()
        writer.write(HEAD)
        answer = asyncio.ensure_future(reader.read())
        sent = 0
        while not answer.done():
            writer.write(b"x-filler: " + b"y" * 988 + b"\r\n")
            sent += 1000
            # The server reads each before the next, so that it closes nothing that is still to be read.
            for _ in range(10):
                await asyncio.sleep(0)
        assert (await answer).startswith(b"HTTP/1.1 431 ")
        assert wire.HEAD_BYTES < sent < 20 * wire.HEAD_BYTES
        writer.close()

    use(do)


@pytest.mark.parametrize("trailer", [b"x-filler: " + b"y" * 988 + b"\r\n", b"y" * 1000])
def test_trailers_have_a_limit(trailer: bytes) -> None:
    async def do(connect: Callable[[], Awaitable[Streams]]) -> None:
        reader, writer = await connect()
        writer.write(HEAD + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: ")
        answer = asyncio.ensure_future(reader.read())
        sent = 0
        while not answer.done():
            writer.write(trailer)
            sent += len(trailer)
            for _ in range(10):
                await asyncio.sleep(0)
        assert (await answer).startswith(b"HTTP/1.1 431 ")
        assert sent < 20 * wire.HEAD_BYTES
        writer.close()

    use(do)


def test_a_body_in_small_chunks_is_whole() -> None:
    async def do(connect: Callable[[], Awaitable[Streams]]) -> None:
        reader, writer = await connect()
        writer.write(HEAD + b"transfer-encoding: chunked\r\n\r\n")
        for _ in range(20_000):
            writer.write(b"8\r\nabcdefgh\r\n")
            await writer.drain()
        writer.write(b"0\r\nx-end: y\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert await reader.readexactly(6) == b"160000"
        writer.close()

    use(do)


def test_a_body_is_none_of_the_next_head() -> None:
    async def do(connect: Callable[[], Awaitable[Streams]]) -> None:
        reader, writer = await connect()
        whole = HEAD + b"content-length: 200000\r\n\r\n" + b"b" * 200_000
        writer.write(whole + whole[:20])
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert await reader.readexactly(6) == b"200000"
        writer.write(whole[20:])
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()

    use(do)
