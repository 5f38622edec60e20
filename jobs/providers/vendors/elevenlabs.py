"""ElevenLabs: speech from text. Answered at once; the body of the answer is the sound itself.

The voice is the task's `options["voice"]`, or else the account's `models["voice"]`: an id of the
vendor's. Of the other options `output_format` goes into the URL, the names of `VOICE` become voice
settings, and the rest goes into the body as it is.

The vendor counts credits: a character is one, or half a one with the models made for speed. What
`Usage.characters` holds is these billed characters, and prices are per thousand of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Any

from jobs.contract import Failure, FailureKind, MediaTask, Task, Usage
from jobs.providers.adapter import Account, Op, RemoteOutput, Request, Response, State
from jobs.providers.errors import Garbled, invalid
from jobs.providers.failures import failure_of
from jobs.providers.prices import PriceTable
from jobs.providers.vendors.synchronous import Synchronous

THOUSAND = Decimal(1000)
HALF_PRICED = re.compile("flash|turbo")
VOICE_ID = re.compile(r"[A-Za-z0-9]{1,64}")
# The formats that are files. PCM and the telephone codecs are bare samples, which no player knows.
OUTPUT_FORMAT = re.compile(r"(mp3|opus|wav)_\d{4,5}(_\d{2,3})?")
DEFAULT_FORMAT = "mp3_44100_128"
VOICE = ("stability", "similarity_boost", "style", "speed", "use_speaker_boost", "clone_strength")
IN_URL = ("voice", "output_format")
# option → lowest, highest
RANGES: Mapping[str, tuple[float, float]] = {
    "stability": (0, 1),
    "similarity_boost": (0, 1),
    "style": (0, 1),
    "clone_strength": (0, 1),
    "speed": (0.7, 1.2),
    "seed": (0, 4294967295),
}
LONGEST: Mapping[str, int] = {
    "eleven_v3": 5_000,
    "eleven_multilingual_v2": 10_000,
    "eleven_flash_v2": 30_000,
    "eleven_turbo_v2": 30_000,
    "eleven_flash_v2_5": 40_000,
    "eleven_turbo_v2_5": 40_000,
}
# `code` is today's field, `status` the older one; both are in use, as are both sets of names.
CODE_FIELDS = ("code", "status", "type")
KIND_BY_CODE: Mapping[str, FailureKind] = {
    "quota_exceeded": FailureKind.QUOTA,
    "insufficient_credits": FailureKind.QUOTA,
    "payment_required": FailureKind.QUOTA,
    "invalid_api_key": FailureKind.AUTH,
    "missing_api_key": FailureKind.AUTH,
    "missing_permissions": FailureKind.AUTH,
    "detected_unusual_activity": FailureKind.AUTH,
    "system_busy": FailureKind.RATE_LIMIT,
    "concurrent_limit_exceeded": FailureKind.RATE_LIMIT,
    "too_many_concurrent_requests": FailureKind.RATE_LIMIT,
    "rate_limit_exceeded": FailureKind.RATE_LIMIT,
    "content_against_policy": FailureKind.POLICY,
    "max_character_limit_exceeded": FailureKind.INVALID,
    "text_too_long": FailureKind.INVALID,
    "voice_not_found": FailureKind.INVALID,
    "model_not_found": FailureKind.INVALID,
    "invalid_parameters": FailureKind.INVALID,
}


class ElevenLabs(Synchronous):
    name = "elevenlabs"
    base_url = "https://api.elevenlabs.io/v1"
    models: Mapping[str, str] = {
        "audio": "eleven_multilingual_v2",
        "voice": "JBFqnCBsd6RMkjVDRZzb",
    }

    def model(self, task: Task, account: Account) -> str:
        if not isinstance(task, MediaTask) or task.medium != "audio":
            raise invalid(self.name, "only speech is made here")
        model = task.model or account.models.get("audio")
        if not model:
            raise invalid(self.name, "no model is named, and none is configured for audio")
        return model

    def check(self, task: Task, account: Account, prices: PriceTable) -> None:
        model = self.model(task, account)
        problem = _problem(_media(task), model, account)
        if problem:
            raise invalid(self.name, problem)
        prices.of(self.name, model)

    def estimate(self, task: Task, model: str, prices: PriceTable) -> Decimal:
        return prices.of(self.name, model).character * _credits(_media(task), model) / THOUSAND

    def cost(self, model: str, state: State, prices: PriceTable, task: Task | None) -> Decimal:
        """By what the answer counted; where it didn't tell, by the length of the text."""
        if not state.usage.characters and task is not None:
            return self.estimate(task, model, prices)
        return prices.of(self.name, model).character * state.usage.characters / THOUSAND

    def submit(self, task: Task, account: Account) -> Request:
        media = _media(task)
        url = f"{account.base_url}/text-to-speech/{_voice(media, account)}"
        headers = account.over({"xi-api-key": account.api_key})
        body = _body(media, self.model(task, account))
        return Request("POST", f"{url}?output_format={_format(media)}", headers, body)

    def parse(self, _op: Op, response: Response) -> State:
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if not response.body or not kind.startswith(("audio/", "application/octet-stream")):
            raise Garbled(f"{len(response.body)} bytes of {kind or 'nothing named'}, not a sound")
        return State(
            phase="succeeded",
            external_id=response.headers.get("request-id") or None,
            outputs=(RemoteOutput(data=response.body),),
            usage=Usage(characters=_counted(response), items=1),
            metadata={"content_type": kind},
        )

    def classify(self, op: Op, response: Response) -> Failure:
        detail = _detail(response)
        names = [str(detail.get(field) or "") for field in CODE_FIELDS]
        return failure_of(
            op,
            response,
            provider=self.name,
            kind=next((KIND_BY_CODE[name] for name in names if name in KIND_BY_CODE), None),
            code=next(filter(None, names), ""),
            message=str(detail.get("message") or ""),
        )


# --------------------------------------------------------------------------- requests


def _media(task: Task) -> MediaTask:
    assert isinstance(task, MediaTask), "`model` refuses the others"
    return task


def _problem(task: MediaTask, model: str, account: Account) -> str | None:
    longest = LONGEST.get(model)
    if not task.prompt.strip():
        return "there is no text to speak"
    if longest is not None and len(task.prompt) > longest:
        return f"{model} speaks at most {longest} characters, not {len(task.prompt)}"
    if task.images:
        return "speech is made of text, not of images"
    if task.duration_seconds is not None:
        return "speech is as long as its text: a duration can't be asked for"
    if not VOICE_ID.fullmatch(_voice(task, account)):
        return f"a voice must be an id of the vendor's, not {_voice(task, account)[:80]!r}"
    if not OUTPUT_FORMAT.fullmatch(_format(task)):
        return f"the output format must be like {DEFAULT_FORMAT}, not {_format(task)[:80]!r}"
    if not isinstance(task.options.get("voice_settings", {}), dict):
        return "voice_settings must be an object"
    return _out_of_range({**task.options, **_settings(task)})


def _out_of_range(options: Mapping[str, Any]) -> str | None:
    for name, (lowest, highest) in RANGES.items():
        value = options.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"{name} must be a number, not {value!r}"
        if not lowest <= value <= highest:
            return f"{name} must be between {lowest} and {highest}, not {value}"
    return None


def _voice(task: MediaTask, account: Account) -> str:
    return str(task.options.get("voice") or account.models.get("voice", ""))


def _format(task: MediaTask) -> str:
    return str(task.options.get("output_format") or DEFAULT_FORMAT)


def _settings(task: MediaTask) -> dict[str, Any]:
    named = {name: task.options[name] for name in VOICE if name in task.options}
    return {**task.options.get("voice_settings", {}), **named}


def _body(task: MediaTask, model: str) -> dict[str, Any]:
    elsewhere = {*VOICE, *IN_URL, "voice_settings"}
    given = {key: value for key, value in task.options.items() if key not in elsewhere}
    settings = _settings(task)
    voice = {"voice_settings": settings} if settings else {}
    return {**given, **voice, "text": task.prompt, "model_id": model}


def _credits(task: MediaTask, model: str) -> int:
    rate = Decimal("0.5") if HALF_PRICED.search(model) else Decimal(1)
    return int((rate * len(task.prompt)).to_integral_value(ROUND_CEILING))


# --------------------------------------------------------------------------- responses


def _counted(response: Response) -> int:
    """0 where it isn't told: a sound that is here is not thrown away for a bad header."""
    try:
        counted = Decimal(response.headers.get("character-cost", "0"))
    except InvalidOperation:
        return 0
    fair = counted.is_finite() and counted > 0
    return int(counted.to_integral_value(ROUND_CEILING)) if fair else 0


def _detail(response: Response) -> Mapping[str, Any]:
    """An object with a code, bare words, or the list in which a validator names the fields."""
    try:
        detail = response.object().get("detail")
    except Garbled:
        return {}
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):
        where = ".".join(str(part) for part in detail[0].get("loc") or ())
        return {"message": f"{where}: {detail[0].get('msg')}"}
    if isinstance(detail, dict):
        return detail
    return {"message": detail if isinstance(detail, str) else ""}
