"""What a provider says and we go by: an id that becomes part of a path, the URL of an output."""

from __future__ import annotations

import re

ID = re.compile(r"[\w-]{1,200}", re.ASCII)


def is_id(value: object) -> bool:
    """Whether it can be part of a path."""
    return isinstance(value, str) and ID.fullmatch(value) is not None


def checked_id(value: object) -> str:
    """Raises `ValueError`."""
    if not isinstance(value, str) or not is_id(value):
        raise ValueError(f"an id that can't be part of a path: {value!r}")
    return value


def checked_url(value: object) -> str:
    """Raises `ValueError`."""
    if not isinstance(value, str) or not value.startswith(("https://", "http://")):
        raise ValueError(f"not the URL of an output: {value!r}")
    return value
