"""Connectors: what reads tasks and takes predictions."""
