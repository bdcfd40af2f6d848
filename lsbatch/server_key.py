"""The name of a Label Studio on this disk."""

from __future__ import annotations

import hashlib
import re

__all__ = ["server_key"]


def server_key(url: str) -> str:
    """A folder name for a Label Studio's address: readable, and different for different addresses."""
    address = url.split("://", 1)[-1].rstrip("/").lower()
    readable = re.sub(r"[^a-z0-9.]+", "-", address).strip("-")
    # Only letters, digits, dots and the colon of a port are kept apart by the readable part alone.
    if re.fullmatch(r"[a-z0-9.]+(:[0-9]+)?", address):
        return readable
    return f"{readable}-{hashlib.sha256(address.encode()).hexdigest()[:6]}"
