"""A disk that fills up, files that are torn in half, a clock that jumps: afterwards each task has one prediction."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from fault.cases import Case, each
from fault.driver import Done
from fault.faults import Call
from fault.plugins import ClockJump, LimitFileSize
from fault.proxy import Rule
from fault.scene import DONE, Scene
from fault.victim import Victim
from ls_support import Studio
from lsbatch.errors import ExitCode

KB = 1024
#: More than a small run needs.
DISK_KB = 1024
DAY = 86_400.0


# ------------------------------------------------------------------------------------------------ a full disk


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of ``DISK_KB`` in this folder.

    Raises:
        subprocess.CalledProcessError: this process may not mount.
    """
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_KB}k", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def may_mount() -> bool:
    """Whether this process may have a file system of its own."""
    with TemporaryDirectory() as folder:
        try:
            with small_disk(Path(folder) / "disk"):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


def check_told(done: Done, where: Path) -> None:
    """A run that ended for want of room says so, where, and what to do."""
    assert done.code == ExitCode.USAGE, (done.code, done.stderr)
    assert str(where) in done.stderr
    assert "disk" in done.stderr.lower() or "space" in done.stderr.lower(), done.stderr


def full_at(room_kb: int) -> Case:
    """A run on a disk with so much room, and the same command with more."""

    def case(scene: Scene) -> None:
        with small_disk(scene.folder / "disk") as disk:
            filler = disk / "filler"
            filler.write_bytes(bytes((DISK_KB - room_kb) * KB))
            done = scene.run(LSBATCH_STATE_DIR=str(disk / "state"))
            if done.code != DONE:
                check_told(done, disk)
            filler.unlink()
            done = scene.finish(scene.run(LSBATCH_STATE_DIR=str(disk / "state")))
        scene.check_exactly_once()

    return case


def limited_to(most_bytes: int) -> Case:
    """A run that can write no file larger than this, and the same command without that limit."""

    def case(scene: Scene) -> None:
        done = scene.run(plugins=[LimitFileSize(most_bytes)])
        assert done.code != DONE
        check_told(done, scene.folder)
        assert scene.run().code == DONE
        scene.check_exactly_once()

    return case


def test_a_disk_that_is_full(studio: Studio, tmp_path: Path) -> None:
    # Without the right to mount, a limit of the size of files fails in the same way.
    amounts = [(f"limit {size}", limited_to(size)) for size in (1 * KB, 4 * KB, 12 * KB, 20 * KB)]
    if may_mount():
        amounts += [(f"room for {room} KB", full_at(room)) for room in (0, *range(8, 120, 8))]
    each(studio, tmp_path, amounts)


# ------------------------------------------------------------------------------------------------ torn files


def tear(path: Path) -> None:
    """Leave the first half of a file, as a disk may after a power cut."""
    os.truncate(path, path.stat().st_size // 2)


def torn(pattern: str, *, number: int = 0) -> Case:
    """A run that is killed between a commit and its answer, a file of it that is torn, and what lsbatch says to do."""

    def case(scene: Scene) -> None:
        victim = Victim()
        scene.proxy.script(Rule(Call(victim.kill, after=True), method="POST", path="/import/predictions", at=3))
        victim.start(scene)
        path = sorted(scene.folder.glob(f".lsbatch/*/*/runs/*/{pattern}"))[number]
        tear(path)
        done = scene.run()
        if done.code == ExitCode.USAGE:
            assert str(path) in done.stderr
            if pattern == "manifest.json":
                assert f"Move {path.parent} elsewhere" in done.stderr
                path.parent.rename(scene.folder / "elsewhere")
                done = scene.run()
            else:
                assert "--no-resume" in done.stderr
                done = scene.run("--no-resume")
        assert done.code == DONE, done.stderr
        scene.check_exactly_once()

    return case


FILES = ("manifest.json", "ledger.sqlite", "run_results.json", "log.jsonl")
TABLES = ("tasks/*.parquet", "predictions/*.parquet")


def test_a_file_is_torn_in_half(studio: Studio, tmp_path: Path) -> None:
    cases = [(pattern, torn(pattern)) for pattern in FILES]
    cases += [(f"{pattern} {number}", torn(pattern, number=number)) for pattern in TABLES for number in (0, -1)]
    each(studio, tmp_path, cases)


# ------------------------------------------------------------------------------------------------ clocks


def jumping(seconds: float, reads: int) -> Case:
    """A run whose clock jumps."""

    def case(scene: Scene) -> None:
        done = scene.start(plugins=[ClockJump(seconds, reads)]).done(seconds=30)
        assert done.code == DONE, done.stderr
        scene.check_exactly_once()

    return case


def resumed_on_another_day(seconds: float) -> Case:
    """A run that is killed between a commit and its answer, and the same command by another clock."""

    def case(scene: Scene) -> None:
        victim = Victim()
        scene.proxy.script(Rule(Call(victim.kill, after=True), method="POST", path="/import/predictions", at=2))
        victim.start(scene)
        done = scene.start(plugins=[ClockJump(seconds)]).done(seconds=30)
        assert done.code == DONE, done.stderr
        scene.check_exactly_once()

    return case


def test_a_clock_that_jumps(studio: Studio, tmp_path: Path) -> None:
    cases = [(f"{days} days after {reads}", jumping(days * DAY, reads)) for days in (-1, 1) for reads in (1, 6, 12)]
    cases += [(f"resumed {days} days later", resumed_on_another_day(days * DAY)) for days in (-1, 1)]
    each(studio, tmp_path, cases)
