"""Secrets, taken out of whatever is said: by the name they have, or by the form they come in.

Every pattern begins with something rare, so that a long text costs one pass over it, whatever is in
it: lines are written while jobs run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

GONE = "***"

_NAME = (
    r"api[_-]?key|access[_-]?key|private[_-]?key|secret[_-]?key|secret|passwd|password|passphrase"
    r"|pwd|token|authorization|cookie|credentials?|smtp_url"
)
SECRET_NAMES = re.compile(rf"(?:{_NAME})$", re.IGNORECASE)
"""`token` but not `tokens`: how many were used is no secret."""

_USERINFO = re.compile(r"(://[^\s:/@]*:)[^\s/]+@")
"""A DSN's or URL's password, which may have an @ itself."""
_USER_ALONE = re.compile(r"(https?://)[^\s:/@]+@", re.IGNORECASE)
"""On the web, a user without a password is a token. Of a DSN it is only a user."""
_SCHEME = re.compile(
    r"\b([Bb](?:earer|EARER)(?=[ \t])|(?:[Bb]asic|[Tt]oken)(?= [\w.~+/=-]{0,80}\d| [\w.~+/=-]{16}))"
    r"[ \t]{1,8}[\w.~+/=-]+"
)
"""After the words that people use, too, only what looks like a key."""
_PARAMETER = re.compile(
    r"([?&][\w.-]{0,60}(?:key|secret|token|signature|sig|password|credential|auth)=)[^\s&\"'<>]+",
    re.IGNORECASE,
)
_QUOTED = r"b?\"(?:[^\"\\]|\\.)*\"|b?'(?:[^'\\]|\\.)*'|\\+\"[^\"\\]*\\+\""
_NAMED = re.compile(
    rf"((?:{_NAME})\\*[\"']?\s*(?:"
    rf"[=:]\s*(?:SecretStr\()?(?={_QUOTED})|=\s*(?=[^\s\"'*])|:\s*(?=[^\s\"'*]*\d)(?=[^\s\"']{{8}})))"
    rf"(?:{_QUOTED}|[^\s,;&)}}\]\"']+)",
    re.IGNORECASE,
)
"""`password=x`, `'api_key': 'x'`, `"token": "x"`, `Settings(secret='x')`, and `X-Api-Key: x1…`.

After a colon without quotes only what looks like a key: "API_KEY: it is missing" is no secret.
"""

_PAIR = re.compile(rf"((?:{_NAME})[\"']\s*,\s*)(?:{_QUOTED})", re.IGNORECASE)
"""`('X-Api-Key', 'x')`."""
_HEADER = re.compile(
    r"(authorization:\s*[\w-]{1,30} (?=[\w.~+/=-]{0,80}\d|[\w.~+/=-]{16})|\bcookie:\s*)"
    r"[^\s\"'*][^\r\n\"']*",
    re.IGNORECASE,
)
"""A scheme that isn't known, and cookies, of which there may be several."""

_WORTH_A_LOOK = re.compile(r"[=:]|[\"'],|[Bb](?:earer|EARER)[ \t]|[Bb]asic |[Tt]oken ")
"""Nothing of all that comes without one of these; most values have none."""

DEPTH = 8


def without_secrets(text: str) -> str:
    if _WORTH_A_LOOK.search(text) is None:
        return text
    text = _USERINFO.sub(rf"\1{GONE}@", text)
    text = _USER_ALONE.sub(rf"\1{GONE}@", text)
    text = _SCHEME.sub(rf"\1 {GONE}", text)
    text = _PARAMETER.sub(rf"\1{GONE}", text)
    text = _HEADER.sub(rf"\1{GONE}", text)
    text = _PAIR.sub(rf"\1{GONE}", text)
    return _NAMED.sub(rf"\1{GONE}", text)


def redacted(name: str, value: Any, depth: int = DEPTH) -> Any:
    """The value as plain JSON, without secrets; `name` is what it is called."""
    if value is None or isinstance(value, bool | int | float):
        return value if value is None or not SECRET_NAMES.search(name) else GONE
    if SECRET_NAMES.search(name):
        return GONE
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return without_secrets(bytes(value).decode("utf-8", "replace"))
    if isinstance(value, UUID | Decimal | date):  # a datetime is a date
        return str(value)
    if depth and isinstance(value, Mapping):
        named = ((_name(key), item) for key, item in value.items())
        return {name: redacted(name, item, depth - 1) for name, item in named}
    if depth and isinstance(value, list | tuple | set | frozenset):
        if isinstance(value, list | tuple) and _is_named_secret(value):  # a header, as many tell it
            return [_name(value[0]), GONE]
        return [redacted(name, item, depth - 1) for item in value]
    return without_secrets(_shown(value))


def _is_named_secret(pair: Sequence[Any]) -> bool:
    named = len(pair) == 2 and all(isinstance(each, str | bytes) for each in pair)
    return named and SECRET_NAMES.search(_name(pair[0])) is not None


def _name(key: Any) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)


def _shown(value: Any) -> str:
    """Exceptions, dataclasses, models, clients: as they show themselves, if they can."""
    try:
        return str(value) if isinstance(value, BaseException) else repr(value)
    except Exception as error:  # noqa: BLE001 - a line is written all the same
        return f"<a {type(value).__name__} that can't be shown: {type(error).__name__}>"
