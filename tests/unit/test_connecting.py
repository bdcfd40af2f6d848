"""``connect`` on a registry in memory: what is left where Label Studio refuses or does not answer."""

from __future__ import annotations

import pytest

from lsbatch.entities import Prediction, TaskId
from lsbatch.errors import ConfigError, RefusedError, TransientError
from lsbatch.operations.connecting import Connected, Wanted, connect, connections, disconnect
from lsbatch.ports import Backend
from lsbatch.testing.memory import MemoryProject
from lsbatch.testing.memory_backends import MemoryBackends

URL = "http://backend:9090"
HOOK = f"{URL}/webhook"


@pytest.fixture
def registry() -> MemoryBackends:
    """Of a project without backends."""
    return MemoryBackends(MemoryProject())


def connected(registry: MemoryBackends, wanted: Wanted | None = None, *taken: str) -> Connected:
    """Connect to the project of the registry."""
    return connect(registry, registry.project, registry.project, taken, wanted or Wanted(URL))


def test_the_webhook_is_there_before_the_backend(registry: MemoryBackends) -> None:
    done = connected(registry, Wanted(URL, secret="s", user="u", password="p"))
    assert registry.asked == [f"put {HOOK}", f"create {URL}"]
    assert (done.change, done.webhook, done.active_before, done.active) == ("created", "created", "", "lsbatch")
    assert (registry.hooks, registry.passwords) == ({HOOK: "s"}, {1: "p"})
    assert "'p'" not in repr(registry.backends()) + repr(done)


def test_twice_is_once(registry: MemoryBackends) -> None:
    connected(registry)
    done = connected(registry, Wanted(f"{URL}/"), "v1")
    assert (done.change, done.webhook, len(registry.backends())) == ("unchanged", "unchanged", 1)
    # The password may be another now: it is sent again whatever the server shows.
    connected(registry, Wanted(URL, user="u", password="new"))
    assert registry.passwords == {1: "new"}


def test_what_is_not_said_stays(registry: MemoryBackends) -> None:
    connected(registry, Wanted(URL, "clicks", interactive=True))
    connected(registry)
    [backend] = registry.backends()
    assert (backend.title, backend.interactive) == ("clicks", True)


def test_a_webhook_that_was_made_goes_where_the_backend_is_refused(registry: MemoryBackends) -> None:
    registry.faults = ["denied"]
    with pytest.raises(RefusedError):
        connected(registry)
    assert (registry.hooks, registry.backends()) == ({}, [])


def test_a_webhook_that_was_there_stays_where_the_backend_is_refused(registry: MemoryBackends) -> None:
    registry.hooks = {HOOK: ""}
    registry.faults = ["denied"]
    with pytest.raises(RefusedError):
        connected(registry)
    assert HOOK in registry.hooks


def test_an_answer_that_was_lost_is_read_back(registry: MemoryBackends) -> None:
    registry.faults = ["lose after"]
    assert connected(registry).change == "created"
    assert (len(registry.backends()), len(registry.hooks)) == (1, 1)


def test_where_it_is_not_known_the_same_command_goes_on(registry: MemoryBackends) -> None:
    registry.faults = ["lose before"]
    with pytest.raises(TransientError) as caught:
        connected(registry)
    assert "same command" in caught.value.hint
    # The request may still be under way, and the backend must not come to be without its webhook.
    assert HOOK in registry.hooks
    assert connected(registry).change == "created"
    assert (len(registry.backends()), len(registry.hooks)) == (1, 1)


def test_a_title_stands_for_one_thing(registry: MemoryBackends) -> None:
    with pytest.raises(ConfigError, match="model version or a backend"):
        connected(registry, Wanted(URL, "v1"), "v1")
    assert registry.asked == []


def test_another_backend_is_in_the_way_unless_this_one_is_interactive(registry: MemoryBackends) -> None:
    registry.project.connected = [Backend("old", "v1", "http://old:9090", 7)]
    with pytest.raises(RefusedError) as caught:
        connected(registry)
    assert "--remove --url http://old:9090" in caught.value.hint
    assert registry.asked == []
    assert connected(registry, Wanted(URL, interactive=True)).others == (("old", "http://old:9090"),)


def test_doubles_of_the_same_address_go(registry: MemoryBackends) -> None:
    registry.project.connected = [Backend("b", "", f"{URL}/", 3), Backend("a", "", URL.upper().lower(), 2)]
    done = connected(registry)
    assert (done.change, [backend.id for backend in registry.backends()]) == ("changed", [2])


@pytest.mark.parametrize(("active", "seen"), [("v1", "v1"), ("", "lsbatch")])
def test_predictions_are_switched_on_without_another_version(registry: MemoryBackends, active: str, seen: str) -> None:
    registry.project.shown, registry.project.active = False, active
    registry.project.predictions = [Prediction(TaskId(1), [], 0.5, "v1")]
    assert connected(registry).shown is False
    done = connected(registry, Wanted(URL, show=True))
    assert (done.shown, done.active, registry.project.active) == (True, seen, seen)


def test_what_is_connected_has_its_webhook(registry: MemoryBackends) -> None:
    connected(registry, Wanted(URL, secret="s"))
    registry.project.connected.append(Backend("old", "v1", "http://old:9090/", 7))
    ours, other = connections(registry)
    assert ours.webhook is not None
    assert (ours.webhook.secured, other.webhook) == (True, None)


def test_the_only_backend_goes_with_its_webhook_and_a_second_time_nothing(registry: MemoryBackends) -> None:
    connected(registry)
    done = disconnect(registry, registry.project)
    assert ([backend.url for backend in done.backends], done.webhooks) == ([URL], 1)
    assert (done.active_before, done.active, registry.hooks, registry.backends()) == ("lsbatch", "", {}, [])
    again = disconnect(registry, registry.project)
    assert (again.backends, again.webhooks) == ((), 0)


def test_a_webhook_that_is_left_alone_goes_too(registry: MemoryBackends) -> None:
    registry.hooks = {HOOK: "s", "http://elsewhere/webhook": ""}
    assert disconnect(registry, registry.project, f"{URL}/").webhooks == 1
    assert list(registry.hooks) == ["http://elsewhere/webhook"]


def test_of_several_one_must_be_named(registry: MemoryBackends) -> None:
    registry.project.connected = [Backend("a", "", "http://a:1", 1), Backend("b", "", "http://b:1", 2)]
    with pytest.raises(ConfigError, match="several") as caught:
        disconnect(registry, registry.project)
    assert "'b' at http://b:1" in caught.value.message
    disconnect(registry, registry.project, "http://b:1")
    assert [backend.id for backend in registry.backends()] == [1]
    # The one that is left has another name than lsbatch gives: it may be somebody else's.
    with pytest.raises(ConfigError, match="not called 'lsbatch'") as caught:
        disconnect(registry, registry.project)
    assert "'a' at http://a:1" in caught.value.message
    disconnect(registry, registry.project, "http://a:1")
    assert registry.backends() == []
