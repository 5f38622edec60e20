"""Files inside of JSON, and inside of URLs."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import unquote_to_bytes


def from_base64(text: str) -> bytes:
    """Raises ValueError."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from error


def from_data_url(url: str) -> bytes:
    """Raises ValueError, also for any other URL."""
    head, comma, data = url.partition(",")
    if not head.startswith("data:") or not comma:
        raise ValueError("not a data URL")
    return from_base64(data) if head.endswith(";base64") else unquote_to_bytes(data)
