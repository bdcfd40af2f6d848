"""``models`` on a configured project: what is stored, and what is in use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lsbatch.entities import ModelVersion
from lsbatch.operations import models
from lsbatch.wiring import Bench

__all__ = [
    "describe_model",
    "export_version",
    "import_version",
    "list_models",
    "promote_version",
    "prune_versions",
    "rollback_version",
]


def list_models(bench: Bench) -> list[dict[str, Any]]:
    """The project's model versions, newest first, in JSON's types."""
    store, lineage = bench.store, bench.lineage
    standing = models.promoted(store, lineage)
    return [_row(entry, standing) for entry in reversed(models.trained(store, lineage))]


def _row(version: ModelVersion, standing: list[str]) -> dict[str, Any]:
    manifest = version.manifest
    metrics, gate = manifest.get("metrics") or {}, manifest.get("gate") or {}
    in_use = bool(standing) and standing[-1] == version.name
    return {
        "model_version": version.name,
        "state": "in use" if in_use else "promoted before" if version.name in standing else "stored",
        "created_at": manifest.get("created_at"),
        "accuracy": metrics.get("accuracy"),
        "baseline": metrics.get("baseline"),
        "calibration_error": metrics.get("calibration_error"),
        "trained_on": metrics.get("trained_on"),
        "held_out": metrics.get("held_out"),
        "gate_passed": gate.get("passed"),
        "parent": manifest.get("parent"),
    }


def describe_model(bench: Bench, version: str) -> dict[str, Any]:
    """All that is known of a version but the list of annotations that it learned from.

    Raises:
        ConfigError: there is no such version.
    """
    found = bench.store.get(version)
    annotations = dict(found.manifest.get("annotations") or {})
    annotations["tasks"] = len(annotations.get("tasks") or ())
    notes = [
        {"at": entry.at, "kind": entry.kind, "project": entry.lineage.project, "why": entry.why}
        for entry in bench.store.promotions()
        if entry.version == version
    ]
    return {**found.manifest, "annotations": annotations, "promotions": notes}


def promote_version(bench: Bench, version: str) -> str:
    """Use this version from now on; what was in use before, or an empty text.

    Raises:
        ConfigError: as ``lsbatch.operations.models.promote``.
    """
    return models.promote(bench.store, bench.lineage, version, why="by hand")


def rollback_version(bench: Bench) -> tuple[str, str]:
    """Use what was in use before; what goes and what comes.

    Raises:
        ConfigError: there is none before.
    """
    return models.rollback(bench.store, bench.lineage)


def prune_versions(bench: Bench, keep: int) -> list[str]:
    """Delete all but so many of the newest versions; those deleted."""
    return models.prune(bench.store, bench.lineage, keep)


def export_version(bench: Bench, version: str, path: Path) -> None:
    """Write a version into one file.

    Raises:
        ConfigError: as ``lsbatch.operations.models.export_model``.
    """
    models.export_model(bench.store, version, path)


def import_version(bench: Bench, path: Path) -> str:
    """Store the version of a file; its name.

    Raises:
        ConfigError: as ``lsbatch.operations.models.import_model``.
    """
    return models.import_model(bench.store, path).name
