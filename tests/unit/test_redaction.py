"""What may be said, and what may not; and that looking for it takes no time."""

from __future__ import annotations

import json
from typing import Any

import pytest

from worker.redaction import redacted, without_secrets

SECRET = "hunter2-0451"

LEAKS = [
    f"password={SECRET} host=x",
    f"{{'api_key': '{SECRET} and more', 'x': 1}}",
    f'{{"X-Api-Key": "{SECRET}"}}',
    json.dumps(json.dumps({"token": SECRET})),
    f"Settings(secret='{SECRET}', kept=SecretStr('**********'))",
    f"X-Goog-Api-Key: {SECRET}",
    f"Authorization: Bearer {SECRET}",
    f"no login with basic {SECRET}",
    f"bearer {SECRET}",
    f"headers={{b'authorization': b'Bearer {SECRET}'}}",
    f"Set-Cookie: {SECRET}; Path=/",
    f"postgresql://me:{SECRET}@h/d",
    f"postgresql://me:an@{SECRET}@h/d",
    f"Headers([('X-Api-Key', '{SECRET}')])",
    f"[(b'authorization', b'Key {SECRET}')]",
    json.dumps(json.dumps(json.dumps(json.dumps({"api_key": SECRET})))),
    f"Authorization: Key {SECRET}",
    f"Cookie: seen=1; sid={SECRET}",
    f"BEARER {SECRET}",
    f"Bearer\t{SECRET}",
    f"https://{SECRET}@git.example/x",
    f"https://b/x?X-Amz-Credential={SECRET}&X-Amz-Signature={SECRET}&a=1",
    f"https://b/x?a=1&sig={SECRET}",
    f"apiKey={SECRET}",
    f"accessToken: '{SECRET}'",
    f"REPLICATE_API_TOKEN={SECRET}",
]

HARMLESS = [
    "authorization: it was refused by the platform",
    "tokens: 12, token count 3",
    "The Basic plan is used up: its token limit is reached",
    "ROWMILL_PROVIDERS__OPENAI__API_KEY: field required",
    "postgresql://rowmill_worker@db.internal/app",
    "generation_jobs/4f0c: no such page (https://shop.example/a?page=2)",
    "background:embed_content",
    "2026-01-02T03:04:05.678901Z",
]


@pytest.mark.parametrize("text", LEAKS)
def test_it_is_gone(text: str) -> None:
    said = without_secrets(text)
    assert SECRET not in said
    assert "***" in said
    assert without_secrets(said) == said, "said twice is said once"


@pytest.mark.parametrize("text", HARMLESS)
def test_it_stays(text: str) -> None:
    assert without_secrets(text) == text


class Shy:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_values_of_all_kinds_become_plain() -> None:
    endless: dict[str, Any] = {"password": SECRET}
    endless["itself"] = endless
    given = {
        "token": 12345,
        "raw": f"token={SECRET}".encode(),
        "many": {f"secret={SECRET}"},
        "endless": endless,
        "shy": Shy(),
        "number": 1.5,
        "nothing": None,
    }
    said = redacted("", given)
    text = json.dumps(said)
    assert SECRET not in text
    assert (said["token"], said["number"], said["nothing"]) == ("***", 1.5, None)
    assert "can't be shown" in said["shy"]


PIECES = ["a", "token", "://", "?", "x=", "password=", "secret: ", "'", "token='\\", "Bearer "]


@pytest.mark.parametrize("piece", PIECES)
def test_a_long_text_is_one_pass(piece: str) -> None:
    """A pattern that goes back over it again and again would not end in this session."""
    without_secrets(piece * (1_000_000 // len(piece)) + "=")


@pytest.mark.parametrize(
    "headers",
    [
        [("Accept", "*/*"), ("X-Api-Key", SECRET)],
        ((b"accept", b"*/*"), (b"x-api-key", SECRET.encode())),
        [["Accept", "*/*"], ["Cookie", SECRET]],
    ],
)
def test_headers_as_pairs(headers: Any) -> None:
    said = redacted("headers", headers)
    assert said[0][1] == "*/*"
    assert said[1][1] == "***"
