"""What `generateContent` answers: candidates of parts, or why there are none."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jobs.contract import Failure, FailureKind, Usage
from jobs.providers.adapter import RemoteOutput, State
from jobs.providers.texts import unusable

POLICY = (
    "SAFETY",
    "RECITATION",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT",
    "IMAGE_RECITATION",
    "MODEL_ARMOR",
    "JAILBREAK",
    "ESCALATION",
)
# With these, whatever else came along is not what was asked for.
KIND_BY_FINISH: Mapping[str, FailureKind] = {
    **dict.fromkeys(POLICY, FailureKind.POLICY),
    "LANGUAGE": FailureKind.INVALID,
    "PUP_LIMITED_DISABLED": FailureKind.AUTH,  # the account is limited for what it asked for
    "NO_IMAGE": FailureKind.UNKNOWN,
    "IMAGE_OTHER": FailureKind.UNKNOWN,
    "MALFORMED_RESPONSE": FailureKind.UNKNOWN,
}
CUT = ("MAX_TOKENS", "CONTINUATION")


def state_of(provider: str, body: Mapping[str, Any]) -> State:
    candidates: Sequence[Mapping[str, Any]] = body.get("candidates") or ()
    blocked = (body.get("promptFeedback") or {}).get("blockReason") if not candidates else None
    # A blocked prompt may come without any figures; an answer may not.
    counts = body.get("usageMetadata") or {} if blocked else body["usageMetadata"]
    finish = str(candidates[0].get("finishReason") or "") if candidates else ""
    parts = [part for candidate in candidates for part in _parts(candidate)]
    text = "".join(part["text"] for part in parts if "text" in part)
    outputs = tuple(_inline(part["inlineData"]) for part in parts if "inlineData" in part)
    told = candidates[0].get("finishMessage") if candidates else None
    failure = _prompt_blocked(provider, blocked) or _ended_badly(provider, finish, told)
    if failure is None and not outputs:
        failure = unusable(provider, text, cut=finish in CUT)
    return State(
        phase="failed" if failure else "succeeded",
        external_id=str(body["responseId"]) if body.get("responseId") else None,
        text=text,
        outputs=outputs,
        usage=_usage(counts, len(outputs)),
        failure=failure,
        metadata={
            "finish_reason": str(blocked) if blocked else finish,
            "model": body.get("modelVersion"),
            "image_tokens": _image_tokens(counts) if outputs else 0,
        },
    )


def _parts(candidate: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Without the thoughts, which may hold drafts of the text and even of the image."""
    for part in (candidate.get("content") or {}).get("parts") or ():
        if not part.get("thought"):
            yield part


def _inline(data: Mapping[str, Any]) -> RemoteOutput:
    try:
        return RemoteOutput(data=base64.b64decode(data["data"], validate=True))
    except binascii.Error as error:
        raise ValueError("inline data that is not base64") from error


def _prompt_blocked(provider: str, reason: Any) -> Failure | None:
    if not reason:
        return None
    message = f"the prompt was blocked: {reason}"
    return Failure(FailureKind.POLICY, message, str(reason), provider, accepted="yes")


def _ended_badly(provider: str, finish: str, told: Any) -> Failure | None:
    kind = KIND_BY_FINISH.get(finish)
    if kind is None:
        return None
    message = str(told or f"the answer was ended: {finish}")[:500]
    return Failure(kind, message, finish, provider, accepted="yes")


def _usage(counts: Mapping[str, Any], items: int) -> Usage:
    return Usage(
        input_tokens=_count(counts, "promptTokenCount") + _count(counts, "toolUsePromptTokenCount"),
        output_tokens=_count(counts, "candidatesTokenCount") + _count(counts, "thoughtsTokenCount"),
        cached_tokens=_count(counts, "cachedContentTokenCount"),
        items=items,
    )


def _image_tokens(counts: Mapping[str, Any]) -> int:
    """Without details all that isn't thought is taken for the image: the dearer way."""
    details = counts.get("candidatesTokensDetails")
    if details is None:
        return _count(counts, "candidatesTokenCount")
    return sum(_count(item, "tokenCount") for item in details if item["modality"] == "IMAGE")


def _count(counts: Mapping[str, Any], name: str) -> int:
    """A count of zero is left out."""
    return int(counts.get(name) or 0)
