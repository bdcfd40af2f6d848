"""What ``docs/deploy`` says is what lsbatch knows: variables, ports, exit codes, times."""

from __future__ import annotations

import configparser
import json
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from lsbatch.config import Config, settings
from lsbatch.config.values import duration_seconds
from lsbatch.errors import ExitCode

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "deploy"
#: What lsbatch reads.
KNOWN = {name for setting in settings().values() for name in setting.env}
OURS = re.compile(r"(?:LSBATCH|LABEL_STUDIO|BASIC_AUTH)_[A-Z_]+")
SECRETS = {name for setting in settings().values() if setting.secret for name in setting.env}


def text(name: str) -> str:
    """A file of the folder."""
    return (FOLDER / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services of the Compose file."""
    loaded: dict[str, Any] = YAML(typ="safe", pure=True).load(text("docker-compose.yml"))
    assert set(loaded) == {"name", "services", "networks", "volumes"}
    assert all(
        name in loaded["volumes"]
        for service in loaded["services"].values()
        for name in [volume.partition(":")[0] for volume in service.get("volumes", [])]
    )
    found: dict[str, Any] = loaded["services"]
    return found


@pytest.fixture(scope="module")
def unit() -> configparser.SectionProxy:
    """The service of the unit; a key that is given twice is none of it."""
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text("lsbatch-serve.service"))
    assert parser.sections() == ["Unit", "Service", "Install"]
    return parser["Service"]


def instructions() -> list[tuple[str, str]]:
    """Name and arguments of each instruction of the Dockerfile."""
    lines = re.sub(r"^#.*\n", "", text("Dockerfile"), flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [(line.split()[0], " ".join(line.split()[1:])) for line in lines if line.strip()]


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.iterdir()))
def test_variables_of_lsbatch_exist(name: str) -> None:
    assert set(OURS.findall(text(name))) <= KNOWN


def test_secrets_come_from_outside(services: dict[str, Any]) -> None:
    given = {name: value for service in services.values() for name, value in service["environment"].items()}
    named = SECRETS & set(given)
    assert {"LABEL_STUDIO_API_KEY", "BASIC_AUTH_PASS", "LSBATCH_SERVE_WEBHOOK_SECRET"} == named
    passwords = named | {name for name in given if "PASS" in name}
    assert all(re.fullmatch(r"\$\{(\w+):\?set it in \.env\}", given[name]) for name in passwords)
    wanted = {match for value in given.values() for match in re.findall(r"\$\{(\w+)", value)}
    lines = dict(line.split("=", 1) for line in text("env.example").splitlines() if line and line[0] != "#")
    assert wanted <= set(lines)
    assert all(lines[name] == "" for name in passwords & set(lines))


def test_services_wait_for_each_other(services: dict[str, Any]) -> None:
    waits = {name: set(service.get("depends_on", {})) for name, service in services.items()}
    assert waits == {"db": set(), "label-studio": {"db"}, "lsbatch": {"label-studio"}}
    for service in services.values():
        for name, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            assert "healthcheck" in services[name]


def test_label_studio_may_call_the_backend(services: dict[str, Any]) -> None:
    given = services["label-studio"]["environment"]
    assert (given["ML_BLOCK_LOCAL_IP"], given["SSRF_PROTECTION_ENABLED"]) == ("false", "false")
    [alias] = services["lsbatch"]["networks"]["default"]["aliases"]
    assert "." in alias
    assert "_" not in alias
    assert f"http://{alias}:{Config().serve.port}" in text("README.md")


def test_what_is_under_way_may_end(services: dict[str, Any], unit: configparser.SectionProxy) -> None:
    drain = Config().serve.drain_seconds
    assert duration_seconds(services["lsbatch"]["stop_grace_period"]) > drain
    assert float(unit["TimeoutStopSec"]) > drain


def test_the_image_runs_serve_without_root(services: dict[str, Any]) -> None:
    found = dict(instructions())
    names = [name for name, _ in instructions()]
    assert json.loads(found["CMD"]) == ["lsbatch", "serve"]
    assert found["FROM"] == "python:3.11-slim"
    assert found["USER"] == "10001"
    assert names.index("USER") > max(at for at, name in enumerate(names) if name == "RUN")
    assert found["EXPOSE"] == str(Config().serve.port)
    assert f"http://localhost:{Config().serve.port}/ready" in found["HEALTHCHECK"]
    check = json.loads(found["HEALTHCHECK"].partition(" CMD ")[2])
    compile(check[2], "HEALTHCHECK", "exec")
    compile(services["label-studio"]["healthcheck"]["test"][3], "healthcheck", "exec")
    assert any(arguments.endswith("'.[serve]'") for name, arguments in instructions() if name == "RUN")


def test_the_image_is_built_from_what_is_there(services: dict[str, Any]) -> None:
    build = services["lsbatch"]["build"]
    context = (FOLDER / build["context"]).resolve()
    assert context == ROOT
    assert (context / build["dockerfile"]).is_file()
    kept = {line[1:] for line in text("Dockerfile.dockerignore").splitlines() if line.startswith("!")}
    copied = {
        word
        for name, arguments in instructions()
        if name == "COPY" and not arguments.startswith("--from")
        for word in arguments.split()[:-1]
    }
    assert copied == kept
    assert all((ROOT / name).exists() for name in copied)


def test_the_unit_is_restarted_where_that_helps(unit: configparser.SectionProxy) -> None:
    assert unit["ExecStart"].endswith("/lsbatch serve")
    assert unit["Restart"] == "on-failure"
    never = {ExitCode(int(code)) for code in unit["RestartPreventExitStatus"].split()}
    assert never == {ExitCode.USAGE, ExitCode.REFUSED}
    assert ExitCode(int(unit["SuccessExitStatus"])) is ExitCode.TERMINATED
    assert unit["EnvironmentFile"] in text("README.md")
