"""The ElevenLabs protocol: text to speech, answered at once with the sound.

Not built: PCM and the telephone codecs, streaming, timestamps, the list of voices. Any voice id of
letters and digits is known here, but one that begins with `missing`.
"""

from __future__ import annotations

import re
import secrets
from decimal import Decimal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.sandbox.faults import UnknownFaultError
from jobs.sandbox.formats import sound_as
from jobs.sandbox.gate import BAD_KEY, Gate, RefusalError, account_of, json_object
from jobs.sandbox.media import Picture, render
from jobs.sandbox.prices import SPEECH_PRICES, billed_characters, speech_cents
from jobs.sandbox.text import dice, without_marks
from jobs.sandbox.vendors.elevenlabs_errors import (
    error,
    no_such_model,
    no_such_path,
    no_such_voice,
    refuse,
    validation_error,
)

VOICE = re.compile(r"(?!missing)[A-Za-z0-9]+")
FORMATS = (
    "mp3_22050_32", "mp3_24000_48", "mp3_44100_32", "mp3_44100_64", "mp3_44100_96",
    "mp3_44100_128", "mp3_44100_192", "opus_48000_32", "opus_48000_64", "opus_48000_96",
    "opus_48000_128", "opus_48000_192", "wav_8000", "wav_16000", "wav_22050", "wav_24000",
    "wav_32000", "wav_44100", "wav_48000",
)  # fmt: skip
DEFAULT_FORMAT = "mp3_44100_128"
MIME = {"mp3": "audio/mpeg", "opus": "audio/ogg", "wav": "audio/wav"}
LONGEST = {"eleven_multilingual_v2": 10_000, "eleven_flash_v2_5": 40_000}
CHARACTERS_PER_SECOND = 15
MAX_SECONDS = 4  # of sound, whatever the text: it only has to be real


class VoiceSettings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    stability: float | None = Field(None, ge=0, le=1)
    similarity_boost: float | None = Field(None, ge=0, le=1)
    style: float | None = Field(None, ge=0, le=1)
    speed: float | None = Field(None, ge=0.7, le=1.2)
    clone_strength: float | None = Field(None, ge=0, le=1)
    use_speaker_boost: bool | None = None


class SpeechRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    text: str = Field(min_length=1)
    model_id: str = "eleven_multilingual_v2"
    voice_settings: VoiceSettings | None = None
    language_code: str | None = None
    seed: int | None = Field(None, ge=0, le=4294967295)
    previous_text: str | None = None
    next_text: str | None = None
    apply_text_normalization: str | None = Field(None, pattern="^(auto|on|off)$")


class ElevenLabs:
    name = "elevenlabs"
    refuse = staticmethod(refuse)

    def __init__(self, gate: Gate, seed: int) -> None:
        self._gate = gate
        self._seed = seed

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/elevenlabs/v1/text-to-speech/{voice}", self.speak)]

    def no_such_path(self, _: web.Request) -> web.Response:
        return no_such_path()

    def close(self) -> None:
        pass

    async def speak(self, request: web.Request) -> web.StreamResponse:
        key = authenticated(request)
        body = await asked(request)
        voice, suffix, rate = request.match_info["voice"], *sound_format(request)
        if not VOICE.fullmatch(voice):
            raise RefusalError(no_such_voice(voice))

        def work(twist: str | None) -> web.Response:
            if twist == "policy":
                return refuse("policy", 0)
            if twist is not None:
                raise UnknownFaultError(f"fault {twist!r} means nothing to speech")
            name, characters = self._charge(body, account_of(key))
            sound = sound_as(suffix, render(self._picture(body, voice)), rate, name)
            headers = {"request-id": name, "character-cost": str(characters)}
            return web.Response(body=sound, content_type=MIME[suffix], headers=headers)

        return await self._gate.answer(request, "submit", body.text, refuse, work)

    def _charge(self, body: SpeechRequest, account: str) -> tuple[str, int]:
        """The name the answer gets, and what it was billed for."""
        name, price = secrets.token_urlsafe(15), SPEECH_PRICES[body.model_id]
        characters = billed_characters(price, body.text)
        self._gate.bill.charge(
            provider="elevenlabs", operation="text-to-speech", model=body.model_id,
            cents=speech_cents(price, characters),
            words=body.text, external_id=name, account=account,
        )  # fmt: skip
        return name, characters

    def _picture(self, body: SpeechRequest, voice: str) -> Picture:
        """The same for the same words, voice and seed."""
        text = without_marks(body.text)
        seconds = min(1 + len(text) // CHARACTERS_PER_SECOND, MAX_SECONDS)
        look = dice(self._seed, body.seed, voice, text).randrange(6)
        return Picture("audio", 0, 0, Decimal(seconds), look)


def authenticated(request: web.Request) -> str:
    key = request.headers.get("xi-api-key", "")
    if not key or key == BAD_KEY:
        raise RefusalError(refuse("auth", 0))
    return key


async def asked(request: web.Request) -> SpeechRequest:
    body = await json_object(request)
    try:
        read = SpeechRequest.model_validate(body)
    except ValidationError as problem:
        raise RefusalError(validation_error(problem)) from None
    if read.model_id not in SPEECH_PRICES:
        raise RefusalError(no_such_model(read.model_id))
    longest = LONGEST[read.model_id]
    if len(read.text) > longest:
        message = f"A text of {len(read.text)} characters exceeds the limit of {longest}."
        code = "max_character_limit_exceeded"
        raise RefusalError(error(400, code, message, kind="validation_error"))
    return read


def sound_format(request: web.Request) -> tuple[str, int]:
    """Its name and its samples per second."""
    asked_for = request.query.get("output_format", DEFAULT_FORMAT)
    if asked_for not in FORMATS:
        message = f"Output format {asked_for!r} is not one of those there are."
        raise RefusalError(error(400, "invalid_output_format", message, kind="validation_error"))
    name, rate = asked_for.split("_")[:2]
    return name, int(rate)
