"""Messages of services without access to the database: submit, cancel, retry, priority, get.

A message is a name and fields; its answer is JSON, `{"ok": true, …}` or `{"ok": false, "error":
"what to mend"}`. Each does one thing in one statement and may be repeated: a submit under the same
row id puts in nothing twice. An outage of Postgres is no answer (`Unavailable` passes): whoever
delivers the message tries again later.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from worker.coordination import Coordination
from worker.maps import Source
from worker.store import Store, StoreError, Unavailable, acts, explaining, finding
from worker.store import inbox as rows
from worker.store.acts import WrongPriority
from worker.store.finding import Found, UnknownName

Answer = dict[str, Any]
WHO = "arq"
"""How `rowmill.actions` calls the senders of messages."""


ADVICE = (
    "Rowmill reads JSON, never pickle. Connect with "
    "arq.create_pool(..., job_serializer=rowmill_json, job_deserializer=json.loads), where "
    "rowmill_json is: lambda message: json.dumps(message, default=str).encode()"
)


class Refusal(Exception):
    """The message can't be done as it is."""


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class Submit(Message):
    source: str
    row: dict[str, Any] = Field(min_length=1)
    """Column → value; the key column is among them, so that a repeat is recognised."""


class Reference(Message):
    id: str
    source: str | None = None

    @property
    def text(self) -> str:
        return f"{self.source}/{self.id}" if self.source else self.id


class Priority(Reference):
    to: str


@dataclass(frozen=True, slots=True)
class Inbox:
    store: Store
    coordination: Coordination

    async def answer(self, name: str, args: Sequence[Any], fields: Mapping[str, Any]) -> Answer:
        """Do what a message says; everything that is wrong with it comes back in words."""
        try:
            if args:
                return _no(f"give the fields of {name} by name, not by position")
            return await _HANDLERS[name](self, fields)
        except ValidationError as error:
            return _no(_explain(name, error))
        except (Refusal, UnknownName, WrongPriority) as error:
            return _no(str(error))
        except Unavailable:
            raise
        except StoreError as error:
            return _no(f"the database refuses it: {error}")

    # ------------------------------------------------------------------ messages

    async def submit(self, fields: Mapping[str, Any]) -> Answer:
        message = Submit.model_validate(fields)
        table = await rows.job_table(self.store, message.source)
        _check(table, message.row)
        inserted = await rows.insert(self.store, table, message.row)
        if not inserted.exists:
            raise Refusal(f"{table.source.table} took the row without keeping it: see its triggers")
        return _yes(Found(message.source, inserted.key), created=inserted.created)

    async def cancel(self, fields: Mapping[str, Any]) -> Answer:
        job = await self._find(fields)
        verdict = await acts.cancel(self.store, job.source, job.key, WHO)
        return _verdict(job, verdict, done={"cancelled"})

    async def retry(self, fields: Mapping[str, Any]) -> Answer:
        job = await self._find(fields)
        verdict = await acts.retry(self.store, job.source, job.key, WHO)
        return _verdict(job, verdict, done={"requeued", "released", "hastened"})

    async def priority(self, fields: Mapping[str, Any]) -> Answer:
        message = Priority.model_validate(fields)
        job = await finding.find_one(self.store, message.text, exact=True)
        (info,) = [s for s in await self.store.sources() if s.name == job.source]
        to = acts.priority_value(info, message.to)
        did = await acts.prioritise(self.store, job.source, job.key, to, WHO)
        return _verdict(job, did.verdict, done={"moved", "noted"})

    async def get(self, fields: Mapping[str, Any]) -> Answer:
        job = await self._find(fields)
        table = await rows.job_table(self.store, job.source)
        row = await finding.platform_row(self.store, table.info, job.key)
        if row is None:
            raise Refusal(f"the row of {job.subject} is gone")
        return await self._report(job, table.source, row.data)

    # ------------------------------------------------------------------ parts of answers

    async def _find(self, fields: Mapping[str, Any]) -> Found:
        message = Reference.model_validate(fields)
        return await finding.find_one(self.store, message.text, exact=True)

    async def _report(self, job: Found, source: Source, row: Mapping[str, Any]) -> Answer:
        words = source.status
        status = row.get(words.column) or words.default
        unfinished = status in (*words.ready, words.running)
        answer = _yes(job, status=status, progress=rows.field_of(source, row, "progress"))
        if status == words.running:
            fine = await self.coordination.progress(job.source, job.key)
            answer["progress"] = max(answer["progress"] or 0, fine or 0)
        if status == words.succeeded:
            answer["outputs"] = await rows.outputs(self.store, job.source, job.key)
        answer["error"] = rows.field_of(source, row, "error")
        told = await explaining.explain(self.store, job.source, job.key) if unfinished else None
        answer["why"], answer["explanation"] = told and told["why"], told
        return {**answer, "row": dict(row)}


_HANDLERS: dict[str, Callable[[Inbox, Mapping[str, Any]], Awaitable[Answer]]] = {
    "submit": Inbox.submit,
    "cancel": Inbox.cancel,
    "retry": Inbox.retry,
    "priority": Inbox.priority,
    "get": Inbox.get,
}
MESSAGES = tuple(_HANDLERS)


def _yes(job: Found, **more: Any) -> Answer:
    return {"ok": True, "source": job.source, "id": job.key, **more}


def _no(error: str) -> Answer:
    return {"ok": False, "error": error}


def _verdict(job: Found, verdict: str, *, done: set[str]) -> Answer:
    if verdict in done:
        return _yes(job, result=verdict)
    reason = _WHY_NOT.get(verdict)
    return {**_no(f"{job.subject}: {reason or f'it is {verdict}'}"), "result": verdict}


_WHY_NOT = {
    "missing": "its row is gone",
    "running": "it is running",
    "unqueued": "it isn't queued yet",
}


def _check(table: rows.JobTable, row: Mapping[str, Any]) -> None:
    """What would make a second submit a second job, or a row that is no job."""
    source, words = table.source, table.source.status
    if row.get(source.key) is None:
        raise Refusal(
            f"row.{source.key} is missing: choose the row's id yourself, and repeat a message "
            "that had no answer under the same id"
        )
    unknown = sorted(set(row) - set(table.columns))
    if unknown:
        raise Refusal(
            f"{source.table} has no column {', '.join(unknown)}; it has {', '.join(table.columns)}"
        )
    if words.column in row and row[words.column] not in words.ready:
        raise Refusal(f"row.{words.column} must be {' or '.join(words.ready)}, or left out")


def _explain(name: str, error: ValidationError) -> str:
    problems = (
        f"{'.'.join(map(str, problem['loc'])) or 'fields'}: {problem['msg']}"
        for problem in error.errors()
    )
    return f"{name}: " + "; ".join(problems)


# --------------------------------------------------------------------------- on the wire


class UnreadableMessage(ValueError):
    pass


class PickledMessage(UnreadableMessage):
    pass


class Envelope(BaseModel):
    """What arq trusts blindly in a message, and would stop its loop over."""

    model_config = ConfigDict(extra="allow", strict=True)

    f: str
    a: list[Any]
    k: dict[str, Any]
    t: int | None = Field(ge=0, le=1000)
    et: int = Field(ge=0, le=253_402_300_799_000)


def deserialize(data: bytes) -> dict[str, Any]:
    """What arq knows of a message or a result. Unpickling would run whatever its sender likes."""
    if data[:1] == pickle.PROTO:
        raise PickledMessage(f"the message is pickled. {ADVICE}")
    try:
        message: dict[str, Any] = json.loads(data)
        Envelope.model_validate(message)
    except (ValueError, RecursionError) as error:
        wrong = "its shape is wrong" if isinstance(error, ValidationError) else "it isn't JSON"
        raise UnreadableMessage(f"the message can't be read: {wrong}. {ADVICE}") from error
    return message


def serialize(data: dict[str, Any]) -> bytes:
    """JSON, errors as words. Who sent a pickle is told so in a pickle: it can read nothing else."""
    result = data.get("r")
    if isinstance(result, BaseException):
        data = {**data, "r": _words(result)}
        if isinstance(result.__cause__, PickledMessage):
            return pickle.dumps(data)
    return json.dumps(data, default=str).encode()


def _words(error: BaseException) -> str:
    if isinstance(error.__cause__, UnreadableMessage):
        return str(error.__cause__)
    return f"{type(error).__name__}: {error}"
