"""What a paid answer brought by itself, put where a crash can't reach it before anyone looks at it.

A decoder may crash on its files, their thumbnails may not fit on the disk; by then they are in our
storage, and their cost is in the ledger. While the storage is down they are parked in the database.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs import failpoints
from jobs.contract import CallResult
from jobs.outputs import OutputError, OutputStore
from jobs.providers import results
from jobs.providers.adapter import RemoteOutput, State
from jobs.providers.journal import Journal


class Safe:
    def __init__(self, outputs: OutputStore) -> None:
        self._outputs = outputs

    async def put(
        self, journal: Journal, submission: int, state: State, bare: CallResult, prefix: str
    ) -> Mapping[str, Any]:
        """What the ledger has afterwards: the answer, its cost and where its files are."""
        files: list[dict[str, Any]] = []
        parked: list[bytes] = []
        for number, output in enumerate(state.outputs):
            if output.data is None:
                files.append({"url": output.url, "headers": dict(output.headers)})
                continue
            key = f"{prefix}/{number}.answer"
            try:
                await self._outputs.save(key, output.data)
                files.append({"key": key})
            except OutputError:
                files.append({"parked": len(parked)})
                parked.append(output.data)
        if parked:
            await journal.park(submission, parked)
        failpoints.reached("answer.away")
        value = results.to_json(bare, kept=False) | {"files": files}
        await journal.finished(submission, result=value, cost_cents=bare.cost_cents)
        return value

    async def state(self, journal: Journal, submission: int, value: Mapping[str, Any]) -> State:
        """What the provider answered then. Raises `OutputError` while the storage is down."""
        parked = await journal.parked(submission)
        bare = results.from_json(value)
        return State(
            phase="succeeded",
            external_id=bare.external_id,
            outputs=tuple([await self._output(file, parked) for file in value["files"]]),
            text=bare.text,
            vectors=bare.vectors,
            usage=bare.usage,
            metadata=bare.metadata,
        )

    async def _output(self, file: Mapping[str, Any], parked: list[bytes]) -> RemoteOutput:
        if "url" in file:
            return RemoteOutput(url=file["url"], headers=file["headers"])
        if "parked" in file:
            return RemoteOutput(data=parked[file["parked"]])
        return RemoteOutput(data=await self._outputs.load(file["key"]))

    async def drop(self, value: Mapping[str, Any]) -> None:
        """What is in its place now needs no second copy."""
        for file in value.get("files", ()):
            if "key" in file:
                await self._outputs.drop(file["key"])
