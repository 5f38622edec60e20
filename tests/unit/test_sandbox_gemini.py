"""The sandbox's Gemini protocol, over real HTTP."""

import base64
import io
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import httpx
import pytest
from PIL import Image

from jobs.sandbox import Sandbox

MODELS = "/gemini/v1beta/models"
WRITE = f"{MODELS}/gemini-3.8-flash:generateContent"
DRAW = f"{MODELS}/gemini-3.1-flash-image:generateContent"
KEY = {"x-goog-api-key": "key-0001"}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
async def http(sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=sandbox.url, headers=KEY) as client:
        yield client


def ask(prompt: str, **config: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": prompt}]}]}
    return body | ({"generationConfig": config} if config else {})


async def test_text_is_billed_with_its_thoughts(http: httpx.AsyncClient, sandbox: Sandbox) -> None:
    system = {"systemInstruction": {"parts": [{"text": "Be brief."}]}}
    response = await http.post(WRITE, json=ask("A lighthouse [job:ai/1]") | system)
    body = response.json()
    assert response.status_code == 200
    (candidate,) = body["candidates"]
    assert candidate["finishReason"] == "STOP"
    assert "lighthouse" in candidate["content"]["parts"][0]["text"].lower()
    used = body["usageMetadata"]
    assert used["thoughtsTokenCount"] > 0
    parts = ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount")
    assert used["totalTokenCount"] == sum(used[part] for part in parts)
    output = used["candidatesTokenCount"] + used["thoughtsTokenCount"]
    charge = sandbox.bill.charges[0]
    assert (charge.provider, charge.operation, charge.marker) == (
        "gemini",
        "generateContent",
        "ai/1",
    )
    assert charge.external_id == body["responseId"]
    assert charge.cents == Decimal(used["promptTokenCount"] * 75 + output * 375) / 1_000_000


async def test_no_thoughts_where_none_are_allowed(http: httpx.AsyncClient) -> None:
    body = (await http.post(WRITE, json=ask("x", thinkingConfig={"thinkingBudget": 0}))).json()
    assert "thoughtsTokenCount" not in body["usageMetadata"]


async def test_the_limit_counts_thoughts(http: httpx.AsyncClient) -> None:
    body = (await http.post(WRITE, json=ask("A tale of tides", maxOutputTokens=21))).json()
    used = body["usageMetadata"]
    assert body["candidates"][0]["finishReason"] == "MAX_TOKENS"
    assert (used["thoughtsTokenCount"], used["candidatesTokenCount"]) == (10, 11)


async def test_names_are_read_in_either_case(http: httpx.AsyncClient) -> None:
    body = (await http.post(WRITE, json=ask("A tale", max_output_tokens=21))).json()
    assert body["candidates"][0]["finishReason"] == "MAX_TOKENS"


@pytest.mark.parametrize(
    ("config", "size", "tokens"),
    [
        ({}, (320, 320), 1120),
        ({"imageConfig": {"aspectRatio": "16:9", "imageSize": "4K"}}, (320, 180), 2520),
    ],
)
async def test_an_image_comes_inside_and_is_billed(
    http: httpx.AsyncClient, sandbox: Sandbox, config: Any, size: tuple[int, int], tokens: int
) -> None:
    body = (
        await http.post(DRAW, json=ask("A boat", responseModalities=["IMAGE"], **config))
    ).json()
    data = body["candidates"][0]["content"]["parts"][0]["inlineData"]
    assert data["mimeType"] == "image/png"
    content = base64.b64decode(data["data"])
    image = Image.open(io.BytesIO(content))
    image.load()
    assert image.size == size
    assert body["responseId"].encode() in content
    used = body["usageMetadata"]
    assert used["candidatesTokensDetails"] == [{"modality": "IMAGE", "tokenCount": tokens}]
    cents = used["promptTokenCount"] * 50 + used["thoughtsTokenCount"] * 300 + tokens * 6000
    assert sandbox.bill.charges[0].cents == Decimal(cents) / 1_000_000


async def test_given_images_count(http: httpx.AsyncClient) -> None:
    body = ask("four")
    body["contents"][0]["parts"] += [
        {"inlineData": {"mimeType": "image/png", "data": "aGk="}},
        {"fileData": {"fileUri": "https://x.test/a.png"}},
    ]
    used = (await http.post(DRAW, json=body)).json()["usageMetadata"]
    assert used["promptTokenCount"] == 1 + 2 * 1120


@pytest.mark.parametrize(("path", "finish"), [(WRITE, "SAFETY"), (DRAW, "IMAGE_SAFETY")])
async def test_refusals_are_billed(
    http: httpx.AsyncClient, sandbox: Sandbox, path: str, finish: str
) -> None:
    ended = (await http.post(path, json=ask("A tale [fault:refusal]"))).json()
    assert ended["candidates"] == [{"finishReason": finish, "index": 0}]
    blocked = (await http.post(path, json=ask("A tale [fault:policy]"))).json()
    assert blocked["promptFeedback"] == {"blockReason": "PROHIBITED_CONTENT"}
    assert "candidates" not in blocked
    assert all(charge.net > 0 for charge in sandbox.bill.charges)


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        (WRITE, [], "JSON"),
        (WRITE, {}, "contents"),
        (WRITE, {"contents": []}, "contents"),
        (WRITE, ask("x") | {"tools": []}, 'Unknown name "tools"'),
        (WRITE, ask("x", colour=1), "at 'generationConfig'"),
        (WRITE, ask("x", temperature=2.5), "temperature"),
        (WRITE, ask("x", responseModalities=["IMAGE"]), "text"),
        (DRAW, ask("x", imageConfig={"aspectRatio": "7:5"}), "aspect"),
        (f"{MODELS}/gemini-0:generateContent", ask("x"), "models/gemini-0 is not found"),
        (f"{MODELS}/gemini-3.8-flash:countTokens", ask("x"), "not found"),
    ],
)
async def test_bad_requests_are_refused_unbilled(
    http: httpx.AsyncClient, sandbox: Sandbox, path: str, body: Any, words: str
) -> None:
    response = await http.post(path, json=body)
    problem = response.json()["error"]
    expected = (404, "NOT_FOUND") if "found" in words else (400, "INVALID_ARGUMENT")
    assert (response.status_code, problem["status"]) == expected
    assert problem["code"] == response.status_code
    assert words in problem["message"]
    assert sandbox.bill.charges == []


@pytest.mark.parametrize(
    ("headers", "status", "reason"),
    [({}, 403, None), ({"x-goog-api-key": "bad-key"}, 400, "API_KEY_INVALID")],
)
async def test_keys_are_checked(
    sandbox: Sandbox, headers: dict[str, str], status: int, reason: str | None
) -> None:
    async with httpx.AsyncClient(base_url=sandbox.url, headers=headers) as http:
        response = await http.post(WRITE, json=ask("x"))
    assert response.status_code == status
    details = response.json()["error"].get("details", [])
    assert [item["reason"] for item in details] == ([reason] if reason else [])
    assert sandbox.bill.charges == []


@pytest.mark.parametrize(
    ("fault", "expected", "billed"),
    [
        ("429=3", (429, "RESOURCE_EXHAUSTED"), 0),
        ("quota", (429, "RESOURCE_EXHAUSTED"), 0),
        ("503", (503, "UNAVAILABLE"), 0),
        ("503-after", (503, "UNAVAILABLE"), 1),
        ("500", (500, "INTERNAL"), 0),
        ("auth", (400, "INVALID_ARGUMENT"), 0),
        ("invalid", (400, "INVALID_ARGUMENT"), 0),
    ],
)
async def test_faults(
    http: httpx.AsyncClient, sandbox: Sandbox, fault: str, expected: Any, billed: int
) -> None:
    response = await http.post(WRITE, json=ask(f"x [fault:{fault}]"))
    error = response.json()["error"]
    assert (response.status_code, error["status"]) == expected
    delays = [item["retryDelay"] for item in error.get("details", ()) if "retryDelay" in item]
    assert delays == {"429=3": ["3s"], "quota": ["1s"]}.get(fault, [])
    assert len(sandbox.bill.charges) == billed
