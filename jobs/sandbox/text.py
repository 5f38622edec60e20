"""Texts and vectors that are the same for the same prompt and seed."""

from __future__ import annotations

import hashlib
import math
import random
import re

MARKS = re.compile(r"\s*\[(?:job|fault):[^\]]*\]")
WORD = re.compile(r"[^\W\d_]{4,}")
BYTES_PER_TOKEN = 4

OPENERS = (
    "At first glance, {a} seems to be a small matter.",
    "Every account of {a} begins somewhere, and this one begins with {b}.",
    "There is an old way of looking at {a}, and a newer one that starts from {b}.",
    "Before anything else it helps to see how {a} and {b} belong together.",
)
SENTENCES = (
    "Those who have spent years with {a} will say that {b} matters more than it first appears.",
    "Light falls differently on {a} once {b} has been understood.",
    "Nothing about {a} is hurried; it takes its shape slowly, through {b} and through patience.",
    "In the end {a} asks a plain question, and {b} is part of the answer.",
    "A reader who knows only {b} will miss half of what {a} has to offer.",
    "It is worth pausing here, because {a} rarely comes without {b}.",
    "Seen from a distance, {b} is quiet, but up close {a} gives it a voice.",
    "What remains is a memory of {a}, a little worn at the edges, and the certainty of {b}.",
    "Few things change {a} as thoroughly as {b} does.",
    "Without {b}, the story of {a} would be shorter and much less interesting.",
)
CLOSERS = (
    "That is why {a} deserves a second look.",
    "So {a} and {b} meet again, on better terms than before.",
    "What comes next depends on {b}.",
)


def count_tokens(text: str) -> int:
    """About four bytes to a token, as a rule of thumb has it for English."""
    return math.ceil(len(text.encode()) / BYTES_PER_TOKEN)


def clip(text: str, tokens: int) -> str:
    return text.encode()[: tokens * BYTES_PER_TOKEN].decode(errors="ignore")


def dice(*parts: object) -> random.Random:
    """Random numbers that depend on nothing but `parts`."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return random.Random(int.from_bytes(digest[:8]))


def without_marks(prompt: str) -> str:
    return MARKS.sub("", prompt)


def compose(prompt: str, seed: object) -> str:
    """Several paragraphs around the words of the prompt."""
    prompt = without_marks(prompt)
    chance = dice(seed, prompt)
    topics = list(dict.fromkeys(word.lower() for word in WORD.findall(prompt)))
    topics = topics if len(topics) > 1 else [*topics, "the subject", "its surroundings"]
    return "\n\n".join(paragraph(chance, topics) for _ in range(chance.randint(3, 5)))


def paragraph(chance: random.Random, topics: list[str]) -> str:
    middle = chance.sample(SENTENCES, chance.randint(3, 5))
    sentences = [chance.choice(OPENERS), *middle, chance.choice(CLOSERS)]
    return " ".join(fill(sentence, *chance.sample(topics, 2)) for sentence in sentences)


def fill(sentence: str, a: str, b: str) -> str:
    text = sentence.format(a=a, b=b)
    return text[0].upper() + text[1:]


def embed(text: str, dimensions: int, seed: object) -> list[float]:
    """A unit vector. Texts that share words lie near each other, as with a real model."""
    noise = dice(seed, text)
    vector = [noise.uniform(-0.02, 0.02) for _ in range(dimensions)]
    for word in WORD.findall(text.lower()):
        digest = hashlib.blake2b(f"{seed}:{word}".encode(), digest_size=24).digest()
        for at in range(0, 24, 4):
            number = int.from_bytes(digest[at : at + 4])
            vector[(number >> 1) % dimensions] += 1.0 if number & 1 else -1.0
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector]
