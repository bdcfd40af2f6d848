"""What goes wrong between a client and Label Studio.

*Before*: the request never reaches Label Studio. *After*: it was carried out, and only its answer is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fault.proxy import Exchange, head

__all__ = [
    "Answer",
    "Call",
    "CommitTwice",
    "Cut",
    "LateCommit",
    "Outage",
    "OwnError",
    "Stall",
    "TooLarge",
    "Trickle",
    "Truncate",
]

PAGE = b"<html><head><title>Gateway</title></head><body><h1>Something is wrong here</h1></body></html>"
HTML = {"content-type": "text/html"}
JSON = {"content-type": "application/json"}
#: Label Studio's own words for an error of its own.
OWN_ERROR = b'{"id": "0", "status_code": 500, "version": "1.23.2", "detail": "told to", "exc_info": null}'


@dataclass(frozen=True)
class Cut:
    """The connection ends without an answer: with a reset, or in order."""

    after: bool
    reset: bool = True

    def __call__(self, exchange: Exchange) -> None:
        """See ``Fault``."""
        if self.after:
            exchange.forward()
        if self.reset:
            exchange.cut()
        else:
            exchange.hang_up()


@dataclass(frozen=True)
class Stall:
    """No answer until the client gives up."""

    after: bool

    def __call__(self, exchange: Exchange) -> None:
        """See ``Fault``."""
        if self.after:
            exchange.forward()
        exchange.client_gone()
        exchange.cut()


@dataclass(frozen=True)
class LateCommit:
    """No answer until the client gives up, and only then is the request carried out."""

    def __call__(self, exchange: Exchange) -> None:
        """See ``Fault``."""
        if exchange.client_gone():
            exchange.forward()
        exchange.cut()


@dataclass(frozen=True)
class Answer:
    """A page of a gateway in place of Label Studio's answer."""

    status: int
    after: bool = False
    retry_after: str = ""

    def __call__(self, exchange: Exchange) -> None:
        """See ``Fault``."""
        if self.after:
            exchange.forward()
        exchange.reply(self.status, PAGE, {**HTML, "retry-after": self.retry_after} if self.retry_after else HTML)


@dataclass(frozen=True)
class OwnError:
    """Label Studio's own answer to an error of its own, such as when it saved everything and then failed to recount."""

    after: bool

    def __call__(self, exchange: Exchange) -> None:
        """See ``Fault``."""
        if self.after:
            exchange.forward()
        exchange.reply(500, OWN_ERROR, JSON)


@dataclass(frozen=True)
class Truncate:
    """Half of the answer, then the end of the connection."""

    def __call__(self, exchange: Exchange) -> None:
        """See ``Fault``."""
        response = exchange.forward()
        whole = head(response) + response.content
        exchange.send(whole[: len(whole) - len(response.content) // 2 - 1])
        exchange.hang_up()


@dataclass(frozen=True)
class Trickle:
    """The whole answer, in small pieces: no silence is long, but all of it takes a while."""

    pieces: int = 10
    seconds: float = 0.5

    def __call__(self, exchange: Exchange) -> None:
        """See ``Fault``."""
        response = exchange.forward()
        whole = head(response) + response.content
        step = -(-len(whole) // self.pieces)
        for start in range(0, len(whole), step):
            exchange.send(whole[start : start + step])
            exchange.pause(self.seconds / self.pieces)
        exchange.seen.status = response.status_code


@dataclass(frozen=True)
class CommitTwice:
    """The request reaches Label Studio twice, as behind a gateway that repeats what it thinks is lost."""

    def __call__(self, exchange: Exchange) -> None:
        """See ``Fault``."""
        exchange.forward()
        exchange.relay(exchange.forward())


@dataclass(frozen=True)
class TooLarge:
    """413 for bodies above a size, as of a gateway with a limit; a rule for it has no end."""

    most_bytes: int

    def __call__(self, exchange: Exchange) -> None:
        """See ``Fault``."""
        if exchange.seen.size > self.most_bytes:
            exchange.reply(413, PAGE, HTML)
        else:
            exchange.relay(exchange.forward())


@dataclass(frozen=True)
class Outage:
    """Connections are refused for a while: this request is cut first, or answered and the next one refused."""

    seconds: float
    answered: bool

    def __call__(self, exchange: Exchange) -> None:
        """See ``Fault``."""
        response = exchange.forward() if self.answered else None
        exchange.outage(self.seconds)
        if response is not None:
            exchange.relay(response, last=True)
        else:
            exchange.cut()


@dataclass(frozen=True)
class Call:
    """Something happens before or after the commit, such as the death of a process; then the connection is cut."""

    action: Callable[[], None]
    after: bool

    def __call__(self, exchange: Exchange) -> None:
        """See ``Fault``."""
        if self.after:
            exchange.forward()
        self.action()
        exchange.cut()
