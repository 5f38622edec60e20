"""Embedding of a chapter or a project: one vector for the whole text, however long it is."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import chain
from typing import Literal
from uuid import UUID

from pydantic import Field

from jobs.contract import (
    CallResult,
    Context,
    EmbedTask,
    Failed,
    Job,
    Outcome,
    Succeeded,
)
from jobs.payload import Payload, invalid, no_content, takes, useless
from jobs.registry import kind

PROVIDER = "openai"
DEFAULT_MODEL = "text-embedding-3-small"
DIMENSIONS = {"text-embedding-3-large": 1536}
"""Models whose vectors must be asked for shorter, to fit the column that all models share."""
CHUNK = 6000
"""Characters. Below the provider's 8192 tokens per text in any language."""
BATCH = 32
"""Chunks per call. Below the provider's 300,000 tokens per call."""


class EmbedPayload(Payload):
    content_type: Literal["chapter", "project", "summary"]
    content_id: UUID
    model: str = Field(DEFAULT_MODEL, min_length=1)


class EmbedInput(Payload):
    payload: EmbedPayload
    content_text: str | None = None


@kind("background:embed_content", timeout=600)
@takes(EmbedInput)
async def embed_content(_job: Job, ctx: Context, given: EmbedInput) -> Outcome:
    """Make the embedding of a chapter's or a project's text."""
    if given.content_text is None:
        return no_content(given.payload.content_type, given.payload.content_id)
    chunks = await ctx.offload(split, given.content_text)
    if not chunks:
        return invalid("content_text: there is no text to embed")
    batches = [tuple(chunks[at : at + BATCH]) for at in range(0, len(chunks), BATCH)]
    results: list[CallResult] = []
    for batch in batches:
        result = await ctx.call(_step(batch), PROVIDER, _task(given.payload.model, batch))
        if len(result.vectors) != len(batch):
            return _incomplete(result, len(batch))
        results.append(result)
        ctx.progress(100 * len(results) / len(batches))
    vectors = list(chain.from_iterable(result.vectors for result in results))
    if len({len(vector) for vector in vectors}) != 1:
        return _incomplete(results[0], len(chunks))
    embedding = await ctx.offload(average, vectors, [len(chunk) for chunk in chunks])
    return _succeeded(given.payload, results, embedding, len(chunks))


def _step(batch: Sequence[str]) -> str:
    """Named by its text, so that a retry finds what it paid for.

    A text edited in between is new work; a numbered step would return the old one's vectors.
    """
    digest = hashlib.sha256("\0".join(batch).encode()).hexdigest()
    return f"embed-{digest[:16]}"


def _task(model: str, batch: tuple[str, ...]) -> EmbedTask:
    return EmbedTask(model=model, texts=batch, dimensions=DIMENSIONS.get(model))


def _incomplete(result: CallResult, expected: int) -> Failed:
    message = f"{len(result.vectors)} vectors came back for {expected} texts, or of uneven length"
    return useless(result, message, "vectors")


def _succeeded(
    payload: EmbedPayload, results: list[CallResult], embedding: list[float], chunks: int
) -> Succeeded:
    return Succeeded(
        data={
            "content_id": str(payload.content_id),
            "content_type": payload.content_type,
            "model": payload.model,
            "embedding": embedding,
        },
        metadata={"chunks": chunks, "dimensions": len(embedding)},
        tokens=sum(result.usage.tokens for result in results),
        cost_cents=sum((result.cost_cents for result in results), Decimal(0)),
        provider=results[0].provider,
        model=results[0].model,
        external_id=results[0].external_id,
    )


# --------------------------------------------------------------------------- text and vectors


def split(text: str, limit: int = CHUNK) -> list[str]:
    """Whole paragraphs, as many as fit together; only a longer paragraph is cut."""
    chunks: list[str] = []
    for piece in _pieces(text, limit):
        if chunks and len(chunks[-1]) + len(piece) + 2 <= limit:
            chunks[-1] += f"\n\n{piece}"
        else:
            chunks.append(piece)
    return chunks


def _pieces(text: str, limit: int) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text):
        rest = paragraph.strip()
        while len(rest) > limit:
            end = _cut(rest, limit)
            yield rest[:end].rstrip()
            rest = rest[end:].lstrip()
        if rest:
            yield rest


def _cut(text: str, limit: int) -> int:
    """Behind the last sentence that fits, else the last word, else anywhere."""
    head = text[:limit]
    sentences = [match.end() for match in re.finditer(r"[.!?]\s+|[。！？]", head)]
    words = [match.end() for match in re.finditer(r"\s+", head)]
    return (sentences or words or [limit])[-1]


def average(vectors: Sequence[Sequence[float]], weights: Sequence[int]) -> list[float]:
    """The mean by length of text, at unit length like the vectors it is made of."""
    mean = [
        math.fsum(value * weight for value, weight in zip(column, weights, strict=True))
        for column in zip(*vectors, strict=True)
    ]
    norm = math.hypot(*mean)
    return [value / norm for value in mean] if norm else mean
