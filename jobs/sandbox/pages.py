"""Listing predictions, newest first, a page at a time."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from yarl import URL

from jobs.sandbox.predictions import Prediction

PAGE_SIZE = 100


def page(newest_first: Iterable[Prediction], url: URL, base: str) -> dict[str, Any]:
    """A cursor says `older than` or `newer than` a prediction: new ones shift no page."""
    inside = [item for item in newest_first if in_period(item, url)]
    side, number = read_cursor(url.query.get("cursor"))
    if side == "newer":
        newer = [item for item in reversed(inside) if item.number > number]
        shown = list(islice(newer, PAGE_SIZE))[::-1]
    else:
        shown = list(islice((i for i in inside if not side or i.number < number), PAGE_SIZE))
    return {
        "next": link(url, "older", shown, any_older(inside, shown)),
        "previous": link(url, "newer", shown, any_newer(inside, shown)),
        "results": [item.as_json(base, with_logs=False) for item in shown],
    }


def in_period(item: Prediction, url: URL) -> bool:
    after, before = (moment(url.query.get(name)) for name in ("created_after", "created_before"))
    return (after is None or item.created >= after) and (before is None or item.created < before)


def moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    read = datetime.fromisoformat(text)
    return read if read.tzinfo else read.replace(tzinfo=UTC)


def any_older(inside: list[Prediction], shown: list[Prediction]) -> bool:
    return bool(shown) and inside[-1].number < shown[-1].number


def any_newer(inside: list[Prediction], shown: list[Prediction]) -> bool:
    return bool(shown) and inside[0].number > shown[0].number


def link(url: URL, side: str, shown: list[Prediction], more: bool) -> str | None:
    if not more:
        return None
    edge = shown[-1] if side == "older" else shown[0]
    cursor = base64.urlsafe_b64encode(f"{side} {edge.number}".encode()).decode()
    return str(url.update_query(cursor=cursor))


def read_cursor(text: str | None) -> tuple[str, int]:
    if text is None:
        return "", 0
    try:
        side, number = base64.urlsafe_b64decode(text).decode().split()
        return side, int(number)
    except (binascii.Error, ValueError):
        raise ValueError(f"invalid cursor {text!r}") from None
