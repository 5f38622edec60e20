"""What media providers have in common: which model a task runs on, and what any of them needs."""

from __future__ import annotations

import re

from jobs.contract import MediaTask, Task
from jobs.providers.adapter import Account
from jobs.providers.errors import invalid

RATIO = re.compile(r"[1-9]\d{0,3}:[1-9]\d{0,3}")


def media_model(provider: str, task: Task, account: Account, media: tuple[str, ...]) -> str:
    """Raises `ProviderError` for a task this provider has no model for."""
    if not isinstance(task, MediaTask) or task.medium not in media:
        raise invalid(provider, f"only {' and '.join(media)} can be made here")
    model = task.model or account.models.get(task.medium)
    if not model:
        raise invalid(provider, f"no model is named, and none is configured for {task.medium}")
    return model


def as_media(task: Task) -> MediaTask:
    assert isinstance(task, MediaTask), "`media_model` refuses the others"
    return task


def problem_of_media(task: MediaTask, schemes: tuple[str, ...]) -> str | None:
    """Why no model of this provider could make it. `schemes`: what its images may begin with."""
    if not task.prompt.strip() and not task.images:
        return "there is neither a prompt nor an image"
    if task.duration_seconds is not None and task.duration_seconds < 1:
        return f"the duration must be at least a second, not {task.duration_seconds}"
    if task.aspect_ratio and not RATIO.fullmatch(task.aspect_ratio):
        return f"the aspect ratio must be like 16:9, not {task.aspect_ratio!r}"
    for image in task.images:
        if not image.startswith(schemes):
            return f"an image must begin with {' or '.join(schemes)}, not {image[:80]!r}"
    return None
