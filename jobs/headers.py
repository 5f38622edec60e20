"""Headers that customers choose: nothing that breaks a request, nothing that is ours to say."""

from __future__ import annotations

import re
from collections.abc import Mapping

NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
OURS = re.compile(
    r"host|content-length|content-type|transfer-encoding|connection|keep-alive|te|trailer|upgrade"
    r"|expect|accept-encoding|range|proxy-.*|webhook-.*",
    re.IGNORECASE,
)


def allowed(headers: Mapping[str, str]) -> dict[str, str]:
    """Without those that are ours. Raises `ValueError` for what can't be sent."""
    for name, value in headers.items():
        if not NAME.fullmatch(name) or not (value.isprintable() and value.isascii()):
            raise ValueError(f"{name!r} cannot be sent as a header")
    return {name: value for name, value in headers.items() if not OURS.fullmatch(name)}
