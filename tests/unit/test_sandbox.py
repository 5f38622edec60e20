"""The sandbox's protocols and media, over real HTTP."""

import base64
import io
from array import array
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import av
import httpx
import pytest
from PIL import Image

from jobs.sandbox import Sandbox

CHAT = "/openai/v1/chat/completions"
EMBED = "/openai/v1/embeddings"
PREDICT = "/replicate/v1/predictions"


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with Sandbox(steps=3) as sandbox:
        yield sandbox


@pytest.fixture
async def http(sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": "Bearer key-0001"}
    async with httpx.AsyncClient(base_url=sandbox.url, headers=headers) as client:
        yield client


def chat(prompt: Any, **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": prompt}], **more}


def embedding(text: Any, **more: Any) -> dict[str, Any]:
    return {"model": "text-embedding-3-small", "input": text, **more}


async def predict(http: httpx.AsyncClient, model: str = "sandbox/video", **given: Any) -> Any:
    response = await http.post(f"/replicate/v1/models/{model}/predictions", json={"input": given})
    assert response.status_code == 201, response.text
    return response.json()


async def finish(http: httpx.AsyncClient, prediction: Any) -> Any:
    """Poll until it is over; the fixture's predictions take three polls."""
    for _ in range(3):
        prediction = (await http.get(prediction["urls"]["get"])).json()
    return prediction


# ------------------------------------------------------------------------------ OpenAI


async def test_chat_answers_with_usage(http: httpx.AsyncClient) -> None:
    response = await http.post(CHAT, json=chat("Describe the harbour and its lighthouse"))
    body = response.json()
    assert response.status_code == 200
    assert body["object"] == "chat.completion"
    assert body["id"].startswith("chatcmpl-")
    choice = body["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["role"] == "assistant"
    assert "lighthouse" in choice["message"]["content"].lower()
    assert choice["message"]["content"].count("\n\n") >= 2
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == 0
    assert int(response.headers["x-ratelimit-remaining-requests"]) == 999_999
    assert response.headers["x-ratelimit-reset-tokens"].endswith("s")


async def test_the_same_prompt_gets_the_same_text_and_marks_change_nothing(
    http: httpx.AsyncClient,
) -> None:
    texts = []
    for prompt in ("A tale of tides", "A tale of tides [job:x/1]", "A tale of the moon"):
        body = (await http.post(CHAT, json=chat(prompt))).json()
        texts.append(body["choices"][0]["message"]["content"])
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_chat_keeps_to_the_token_limit(http: httpx.AsyncClient, field: str) -> None:
    body = (await http.post(CHAT, json=chat("A tale of tides", **{field: 20}))).json()
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 20


async def test_chat_reads_content_parts(http: httpx.AsyncClient, sandbox: Sandbox) -> None:
    parts = [{"type": "text", "text": "A tale [job:ai_generations/7]"}]
    assert (await http.post(CHAT, json=chat(parts))).status_code == 200
    assert sandbox.bill.charges[0].marker == "ai_generations/7"


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (CHAT, {"model": "gpt-4o-mini"}, (400, "missing_required_parameter", "messages")),
        (CHAT, chat("x", tools=[]), (400, "unknown_parameter", "tools")),
        (CHAT, chat("x", temperature=2.5), (400, "invalid_value", "temperature")),
        (CHAT, chat("x", stream=True), (400, "invalid_value", "stream")),
        (CHAT, chat("x", max_tokens=0), (400, "invalid_value", "max_tokens")),
        (CHAT, chat("x", model="gpt-0"), (404, "model_not_found", "model")),
        (EMBED, {"input": "x"}, (400, "missing_required_parameter", "model")),
        (EMBED, embedding(""), (400, "invalid_value", "input")),
        (EMBED, embedding(["a", ""]), (400, None, None)),
        (EMBED, embedding(["a"] * 2049), (400, None, None)),
        (EMBED, embedding("a" * 40_000), (400, None, None)),
        (EMBED, embedding(["a" * 32_000] * 40), (400, None, None)),
        (EMBED, embedding("x", dimensions=4000), (400, None, None)),
        ("/openai/v1/nothing", {}, (404, None, None)),
    ],
)
async def test_openai_refuses_bad_requests_unbilled(
    http: httpx.AsyncClient, sandbox: Sandbox, path: str, body: Any, expected: Any
) -> None:
    response = await http.post(path, json=body)
    error = response.json()["error"]
    assert error["message"]
    assert error["type"] == "invalid_request_error"
    assert (response.status_code, error["code"], error["param"]) == expected
    assert sandbox.bill.charges == []


async def test_embeddings_are_unit_vectors_that_know_likeness(http: httpx.AsyncClient) -> None:
    texts = ["a quiet harbour at night", "the harbour was quiet that night", "invoices and taxes"]
    body = (await http.post(EMBED, json=embedding(texts))).json()
    assert [item["index"] for item in body["data"]] == [0, 1, 2]
    first, second, third = (item["embedding"] for item in body["data"])
    assert len(first) == 1536
    assert dot(first, first) == pytest.approx(1, abs=1e-6)
    assert dot(first, second) > 0.5 > dot(first, third)
    assert body["usage"]["prompt_tokens"] == body["usage"]["total_tokens"] > 0


async def test_embeddings_in_base64_are_the_same_numbers(http: httpx.AsyncClient) -> None:
    request = embedding("a quiet harbour", dimensions=256)
    plain = (await http.post(EMBED, json=request)).json()["data"][0]["embedding"]
    packed = (await http.post(EMBED, json=request | {"encoding_format": "base64"})).json()
    unpacked = array("f", base64.b64decode(packed["data"][0]["embedding"]))
    assert len(plain) == 256
    assert list(unpacked) == pytest.approx(plain, abs=1e-7)


async def test_one_list_of_token_ids_is_one_text(http: httpx.AsyncClient) -> None:
    one = (await http.post(EMBED, json=embedding([1, 2, 3]))).json()
    two = (await http.post(EMBED, json=embedding([[1, 2, 3], [4, 5]]))).json()
    assert (len(one["data"]), one["usage"]["total_tokens"]) == (1, 3)
    assert (len(two["data"]), two["usage"]["total_tokens"]) == (2, 5)


def dot(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


# --------------------------------------------------------------------------- Replicate


async def test_a_prediction_moves_step_by_step(http: httpx.AsyncClient) -> None:
    prediction = await predict(http, prompt="waves", duration=2, extra={"kept": [1]})
    assert prediction["status"] == "starting"
    assert prediction["model"] == "sandbox/video"
    assert prediction["input"] == {"prompt": "waves", "duration": 2, "extra": {"kept": [1]}}
    assert prediction["created_at"].endswith("Z")
    states = [(await http.get(prediction["urls"]["get"])).json() for _ in range(4)]
    assert [state["status"] for state in states] == ["processing"] * 2 + ["succeeded"] * 2
    assert " 30%|" in states[0]["logs"]
    assert " 60%|" in states[1]["logs"]
    assert states[0]["output"] is None
    assert states[2]["metrics"] == {"predict_time": 1.3}
    assert states[2]["started_at"] <= states[2]["completed_at"]
    assert states[2] == states[3]


async def test_a_prediction_without_steps_follows_the_clock() -> None:
    async with (
        Sandbox(duration=0) as now,
        Sandbox(duration=3600) as later,
        httpx.AsyncClient(headers={"Authorization": "Token t"}) as http,
    ):
        for sandbox, status in ((now, "succeeded"), (later, "starting")):
            request = {"version": "sandbox/image", "input": {}}
            made = await http.post(sandbox.url + PREDICT, json=request)
            state = (await http.get(made.json()["urls"]["get"])).json()
            assert state["status"] == status


@pytest.mark.parametrize(
    ("version", "given", "suffix"),
    [
        ("someone/video-model", {}, ".mp4"),
        ("someone/image-model:abc", {}, ".png"),
        ("someone/music-model", {}, ".wav"),
        ("someone/speech", {}, ".wav"),
        ("0" * 64, {"prompt": "a video of waves"}, ".mp4"),
    ],
)
async def test_the_medium_follows_from_the_model_or_the_input(
    http: httpx.AsyncClient, version: str, given: Any, suffix: str
) -> None:
    made = await http.post(PREDICT, json={"version": version, "input": given})
    output = (await finish(http, made.json()))["output"]
    assert (output[0] if isinstance(output, list) else output).endswith(suffix)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"version": "sandbox/video"}, 422),
        ({"input": {}}, 422),
        ({"version": "unknown", "input": {}}, 422),
        ({"version": "sandbox/video", "input": {"duration": 61}}, 422),
        ({"version": "sandbox/video", "input": {"aspect_ratio": "wide"}}, 422),
        ([], 400),
    ],
)
async def test_replicate_refuses_bad_requests_unbilled(
    http: httpx.AsyncClient, sandbox: Sandbox, body: Any, status: int
) -> None:
    response = await http.post(PREDICT, json=body)
    assert response.status_code == status
    problem = response.json()
    assert problem["status"] == status
    assert problem["detail"]
    assert problem["title"]
    assert sandbox.bill.charges == []


async def test_a_prediction_is_seen_by_its_own_key_only(http: httpx.AsyncClient) -> None:
    prediction = await predict(http, prompt="waves")
    other = {"Authorization": "Bearer key-0002"}
    assert (await http.get(prediction["urls"]["get"], headers=other)).status_code == 404
    assert (await http.post(prediction["urls"]["cancel"], headers=other)).status_code == 404
    assert (await http.get(PREDICT, headers=other)).json()["results"] == []
    assert (await http.get(PREDICT + "/none")).json()["status"] == 404


async def test_the_list_is_paged_newest_first(http: httpx.AsyncClient) -> None:
    made = [(await predict(http, "sandbox/image", number=n))["id"] for n in range(205)]
    pages, url = [], str(http.base_url.join(PREDICT))
    while url:
        pages.append((await http.get(url)).json())
        url = pages[-1]["next"]
    listed = [[item["id"] for item in page["results"]] for page in pages]
    assert [len(ids) for ids in listed] == [100, 100, 5]
    assert [name for ids in listed for name in ids] == made[::-1]
    assert pages[0]["previous"] is None
    back = (await http.get(pages[2]["previous"])).json()
    assert [item["id"] for item in back["results"]] == listed[1]
    assert (await http.get(PREDICT, params={"cursor": "??"})).status_code == 400


async def test_the_list_can_start_at_a_time(http: httpx.AsyncClient) -> None:
    made = [await predict(http, prompt="waves") for _ in range(3)]
    later = {"created_after": made[1]["created_at"]}
    found = (await http.get(PREDICT, params=later)).json()["results"]
    assert [item["id"] for item in found] == [made[2]["id"], made[1]["id"]]


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer bad-key", "Basic eDp5"])
async def test_keys_are_checked(sandbox: Sandbox, header: str | None) -> None:
    headers = {"Authorization": header} if header else {}
    async with httpx.AsyncClient(base_url=sandbox.url, headers=headers) as http:
        text = await http.post(CHAT, json=chat("x"))
        media = await http.post(PREDICT, json={"version": "sandbox/video", "input": {}})
        polled = await http.get(PREDICT)
    assert [r.status_code for r in (text, media, polled)] == [401, 401, 401]
    assert text.json()["error"]["type"] == "invalid_request_error"
    assert media.json()["title"] == "Unauthenticated"


# ------------------------------------------------------------------------------- media


@pytest.mark.parametrize(
    ("ratio", "size"), [("16:9", (320, 180)), ("9:16", (180, 320)), ("1:1", (320, 320))]
)
async def test_videos_are_real_and_move(
    http: httpx.AsyncClient, ratio: str, size: tuple[int, int]
) -> None:
    done = await finish(http, await predict(http, prompt="x", duration=3, aspect_ratio=ratio))
    response = await http.get(done["output"])
    assert response.headers["content-type"] == "video/mp4"
    assert int(response.headers["content-length"]) == len(response.content)
    with av.open(io.BytesIO(response.content), "r") as container:
        video = container.streams.video[0]
        assert video.codec_context.name == "h264"
        assert (video.width, video.height) == size
        assert container.duration == 3_000_000
        frames = [bytes(frame.planes[0]) for frame in container.decode(video)]
    assert len(frames) == 36
    assert len(set(frames)) > 30


async def test_images_come_as_a_list(http: httpx.AsyncClient) -> None:
    asked = await predict(http, "sandbox/image", prompt="x", num_outputs=2, aspect_ratio="4:3")
    urls = (await finish(http, asked))["output"]
    files = [await http.get(url) for url in urls]
    assert len({file.content for file in files}) == 2
    for file in files:
        assert file.headers["content-type"] == "image/png"
        image = Image.open(io.BytesIO(file.content))
        image.load()
        assert image.size == (320, 240)


async def test_sounds_are_real(http: httpx.AsyncClient) -> None:
    done = await finish(http, await predict(http, "sandbox/audio", prompt="x", duration=1.5))
    response = await http.get(done["output"])
    assert response.headers["content-type"] == "audio/wav"
    with av.open(io.BytesIO(response.content), "r") as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) == 24_000
        assert Decimal(container.duration or 0) / 1_000_000 == Decimal("1.5")


@pytest.mark.parametrize("medium", ["video", "image", "audio"])
async def test_each_prediction_has_a_file_of_its_own(http: httpx.AsyncClient, medium: str) -> None:
    """Same picture, other bytes: a mix-up of two jobs' outputs must be provable."""
    contents = []
    for _ in range(2):
        done = await finish(http, await predict(http, f"sandbox/{medium}", prompt="same"))
        url = done["output"][0] if medium == "image" else done["output"]
        contents += [(await http.get(url)).content, (await http.get(url)).content]
        assert done["id"].encode() in contents[-1]
    assert contents[0] == contents[1] != contents[2] == contents[3]


async def test_files_exist_only_when_done(http: httpx.AsyncClient) -> None:
    prediction = await predict(http, prompt="x")
    early = f"/replicate/files/{prediction['id']}/video-0.mp4"
    assert (await http.get(early)).status_code == 404
    await finish(http, prediction)
    assert (await http.get(early)).status_code == 200
    assert (await http.get(f"/replicate/files/{prediction['id']}/other.mp4")).status_code == 404
