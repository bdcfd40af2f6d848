"""How the settings of the live backend, and addresses on the command line, are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from lsbatch.backend_wiring import basic_auth, webhook_secret
from lsbatch.config import load
from lsbatch.errors import ConfigError
from lsbatch.verbs.connecting import backend_url
from lsbatch.wiring import Bench


def bench(folder: Path, **environ: str) -> Bench:
    """With these variables."""
    return Bench(load(None, environ=environ, flags={}, cwd=folder))


def test_login_and_secret(tmp_path: Path) -> None:
    assert (basic_auth(bench(tmp_path)), webhook_secret(bench(tmp_path))) == (("", ""), "")
    given = bench(tmp_path, BASIC_AUTH_USER="u", BASIC_AUTH_PASS="p", LSBATCH_SERVE_WEBHOOK_SECRET="s")
    assert (basic_auth(given), webhook_secret(given)) == (("u", "p"), "s")


@pytest.mark.parametrize(("name", "lacking"), [("BASIC_AUTH_USER", "pass"), ("BASIC_AUTH_PASS", "user")])
def test_half_a_login_is_a_mistake(name: str, lacking: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"serve.basic_auth_{lacking}: not set") as caught:
        basic_auth(bench(tmp_path, **{name: "s3cret"}))
    assert "s3cret" not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize("url", ["http://host:9090", "https://host/path", "http://[::1]:9090", "http://127.0.0.1"])
def test_addresses(url: str) -> None:
    assert backend_url(f" {url}/ ") == url


@pytest.mark.parametrize(
    "url",
    ["", "host:9090", "ftp://host", "http://", "http://a b", "http://h:x", "http://h/?a", "http://[::1", "http://h#a"],
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ConfigError, match="--url"):
        backend_url(url)


@pytest.mark.parametrize("url", ["http://me:s3cret@host", "http://me:s3cret@host:port", "http://me:s3cret@[::1"])
def test_a_password_in_an_address_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        backend_url(url)
    assert "s3cret" not in str(caught.value) + caught.value.hint
