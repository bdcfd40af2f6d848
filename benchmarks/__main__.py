"""``python -m benchmarks NAME``: measure, print the table, and with ``--write`` put it into ``RESULTS.md``."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType, ModuleType

from benchmarks import campaign, compute, deletion, end_to_end, growth, increment, large, memory, picking, serving
from benchmarks.results import render, replace
from lsbatch.errors import LsbatchError

#: Each has ``DESCRIPTION``, ``TITLES``, ``add_options(parser)`` and ``measure(options, folder) -> Section``.
BENCHMARKS: dict[str, ModuleType] = {
    "end-to-end": end_to_end,
    "increment": increment,
    "large": large,
    "delete": deletion,
    "memory": memory,
    "compute": compute,
    "growth": growth,
    "select": picking,
    "campaign": campaign,
    "serve": serving,
}
RESULTS = Path(__file__).with_name("RESULTS.md")


def main() -> None:
    """Run one benchmark; ``end-to-end`` when none is named."""
    arguments = sys.argv[1:]
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments = ["end-to-end", *arguments]
    options = _parser().parse_args(arguments)
    module = BENCHMARKS[options.name]
    # The servers are stopped on the way out, as they are by Ctrl-C.
    signal.signal(signal.SIGTERM, _stop)
    try:
        with tempfile.TemporaryDirectory(prefix="lsbatch-bench-") as folder:
            section = module.measure(options, Path(folder))
    except LsbatchError as error:
        raise SystemExit("\n".join(filter(None, [str(error), error.hint]))) from error
    lines = render(section, _command(arguments), options.why)
    print("\n".join(lines))
    if options.write:
        replace(RESULTS, lines, [title for each in BENCHMARKS.values() for title in each.TITLES])


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _command(arguments: list[str]) -> str:
    """The command that measures the same again, without what concerns the file."""
    shown = [word for word in arguments if word != "--write" and not word.startswith("--why=")]
    if "--why" in shown:
        place = shown.index("--why")
        del shown[place : place + 2]
    return f"python -m benchmarks {shlex.join(shown)}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, module in BENCHMARKS.items():
        one = names.add_parser(name, help=module.DESCRIPTION, description=module.DESCRIPTION)
        one.add_argument("--write", action="store_true", help="replace this benchmark's section of RESULTS.md")
        one.add_argument(
            "--why", default="", metavar="TEXT", help="why a target is missed, for the section's last line"
        )
        module.add_options(one)
    return parser


if __name__ == "__main__":
    main()
