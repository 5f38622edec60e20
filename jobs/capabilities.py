"""What a platform says its models can do.

No form is laid down, so it is read as it may be meant: an object of names that are true or false,
or a list of names. Only a clear no counts; what isn't said is the provider's to judge, and its
refusal costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

TEXT = {"text", "textgeneration", "generation", "chat", "chatcompletion", "chatcompletions"}
TEXT |= {"completion", "completions"}
NO_TEXT = {"embedding", "embeddings", "moderation", "transcription", "speech", "tts", "rerank"}
"""What models are for that write nothing."""
SYSTEM = {"system", "systemprompt", "systemprompts", "systemmessage", "systemmessages"}
TEMPERATURE = {"temperature"}


class Capabilities:
    def __init__(self, stated: object) -> None:
        said = _said(stated)
        self._yes = {name for name, value in said.items() if value}
        self._no = said.keys() - self._yes

    def without(self, names: set[str]) -> bool:
        """It says no, under one of these names, and yes under none."""
        return bool(self._no & names) and not self._yes & names

    @property
    def writes_no_text(self) -> bool:
        return self.without(TEXT) or (bool(self._yes) and self._yes <= NO_TEXT)


def _said(stated: object) -> dict[str, bool]:
    if isinstance(stated, Mapping):
        return {_bare(name): value for name, value in stated.items() if isinstance(value, bool)}
    if isinstance(stated, list):
        return {_bare(name): True for name in stated if isinstance(name, str)}
    return {}


def _bare(name: object) -> str:
    """`text-generation`, `textGeneration` and `Text_Generation` are one."""
    return "".join(c for c in str(name).lower() if c.isalnum())
