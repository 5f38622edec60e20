"""What a task made, brought into our storage. Downloads cost nothing, so they are repeated."""

from __future__ import annotations

from dataclasses import dataclass

from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from jobs.contract import FailureKind, MediaTask, Output, Task
from jobs.outputs import OutputError, OutputStore, RemoteFile
from jobs.providers.adapter import RemoteOutput, State
from jobs.providers.wire import Sleep

ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Keeper:
    store: OutputStore
    sleep: Sleep

    async def keep(self, state: State, task: Task, key_prefix: str) -> tuple[Output, ...]:
        """Raises `OutputError`. The key doesn't change, so a repeat overwrites only itself."""
        kept: list[Output] = []
        for index, output in enumerate(state.outputs):
            # The first is what was asked for; a model may add others (a mask, a sound track).
            medium = task.medium if isinstance(task, MediaTask) and index == 0 else None
            kept += await self._keep_one(output, key_prefix, index, medium)
        return tuple(kept)

    async def _keep_one(
        self, output: RemoteOutput, key_prefix: str, index: int, medium: str | None
    ) -> tuple[Output, ...]:
        item = RemoteFile(output.url, output.headers) if output.data is None else output.data
        retrying = AsyncRetrying(
            retry=retry_if_exception(_may_pass),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.5, max=10),
            sleep=self.sleep,
            reraise=True,
        )
        return await retrying(
            self.store.keep, item, key_prefix=key_prefix, index=index, expected=medium
        )


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, OutputError) and error.failure.kind is FailureKind.TRANSIENT
