"""`rowmill reconcile`: what a provider's own list tells about calls the ledger is unsure of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from jobs.contract import MediaTask
from jobs.providers.adapter import Op, Request, Response
from jobs.providers.charges import Charges
from jobs.providers.journal import State, Submission
from jobs.providers.prices import load_prices
from jobs.providers.registry import Provider, ProviderSettings, build_providers
from jobs.providers.transport import AiohttpTransport
from jobs.providers.wire import Wire
from tests.database.journaling import journal_of, ledger_rows
from tests.database.support import Connect, Hand, OpenStore, Work, add_videos, failure, queued
from tests.unit.vendor import Vendor, vendor_running
from worker.ledger import ClaimJournal, Lease, Ledger
from worker.reconciling import Reconciler
from worker.store import Store, acts

Row = dict[str, Any]
MODEL = "black-forest-labs/flux-1.1-pro"
BOAT = MediaTask("image", "A boat", model=MODEL)
SHIP = replace(BOAT, prompt="A ship")
LEASE, TIMEOUT = 30.0, 3.0
LONG_AGO = timedelta(minutes=10)


@dataclass
class Desk:
    connection: Any
    store: Store
    hand: Hand
    vendor: Vendor
    providers: dict[str, Provider]
    reconciler: Reconciler

    async def work(self) -> Work:
        await add_videos(self.connection)
        (work,) = await self.hand.take()
        return work

    async def sent(
        self, work: Work, task: MediaTask = BOAT, *, at: str = "replicate", **changes: Any
    ) -> Submission:
        """A request of this job of which nobody knows what became."""
        holder = self.providers[at]
        request = holder.adapter.submit(task, holder.account)
        given: Row = {
            "provider": at,
            "account": holder.account.name,
            "model": task.model,
            "estimate_cents": Decimal(4),
            "fingerprint": request.fingerprint(holder.account),
        }
        journal = self.journal(work)
        submission = await journal.intend("main", **{**given, **changes})
        await journal.unknown(submission.id, failure("cut off"))
        return submission

    def journal(self, work: Work) -> ClaimJournal:
        return journal_of(self.store, work, self.hand)

    def made(self, task: MediaTask = BOAT, **changes: Any) -> str:
        """A task at the provider."""
        item = self.vendor.add({"prompt": task.prompt}, MODEL)
        item |= changes
        return str(item["id"])

    async def ages(self, by: timedelta = LONG_AGO) -> None:
        """All that was done so far was done that much earlier."""
        await self.connection.execute(
            "UPDATE rowmill.submissions SET intended_at = intended_at - $1::interval,"
            " accepted_at = accepted_at - $1::interval",
            by,
        )
        for item in self.vendor.accepted:
            made = datetime.fromisoformat(item["created_at"]) - by
            item["created_at"] = made.isoformat()

    async def run(self, *, apply: bool = False, only: str | None = "replicate") -> Row:
        report = await self.reconciler.run(only, None, apply=apply)
        assert report["applied"] is apply
        return report

    async def one(self, *, apply: bool = False, provider: str = "replicate") -> Row:
        (report,) = (await self.run(apply=apply, only=provider))["providers"]
        return dict(report)

    async def verdicts(self, *, apply: bool = False, provider: str = "replicate") -> list[str]:
        return [d["verdict"] for d in (await self.one(apply=apply, provider=provider))["in_doubt"]]

    async def states(self) -> list[str]:
        return [row["state"] for row in await ledger_rows(self.connection)]


@pytest.fixture
async def desk(photomemory: str, connect: Connect, open_store: OpenStore) -> AsyncIterator[Desk]:
    connection, store = await connect(photomemory), await open_store(photomemory)
    async with (
        vendor_running() as vendor,
        httpx.AsyncClient(transport=AiohttpTransport(limit=5)) as client,
    ):
        at = ProviderSettings(
            base_url=f"{vendor.url}/v1", api_key=SecretStr("k"), request_timeout=TIMEOUT
        )
        providers = build_providers({"replicate": at, "runway": at})
        reconciler = Reconciler(
            store=store,
            journal=ClaimJournal(Ledger(store, Lease(LEASE)), queue_id=0, token=0, worker=0),
            providers=providers,
            wire=Wire(client),
            charges=Charges(load_prices()),
            lease=LEASE,
            resubmit_up_to=Decimal(1),
            who="tests",
        )
        hand = await Hand.hire(store, lease=LEASE)
        yield Desk(connection, store, hand, vendor, providers, reconciler)


# --------------------------------------------------------------------------- calls in doubt


async def test_what_the_provider_has_is_accepted_and_its_job_goes_on(desk: Desk) -> None:
    work = await desk.work()
    submission = await desk.sent(work)
    task = desk.made()
    await desk.hand.hold([work])
    (doubt,) = (await desk.one())["in_doubt"]
    assert (doubt["verdict"], doubt["external_id"], doubt["done"]) == ("found", task, False)
    assert (doubt["job"], doubt["queued"]) == (f"generation_jobs/{work.key}", "held")
    assert await desk.states() == ["unknown"], "without --apply nothing is changed"
    report = await desk.run(apply=True)
    assert report["left"] == 0
    assert report["providers"][0]["in_doubt"][0]["done"]
    (again,) = await desk.hand.take()
    resumed = await desk.journal(again).intend(
        "main",
        provider="replicate",
        account="default",
        model=MODEL,
        estimate_cents=Decimal(4),
        fingerprint="whatever it is now",
    )
    assert (resumed.id, resumed.fresh, resumed.state) == (submission.id, False, State.ACCEPTED)
    assert (resumed.external_id, resumed.ref) == (task, {"id": task})
    assert (await desk.one())["in_doubt"] == []
    assert len(desk.vendor.accepted) == 1


@pytest.mark.parametrize("how", ["cancelled", "failed", "deleted"])
async def test_calls_of_jobs_that_are_over_are_ended(desk: Desk, how: str) -> None:
    """Nobody else asks for them: one that is found is followed by maintenance, as any."""
    works = [await desk.work() for _ in range(2)]
    for work, task in zip(works, (BOAT, SHIP), strict=True):
        await desk.sent(work, task)
    desk.made(BOAT)
    if how == "failed":
        await desk.hand.fail(works)
    elif how == "deleted":
        await desk.connection.execute("DELETE FROM generation_jobs")
    else:
        await desk.connection.execute("UPDATE generation_jobs SET status = 'cancelled'")
    assert await desk.verdicts() == ["found", "waits"]
    await desk.ages()
    assert await desk.verdicts(apply=True) == ["found", "absent"]
    first, second = await ledger_rows(desk.connection)
    assert (first["state"], first["external_id"]) == ("accepted", "p1")
    assert (second["state"], second["cost_cents"]) == ("written_off", 0)
    assert await queued(desk.connection) == {}
    assert (await desk.run())["left"] == 0


async def test_not_there_counts_once_nobody_can_hear_of_it_any_more(desk: Desk) -> None:
    work = await desk.work()
    await desk.sent(work)
    await desk.hand.hold([work])
    await desk.ages(timedelta(seconds=LEASE))
    report = await desk.run(apply=True)
    assert [d["verdict"] for d in report["providers"][0]["in_doubt"]] == ["waits"]
    assert report["left"] == 0
    await desk.ages(timedelta(seconds=TIMEOUT))
    assert await desk.verdicts(apply=True) == ["absent"]
    assert await desk.states() == ["written_off"]
    assert (await queued(desk.connection))[work.key]["state"] == "ready"


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize(
    ("change", "state"),
    [
        ("state = 'finished', cost_cents = 4", "finished"),
        ("intended_at = clock_timestamp()", "unknown"),  # another one, which got the same number
    ],
)
async def test_who_was_quicker_keeps_the_word_and_nothing_is_done(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, change: str, state: str, *, there: bool
) -> None:
    work = await desk.work()
    await desk.sent(work)
    await desk.hand.hold([work])
    await desk.ages()
    if there:
        desk.made(created_at=(datetime.now(UTC) - LONG_AGO).isoformat())
    wire = desk.reconciler.wire
    ask = wire.ask

    async def meanwhile(provider: Provider, request: Request, op: Op) -> Response:
        await desk.connection.execute(f"UPDATE rowmill.submissions SET {change}")
        return await ask(provider, request, op)

    monkeypatch.setattr(wire, "ask", meanwhile)
    report = await desk.run(apply=True)
    (doubt,) = report["providers"][0]["in_doubt"]
    assert (doubt["verdict"], doubt["done"]) == ("found" if there else "absent", False)
    assert report["left"] > 0
    assert await desk.states() == [state]
    assert (await queued(desk.connection))[work.key]["state"] == "held"


async def test_a_worker_with_a_longer_lease_has_longer(desk: Desk) -> None:
    work = await desk.work()
    await desk.sent(work)
    await desk.hand.hold([work])
    await desk.ages()
    await desk.connection.execute("UPDATE rowmill.workers SET lease = '1 hour'")
    assert await desk.verdicts(apply=True) == ["waits"]
    assert await desk.states() == ["unknown"]


async def test_a_running_jobs_call_is_its_workers(desk: Desk) -> None:
    await desk.sent(await desk.work())
    desk.made()
    await desk.ages()
    report = await desk.one(apply=True)
    assert [d["verdict"] for d in report["in_doubt"]] == ["waits"]
    assert (report["strangers"]["count"], await desk.states()) == (0, ["unknown"])


async def test_equal_requests_get_a_task_each(desk: Desk) -> None:
    works = [await desk.work() for _ in range(3)]
    for work in works:
        await desk.sent(work)
    made = {desk.made(), desk.made()}
    await desk.hand.hold(works)
    await desk.ages()
    assert await desk.verdicts(apply=True) == ["found", "found", "absent"]
    rows = await ledger_rows(desk.connection)
    assert {row["external_id"] for row in rows} == made | {None}
    assert {job["state"] for job in (await queued(desk.connection)).values()} == {"ready"}


async def test_a_task_made_before_the_request_is_not_its(desk: Desk) -> None:
    work = await desk.work()
    desk.made()
    await desk.ages(timedelta(seconds=20))
    await desk.sent(work)
    await desk.hand.hold([work])
    report = await desk.one()
    assert [d["verdict"] for d in report["in_doubt"]] == ["waits"]


async def test_a_list_that_has_forgotten_decides_nothing(desk: Desk) -> None:
    held, over = [await desk.work() for _ in range(2)]
    await desk.sent(held)
    await desk.sent(over)
    desk.made(BOAT, input={}, data_removed=True)
    await desk.hand.hold([held])
    await desk.hand.fail([over])
    await desk.ages()
    report = await desk.run(apply=True)
    assert [d["verdict"] for d in report["providers"][0]["in_doubt"]] == ["person", "person"]
    assert f"rowmill resolve generation_jobs/{held.key}" in str(report)
    assert (await desk.states(), report["left"] > 0) == (["unknown", "unknown"], True)


async def test_where_nobody_can_be_asked_only_what_is_cheap_and_over_is_dropped(desk: Desk) -> None:
    works = [await desk.work() for _ in range(4)]
    for work, cents in zip(works, ("1", "4", "1", "1"), strict=True):
        await desk.sent(work, at="runway", estimate_cents=Decimal(cents), model="gen4.5")
    await desk.hand.fail(works[:2])
    await desk.hand.hold(works[2:3])
    await desk.hand.retry(works[3:])
    assert set(await desk.verdicts(provider="runway")) == {"waits"}
    await desk.ages()
    report = await desk.one(apply=True, provider="runway")
    verdicts = [d["verdict"] for d in report["in_doubt"]]
    assert verdicts == ["dropped", "person", "person", "waits"]
    assert (report["asked"], report["why"]) == ("no_list", "it can't be asked for its tasks")
    first, *others = await ledger_rows(desk.connection)
    assert (first["state"], first["cost_cents"]) == ("written_off", None), "nobody knows"
    assert {row["state"] for row in others} == {"unknown"}
    assert report["left"] == 2


async def test_only_who_got_it_can_tell(desk: Desk) -> None:
    works = [await desk.work() for _ in range(2)]
    await desk.sent(works[0], account="other")
    await desk.sent(works[1], provider="elsewhere")
    desk.made()
    await desk.hand.fail(works)
    await desk.ages()
    report = await desk.run(apply=True, only=None)
    told = {
        p["provider"]: (p["asked"], [d["verdict"] for d in p["in_doubt"]])
        for p in report["providers"]
    }
    assert told == {
        "elsewhere": ("not_configured", ["unasked"]),
        "replicate": ("listed", ["unasked"]),
        "runway": ("no_list", []),
    }
    assert await desk.states() == ["unknown", "unknown"]


@pytest.mark.parametrize("answer", ["500", "401", "garbled"])
async def test_a_provider_that_does_not_answer_decides_nothing(desk: Desk, answer: str) -> None:
    work = await desk.work()
    await desk.sent(work)
    await desk.hand.hold([work])
    await desk.ages()
    desk.vendor.lists.append(answer)
    report = await desk.run(apply=True)
    (provider,) = report["providers"]
    assert (provider["asked"], provider["in_doubt"][0]["verdict"]) == ("silent", "unasked")
    assert (report["left"], await desk.states()) == (2, ["unknown"])


# --------------------------------------------------------------------------- everything else


async def test_tasks_the_ledger_does_not_know(desk: Desk) -> None:
    work = await desk.work()
    await desk.sent(work)
    desk.made()
    stranger = desk.made(SHIP, status="succeeded")
    await desk.hand.hold([work])
    await desk.ages()
    desk.made(SHIP)  # since the ledger was read: it may be in it by now
    report = await desk.run(apply=True)
    (provider,) = report["providers"]
    assert provider["tasks"] == 3
    assert provider["strangers"]["count"] == report["left"] == 1
    (task,) = provider["strangers"]["tasks"]
    assert (task["external_id"], task["phase"]) == (stranger, "succeeded")
    assert task["models"] == [MODEL]


async def accepted(desk: Desk, task: str) -> tuple[Work, Submission]:
    work = await desk.work()
    submission = await desk.sent(work)
    assert await desk.journal(work).accepted(submission.id, ref={"id": task}, external_id=task)
    return work, submission


async def test_what_has_ended_there_only(desk: Desk) -> None:
    work, submission = await accepted(desk, desk.made())
    assert (await desk.one())["ended"]["count"] == 0
    desk.vendor.accepted[0]["status"] = "succeeded"
    report = await desk.run()
    assert report["left"] == 0, "a worker does it"
    assert report["providers"][0]["ended"]["calls"] == [
        {
            "submission": str(submission.id),
            "job": f"generation_jobs/{work.key}",
            "step": "main",
            "external_id": "p1",
            "phase": "succeeded",
        }
    ]


async def test_what_ended_otherwise_there(desk: Desk) -> None:
    done: Row = {"status": "succeeded", "output": ["https://x.test/a.png"], "metrics": {}}
    ends = [
        desk.made(**done),
        desk.made(**done),
        desk.made(status="failed", error="it broke"),
        "gone",
        desk.made(**{**done, "data_removed": True, "output": None}),
    ]
    for task in ends:
        work, submission = await accepted(desk, task)
        cost = Decimal(9) if task == ends[1] else Decimal(4)
        await desk.journal(work).finished(submission.id, result={}, cost_cents=cost)
    await desk.ages()
    report = await desk.run()
    found = report["providers"][0]["differences"]
    assert [(d["external_id"], d["what"], d["ours"], d["theirs"]) for d in found["calls"]] == [
        (ends[2], "state", "finished", "failed"),
        (ends[1], "cost_cents", "9", "4"),
        ("gone", "task", "gone", None),
    ]
    assert found["count"] == report["left"] == 3


async def test_what_is_older_than_was_asked_for_is_not_missing(desk: Desk) -> None:
    work, submission = await accepted(desk, "old")
    await desk.journal(work).finished(submission.id, result={}, cost_cents=Decimal(4))
    await desk.ages(timedelta(hours=25))
    assert (await desk.run())["left"] == 0


async def test_a_released_job_is_on_record(desk: Desk) -> None:
    work = await desk.work()
    await desk.sent(work)
    desk.made()
    await desk.hand.hold([work])
    await desk.run(apply=True)
    done = await desk.connection.fetch("SELECT who, action, subject FROM rowmill.actions")
    assert [tuple(act) for act in done] == [("tests", "retry", f"generation_jobs/{work.key}")]
    assert await acts.retry(desk.store, "generation_jobs", work.key, "tests") == "hastened"
