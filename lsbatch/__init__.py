"""Bulk pre-labeling for Label Studio: exactly one prediction per task and model version."""

__version__ = "0.1.0"
