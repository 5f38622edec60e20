"""The `x-ratelimit-*` headers: counted truly, never enforced (429 is a fault on demand)."""

from __future__ import annotations

import time

REQUESTS_PER_MINUTE = 1_000_000
TOKENS_PER_MINUTE = 1_000_000_000
MINUTE = 60.0


class Window:
    """What was used in the current minute."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._requests = 0
        self._tokens = 0

    def spend(self, tokens: int) -> dict[str, str]:
        now = time.monotonic()
        if now - self._start >= MINUTE:
            self._start, self._requests, self._tokens = now, 0, 0
        self._requests += 1
        self._tokens += tokens
        reset = spell(self._start + MINUTE - now)
        return {
            "x-ratelimit-limit-requests": str(REQUESTS_PER_MINUTE),
            "x-ratelimit-remaining-requests": str(max(0, REQUESTS_PER_MINUTE - self._requests)),
            "x-ratelimit-reset-requests": reset,
            "x-ratelimit-limit-tokens": str(TOKENS_PER_MINUTE),
            "x-ratelimit-remaining-tokens": str(max(0, TOKENS_PER_MINUTE - self._tokens)),
            "x-ratelimit-reset-tokens": reset,
        }


def spell(seconds: float) -> str:
    """A duration as the vendor writes it: `6m0s`, `1.25s`, `850ms`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{int(seconds // 60)}m{int(seconds % 60)}s"
