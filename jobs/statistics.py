"""Counts and readability of a chapter's or a project's text. Costs nothing.

Syllables are counted by two rules, tuned on 141 common English words: 130 right, one syllable short
in sum. Why by no library: docs/decisions/0012-readability-by-our-own-rules.md.
"""

from __future__ import annotations

import re
from typing import Any, Literal
from uuid import UUID

from jobs.contract import Context, Job, Outcome, Succeeded
from jobs.payload import Payload, no_content, takes
from jobs.registry import kind

WORD = re.compile(r"\w+(?:['’\-]\w+)*")
SENTENCE_END = re.compile(r"[.!?…]+(?=[\s\"'”’»)\]]|$)|[。！？]+")
VOWELS = re.compile(r"[aeiouyàâäáãåæéèêëíìîïóòôöõøœúùûü]+")
SILENT_END = re.compile(
    r"(?:[^aeiouyl]e|[aeiouy]le|[^aeiouytdl]ed|[aeiouy]led|[^aeiouyscxzghl]es|[aeiouy]les)$"
)
PARTED_VOWELS = re.compile(
    r"(?<![tscgl])i[aou](?!r)|i[ae]t[yi]|(?<![qg])u[ao]l|eo(?!p|u)|[aeouy]ing|[aeo]um"
    r"|ie(?:t|nt|nce)$|oe[mt]|rea[lt]|[rd]ea$"
)
PARAGRAPH_BREAK = re.compile(r"\n\s*\n")
LIMIT = 999.99
"""The largest score its column holds. A page without a full stop scores beyond any scale."""


class StatisticsPayload(Payload):
    content_type: Literal["chapter", "project"]
    content_id: UUID


class StatisticsInput(Payload):
    payload: StatisticsPayload
    content_text: str | None = None


@kind("background:content_statistics", timeout=60)
@takes(StatisticsInput)
async def content_statistics(_job: Job, ctx: Context, given: StatisticsInput) -> Outcome:
    """Count words and sentences, and score how easy the text is to read."""
    if given.content_text is None:
        return no_content(given.payload.content_type, given.payload.content_id)
    numbers = await ctx.offload(measure, given.content_text)
    content_id = str(given.payload.content_id)
    content_type = given.payload.content_type
    return Succeeded(data={"content_id": content_id, "content_type": content_type, **numbers})


def measure(text: str) -> dict[str, Any]:
    """The columns of `content_statistics`. A text without words has no readability."""
    words = WORD.findall(text)
    sentences = _sentences(text) if words else 0
    return {
        "word_count": len(words),
        "character_count": len(text),
        "sentence_count": sentences,
        "paragraph_count": sum(1 for part in PARAGRAPH_BREAK.split(text) if part.strip()),
        **_readability(words, sentences),
    }


def _sentences(text: str) -> int:
    """Parts that hold a word: a heading or a last line without a full stop counts as one."""
    return sum(1 for part in SENTENCE_END.split(text) if WORD.search(part))


def _readability(words: list[str], sentences: int) -> dict[str, float | None]:
    """Flesch's formulas. Made for English; on other languages they only compare like with like."""
    if not words:
        return {"flesch_reading_ease": None, "flesch_kincaid_grade": None}
    per_sentence = len(words) / sentences
    per_word = sum(_syllables(word.lower()) for word in words) / len(words)
    return {
        "flesch_reading_ease": _fit(206.835 - 1.015 * per_sentence - 84.6 * per_word),
        "flesch_kincaid_grade": _fit(0.39 * per_sentence + 11.8 * per_word - 15.59),
    }


def _fit(score: float) -> float:
    return round(max(-LIMIT, min(LIMIT, score)), 2)


def _syllables(word: str) -> int:
    """One per group of vowels, without silent endings, plus one where vowels part (`vide-o`)."""
    groups = len(VOWELS.findall(word)) - len(SILENT_END.findall(word))
    return max(1, groups + len(PARTED_VOWELS.findall(word)))
