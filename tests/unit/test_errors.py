"""The tree of errors."""

from __future__ import annotations

import pickle

import pytest

from lsbatch import errors
from lsbatch.errors import LsbatchError, PermanentError, TransientError

KINDS = [getattr(errors, name) for name in errors.__all__ if name.endswith("Error")]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_survives_a_pickle_round_trip(kind: type[LsbatchError]) -> None:
    error = kind("chunk 3 failed", hint="run it again")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (str(copy), copy.hint, copy.exit_code) == ("chunk 3 failed", "run it again", kind.exit_code)


def test_extra_fields_survive_too() -> None:
    assert pickle.loads(pickle.dumps(TransientError("busy", retry_after=2.5))).retry_after == 2.5
    assert pickle.loads(pickle.dumps(PermanentError("no", status=404))).status == 404
