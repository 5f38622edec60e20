"""The runner against a vendor that fails in every way: nothing is lost, nothing paid twice."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from jobs.contract import CallResult, FailureKind, Job, MediaTask, Task, TextTask
from jobs.network import HostPolicy
from jobs.outputs import OutputStore
from jobs.providers import runner
from jobs.providers.charges import Charges
from jobs.providers.door import Door
from jobs.providers.errors import HeldForPerson, ProviderError
from jobs.providers.journal import LostClaim, NotNow, State
from jobs.providers.prices import PriceTable
from jobs.providers.registry import ProviderSettings, build_providers
from jobs.providers.runner import Runner
from jobs.providers.transport import AiohttpTransport
from jobs.storage import open_storage
from tests.unit.vendor import Ledger, Vendor, png, vendor_running

JOB = Job("generation_jobs", "row-1", "media:image", "replicate", 1, 0, 3, None, {})
IMAGE = MediaTask("image", "A boat", model="black-forest-labs/flux-1.1-pro")  # 4 cents
TEXT = TextTask("gpt-4o-mini", "Write.", max_tokens=500)  # 0.03 cents
DRAWING = MediaTask("image", "A boat", model="gpt-image-2")
DEAR = TextTask("gpt-4", "Write.", max_tokens=500)  # 3 cents
LEASE, TIMEOUT = 30.0, 20.0
LATER = LEASE + TIMEOUT + 1


@dataclass
class Bench:
    vendor: Vendor
    runner: Runner
    client: httpx.AsyncClient
    folder: Path
    ledger: Ledger = field(default_factory=Ledger)
    naps: list[float] = field(default_factory=list)
    percents: list[float] = field(default_factory=list)

    async def call(self, task: Task = IMAGE, step: str = "main") -> CallResult:
        drawn = task is DRAWING or isinstance(task, TextTask)
        provider = "openai" if drawn else "replicate"
        return await self.runner.call(
            self.ledger, JOB, step, provider, task, progress=self.percents.append
        )

    async def failing(self, task: Task = IMAGE) -> ProviderError:
        with pytest.raises(ProviderError) as caught:
            await self.call(task)
        return caught.value

    async def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)

    def rebuild(
        self,
        *,
        url: str | None = None,
        timeout: float = TIMEOUT,
        private: str = "127.0.0.1",
        resubmit_up_to_cents: Decimal = Decimal(1),
        account: str = "default",
        charges: Charges | None = None,
        door: Door | None = None,
    ) -> None:
        settings = ProviderSettings(
            base_url=f"{url or self.vendor.url}/v1",
            api_key=SecretStr("key"),
            account=account,
            request_timeout=timeout,
        )
        storage = open_storage(f"file://{self.folder}")
        self.runner = Runner(
            build_providers({"replicate": settings, "openai": settings}),
            self.client,
            OutputStore(storage, self.client, HostPolicy((private,))),
            lease_seconds=LEASE,
            resubmit_up_to_cents=resubmit_up_to_cents,
            charges=charges,
            door=door,
            sleep=self.sleep,
        )


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with (
        vendor_running() as vendor,
        httpx.AsyncClient(transport=AiohttpTransport(limit=10)) as client,
    ):
        made = Bench(vendor, None, client, tmp_path)  # type: ignore[arg-type]
        made.rebuild()
        yield made


# --------------------------------------------------------------------------- when all is well


async def test_text(bench: Bench) -> None:
    result = await bench.call(TEXT)
    assert (result.text, result.model, result.external_id) == ("Once.", "gpt-4o-mini", "c1")
    assert result.cost_cents == bench.ledger.last.cost_cents == Decimal("0.045")
    assert bench.ledger.log == ["intent", "finished"]
    bench.ledger.rows[1] = replace(
        bench.ledger.last, result=json.loads(json.dumps(bench.ledger.last.result))
    )
    assert await bench.call(TEXT) == result, "read back from the ledger"
    assert bench.vendor.sent == 1


async def test_media(bench: Bench) -> None:
    bench.vendor.polls.extend(["starting", "processing"])
    result = await bench.call()
    main, thumbnail = result.outputs
    assert (main.key, main.width, main.mime_type) == (
        "generation_jobs/row-1/1/main/0.png",
        32,
        "image/png",
    )
    assert thumbnail.role == "thumbnail"
    assert (bench.folder / main.key).read_bytes() == bench.vendor.content
    assert (result.cost_cents, result.external_id) == (Decimal(4), "p1")
    assert bench.ledger.log == ["intent", "accepted", "finished"]
    assert bench.naps == [2.0, 2.0, 2.0]
    assert bench.percents == [50.0, 50.0, 50.0]
    seen = len(bench.vendor.requests)
    assert await bench.call() == result
    assert len(bench.vendor.requests) == seen


async def test_steps_are_paid_for_one_by_one(bench: Bench) -> None:
    await bench.call(step="main")
    await bench.call(step="sound")
    await bench.call(step="main")
    assert len(bench.vendor.accepted) == 2


# --------------------------------------------------------------------------- before paying


@pytest.mark.parametrize(
    "task", [replace(IMAGE, prompt=""), replace(IMAGE, model="no/price"), replace(TEXT, prompt="")]
)
async def test_what_cannot_be_made_is_not_even_intended(bench: Bench, task: Task) -> None:
    assert (await bench.failing(task)).failure.kind is FailureKind.INVALID
    assert (bench.ledger.log, bench.vendor.requests) == ([], [])


async def test_a_model_without_a_price_counts_as_told(bench: Bench) -> None:
    """What is reserved is what is recorded; a task that bills nothing costs nothing."""
    bench.rebuild(charges=Charges(unknown=Decimal("2.5")))
    unpriced = replace(IMAGE, model="no/price")
    result = await bench.call(unpriced)
    assert (result.model, result.cost_cents) == ("no/price", Decimal("2.5"))
    assert bench.ledger.last.estimate_cents == bench.ledger.last.cost_cents == Decimal("2.5")
    bench.ledger = Ledger()
    bench.vendor.polls.append("failed")
    await bench.failing(unpriced)
    assert bench.ledger.ends == [("failed", 0)]


async def test_a_price_that_leaves_the_table_takes_no_bill_with_it(bench: Bench) -> None:
    charges = Charges()
    bench.rebuild(charges=charges)

    async def nap(_: float) -> None:
        """Between its POST and its end, as a worker with another table takes over."""
        charges._prices = PriceTable({})
        charges._any._known = charges._prices

    bench.runner._wire.sleep = nap
    bench.vendor.polls.append("processing")
    assert (await bench.call()).cost_cents == bench.ledger.last.estimate_cents == Decimal(4)


async def test_unknown_provider(bench: Bench) -> None:
    with pytest.raises(ProviderError, match="not configured; there are: openai, replicate"):
        await bench.runner.call(bench.ledger, JOB, "main", "rnway", IMAGE, progress=print)


async def test_no_money_after_half_a_lease(bench: Bench) -> None:
    bench.ledger.young = False
    with pytest.raises(LostClaim):
        await bench.call()
    assert (bench.ledger.log, bench.vendor.requests) == (["intent", "written_off"], [])


async def test_heartbeat_is_looked_at_before_every_post(bench: Bench) -> None:
    bench.vendor.posts.extend(["429", "ok"])

    async def nap(_: float) -> None:
        bench.ledger.young = False

    bench.runner._wire.sleep = nap
    with pytest.raises(LostClaim):
        await bench.call()
    assert (bench.vendor.sent, bench.vendor.accepted) == (1, [])


# --------------------------------------------------------------------------- refused


async def test_short_rate_limit_is_waited_out_in_place(bench: Bench) -> None:
    bench.vendor.posts.extend(["429", "429"])
    assert (await bench.call(TEXT)).text == "Once."
    assert bench.naps == [0.0, 0.0]
    assert bench.ledger.log == ["intent", "finished"]
    assert len(bench.vendor.accepted) == 1


@pytest.mark.parametrize(
    ("posts", "kind", "wait", "sent"),
    [
        (["429-long"], FailureKind.RATE_LIMIT, 120, 1),
        (["429"] * 3, FailureKind.RATE_LIMIT, 0, 3),
        (["401"], FailureKind.AUTH, 1, 1),
        (["402"], FailureKind.QUOTA, 1, 1),
        (["422"], FailureKind.INVALID, 1, 1),
    ],
)
async def test_refusals_cost_nothing(
    bench: Bench, posts: list[str], kind: FailureKind, wait: float, sent: int
) -> None:
    bench.vendor.posts.extend(posts)
    failure = (await bench.failing()).failure
    assert (failure.kind, failure.retry_after, failure.accepted) == (kind, wait, "no")
    assert bench.ledger.ends == [("failed", 0)]
    assert (bench.vendor.sent, bench.vendor.accepted) == (sent, [])
    await bench.call()
    assert len(bench.vendor.accepted) == 1


async def test_nobody_there(bench: Bench) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # bound, not listening
        bench.rebuild(url=f"http://127.0.0.1:{sock.getsockname()[1]}")
        failure = (await bench.failing()).failure
    assert (failure.kind, failure.accepted) == (FailureKind.TRANSIENT, "no")
    assert len(bench.naps) == 2, "three attempts"
    assert bench.ledger.ends == [("failed", 0)]


async def test_refusal_inside_a_200_is_billed(bench: Bench) -> None:
    bench.vendor.answer = {"finish_reason": "stop", "message": {"refusal": "I can't."}}
    assert (await bench.failing(TEXT)).failure.kind is FailureKind.POLICY
    assert bench.ledger.states == ["failed"]
    assert bench.ledger.last.cost_cents == Decimal("0.045")


# --------------------------------------------------------------------------- nobody knows

ACCEPTED_UNSEEN = ["drop-after", "garbled", "500-after", "hang-after"]
NOT_ACCEPTED = ["drop-before", "500-before"]


@pytest.mark.parametrize("fault", ACCEPTED_UNSEEN)
async def test_lost_answer_is_found_in_the_list(bench: Bench, fault: str) -> None:
    bench.rebuild(timeout=0.3 if fault == "hang-after" else TIMEOUT)
    for number in range(3):  # noise on the pages before and after
        bench.vendor.add({"prompt": f"other {number}"})
    bench.vendor.posts.append(fault)
    result = await bench.call()
    assert result.external_id == "p4"
    assert bench.ledger.log == ["intent", "unknown", "accepted", "finished"]
    assert (bench.vendor.sent, len(bench.vendor.accepted)) == (1, 4)


@pytest.mark.parametrize("fault", NOT_ACCEPTED)
async def test_not_found_counts_only_after_a_lease_and_a_request(bench: Bench, fault: str) -> None:
    bench.vendor.posts.append(fault)
    failure = (await bench.failing()).failure
    assert (failure.kind, failure.code) == (FailureKind.TRANSIENT, "unsettled")
    assert failure.retry_after == LEASE + TIMEOUT
    bench.ledger.age = 10
    assert (await bench.failing()).failure.retry_after == LEASE + TIMEOUT - 10
    assert bench.ledger.states == ["unknown"]
    bench.ledger.age = LATER
    await bench.call()
    assert bench.ledger.states == ["written_off", "finished"]
    assert (bench.vendor.sent, len(bench.vendor.accepted)) == (2, 1)


async def test_crash_between_post_and_journal(bench: Bench) -> None:
    """Somebody sent it and died: the intent is all there is."""
    await bench.ledger.intend(
        "main",
        provider="replicate",
        account="default",
        model=IMAGE.model or "",
        estimate_cents=Decimal(4),
    )
    bench.vendor.add({"prompt": "A boat"})
    assert (await bench.call()).external_id == "p1"
    assert bench.vendor.sent == 0


async def test_what_another_submission_owns_is_not_taken(bench: Bench) -> None:
    """Identical inputs: the newest is owned, the other one must be ours."""
    bench.vendor.posts.append("drop-after")
    bench.vendor.lists.append("503")
    assert (await bench.failing()).failure.code == "unsettled"
    bench.vendor.add({"prompt": "A boat"})
    bench.ledger.ids["replicate", "default", "p2"] = 99
    assert (await bench.call()).external_id == "p1"
    assert bench.vendor.sent == 1


async def test_an_answer_with_somebody_elses_id(bench: Bench) -> None:
    bench.ledger.ids["replicate", "default", "p1"] = 99
    assert (await bench.failing()).failure.code == "unsettled"
    assert bench.ledger.states == ["unknown"]


@pytest.mark.parametrize("answer", ["500", "401", "garbled"])
async def test_a_list_that_cannot_be_read_decides_nothing(bench: Bench, answer: str) -> None:
    bench.vendor.posts.append("drop-after")
    bench.vendor.lists.append(answer)
    assert (await bench.failing()).failure.code == "unsettled"
    bench.ledger.age = LATER
    bench.vendor.lists.append(answer)
    assert (await bench.failing()).failure.code == "unsettled"
    bench.ledger.age = 0
    await bench.call()
    assert len(bench.vendor.accepted) == 1


async def test_a_list_that_has_forgotten_decides_nothing(bench: Bench) -> None:
    bench.vendor.posts.append("drop-after")
    bench.vendor.lists.append("503")
    await bench.failing()
    bench.vendor.accepted[0] |= {"input": {}, "data_removed": True}
    bench.ledger.age = LATER
    with pytest.raises(HeldForPerson, match="no longer tells enough"):
        await bench.call()
    assert (bench.vendor.sent, bench.ledger.states) == (1, ["unknown"])
    bench.ledger.ids["replicate", "default", "p1"] = 99  # it turns out to be another job's
    await bench.call()
    assert bench.ledger.states == ["written_off", "finished"]


@pytest.mark.parametrize("fault", [*ACCEPTED_UNSEEN, *NOT_ACCEPTED])
async def test_cheap_text_is_sent_again_where_nobody_can_be_asked(bench: Bench, fault: str) -> None:
    bench.rebuild(timeout=0.3 if fault == "hang-after" else TIMEOUT)
    bench.vendor.posts.append(fault)
    assert (await bench.call(TEXT)).text == "Once."
    assert bench.ledger.states == ["written_off", "finished"]
    assert bench.vendor.sent == 2
    assert bench.naps == [1.0]


async def test_cheap_text_is_sent_twice_per_call_at_most(bench: Bench) -> None:
    bench.vendor.posts.extend(["500-before"] * 2)
    assert (await bench.failing(TEXT)).failure.kind is FailureKind.TRANSIENT
    assert bench.vendor.sent == 2
    assert (await bench.call(TEXT)).text == "Once."


@pytest.mark.parametrize("fault", [*ACCEPTED_UNSEEN, *NOT_ACCEPTED])
async def test_dear_text_is_held_for_a_person(bench: Bench, fault: str) -> None:
    bench.rebuild(timeout=0.3 if fault == "hang-after" else TIMEOUT)
    bench.vendor.posts.append(fault)
    for _ in range(3):
        with pytest.raises(HeldForPerson, match=r"rowmill resolve row-1.*--external-id"):
            await bench.call(DEAR)
        bench.ledger.age = LATER
    assert (bench.vendor.sent, bench.ledger.states) == (1, ["unknown"])


async def test_the_operator_sets_the_limit(bench: Bench) -> None:
    bench.rebuild(resubmit_up_to_cents=Decimal(0))
    bench.vendor.posts.append("drop-after")
    with pytest.raises(HeldForPerson):
        await bench.call(TEXT)
    bench.rebuild(resubmit_up_to_cents=Decimal(5))
    assert (await bench.call(replace(DEAR))).text == "Once."


async def test_only_the_account_that_got_it_can_tell(bench: Bench) -> None:
    bench.vendor.posts.append("drop-after")
    bench.vendor.lists.append("503")
    await bench.failing()
    bench.rebuild(account="other")
    with pytest.raises(HeldForPerson, match="account 'default' of replicate"):
        await bench.call()
    bench.rebuild()
    await bench.call()
    assert bench.vendor.sent == 1


FAULTS = ["ok", "429", "429-long", "402", *NOT_ACCEPTED, "drop-after", "garbled", "500-after"]
POLLS = ["starting", "processing", "500", "404", "drop", "garbled", "rebooting", "401", "429"]


@pytest.mark.parametrize("seed", range(40))
async def test_whatever_goes_wrong_it_is_paid_for_once(bench: Bench, seed: int) -> None:
    dice = random.Random(seed)
    bench.vendor.posts.extend(dice.choices(FAULTS, k=4))
    bench.vendor.polls.extend(dice.choices(POLLS, k=6))
    bench.vendor.lists.extend(dice.choices(["ok", "503", "garbled"], k=3))
    bench.vendor.files.extend(dice.choices([200, 404, 503], k=2))
    result = None
    for _ in range(30):
        try:
            result = await bench.call()
            break
        except ProviderError:
            bench.ledger.age = dice.choice([0, 10, LATER])
    assert result is not None
    assert bench.ledger.states[-1] == "finished"
    costs = [row.cost_cents for row in bench.ledger.rows.values() if row.cost_cents]
    assert len(bench.vendor.accepted) == len(costs), "each acceptance is on the books"
    gone = sum("404" in reason or "no longer has" in reason for reason in bench.ledger.reasons)
    assert len(bench.vendor.accepted) <= 1 + gone, "again only for what the provider lost"


# --------------------------------------------------------------------------- accepted


async def test_resumes_by_its_reference(bench: Bench) -> None:
    bench.vendor.polls.append("hang")
    task = asyncio.create_task(bench.call())
    await bench.vendor.hung.wait()
    task.cancel()  # a drain, or the job's deadline
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.ledger.states == ["accepted"]
    bench.naps.clear()
    assert (await bench.call()).external_id == "p1"
    assert bench.naps == [0.0], "looks at once"
    assert bench.vendor.sent == 1


async def test_a_poll_may_fail_in_every_way(bench: Bench) -> None:
    faults = ["500", "drop", "garbled", "429", "404", "404", "rebooting", "404", "processing"]
    bench.vendor.polls.extend(faults)
    assert (await bench.call()).external_id == "p1"
    assert bench.naps[:4] == [2.0, 4.0, 8.0, 16.0]
    assert max(bench.naps) <= 60
    assert bench.vendor.sent == 1


async def test_a_task_the_provider_lost(bench: Bench) -> None:
    bench.vendor.polls.extend(["404"] * 3)
    assert (await bench.failing()).failure.kind is FailureKind.GONE
    assert bench.ledger.ends == [("failed", 4)]


@pytest.mark.parametrize(
    ("status", "kind"), [("401", FailureKind.AUTH), ("402", FailureKind.QUOTA)]
)
async def test_a_refused_key_keeps_the_task(bench: Bench, status: str, kind: FailureKind) -> None:
    bench.vendor.polls.append(status)
    assert (await bench.failing()).failure.kind is kind
    assert bench.ledger.states == ["accepted"]
    await bench.call()
    assert bench.vendor.sent == 1


@pytest.mark.parametrize(
    ("status", "kind", "state"),
    [
        ("failed", FailureKind.UNKNOWN, "failed"),
        ("canceled", FailureKind.CANCELLED, "cancelled"),
        ("aborted", FailureKind.CANCELLED, "cancelled"),
    ],
)
async def test_a_task_that_ends_badly(
    bench: Bench, status: str, kind: FailureKind, state: str
) -> None:
    bench.vendor.polls.append(status)
    assert (await bench.failing()).failure.kind is kind
    assert bench.ledger.ends == [(state, 0)]
    await bench.call()
    assert len(bench.vendor.accepted) == 2, "a new try of a failed task is new work"


# --------------------------------------------------------------------------- outputs


async def test_passing_download_troubles(bench: Bench) -> None:
    bench.vendor.files.extend([503, 500, 503])
    assert len((await bench.call()).outputs) == 2


async def test_lasting_download_troubles_keep_the_task(bench: Bench) -> None:
    bench.vendor.files.extend([503] * 4)
    failure = (await bench.failing()).failure
    assert failure.kind is FailureKind.TRANSIENT
    assert bench.ledger.states == ["accepted"]
    assert len((await bench.call()).outputs) == 2
    assert bench.vendor.sent == 1


async def test_expired_link_is_asked_for_again(bench: Bench) -> None:
    bench.vendor.files.append(404)
    assert len((await bench.call()).outputs) == 2
    assert bench.vendor.requests.count("GET /v1/predictions/p1") == 2


async def test_output_that_is_gone(bench: Bench) -> None:
    bench.vendor.files.extend([410, 404])
    assert (await bench.failing()).failure.kind is FailureKind.GONE
    assert bench.ledger.ends == [("failed", 4)]


async def test_output_that_is_no_picture(bench: Bench) -> None:
    bench.vendor.content = b"<html>"
    assert (await bench.failing()).failure.kind is FailureKind.INVALID
    assert bench.ledger.ends == [("failed", 4)]


async def test_output_our_own_settings_refuse_is_held(bench: Bench) -> None:
    bench.rebuild(private="10.0.0.1")
    with pytest.raises(HeldForPerson, match="is not sent again"):
        await bench.call()
    assert bench.ledger.states == ["accepted"]
    bench.rebuild()
    await bench.call()
    assert bench.vendor.sent == 1


# --------------------------------------------------------------------------- files in the answer


async def test_files_in_the_answer(bench: Bench) -> None:
    result = await bench.call(DRAWING)
    main, thumbnail = result.outputs
    assert (bench.folder / main.key).read_bytes() == bench.vendor.content
    assert bench.ledger.log == ["intent", "finished", "kept"]
    assert result.cost_cents == bench.ledger.last.cost_cents
    assert stored(bench) == sorted([main.key, thumbnail.key]), "nothing is kept twice"
    assert await bench.call(DRAWING) == result
    assert bench.vendor.sent == 1


async def test_files_are_put_away_before_anyone_looks_at_them(bench: Bench) -> None:
    """Whatever happens then, they were paid for once, and are there."""
    obstacle = bench.folder / "generation_jobs/row-1/1/main/0.png"
    obstacle.mkdir(parents=True)
    assert (await bench.failing(DRAWING)).failure.code == "storage"
    assert bench.ledger.log == ["intent", "finished"]
    assert stored(bench) == ["generation_jobs/row-1/1/main/0.answer"]
    obstacle.rmdir()
    assert len((await bench.call(DRAWING)).outputs) == 2, "as after a crash in between"
    assert bench.vendor.sent == 1


async def test_files_of_no_use_are_a_failure_that_was_paid(bench: Bench) -> None:
    bench.vendor.content = b"not a picture"
    assert (await bench.failing(DRAWING)).failure.code == "unreadable"
    assert bench.ledger.log == ["intent", "finished", "spoiled"]
    assert bench.ledger.last.cost_cents
    assert stored(bench) == []
    bench.vendor.content = png()
    assert len((await bench.call(DRAWING)).outputs) == 2, "what comes next is another purchase"
    assert bench.vendor.sent == 2


async def test_an_answer_keeps_the_names_it_was_paid_under(bench: Bench) -> None:
    obstacle = bench.folder / "generation_jobs/row-1/1/main/0.png"
    obstacle.mkdir(parents=True)
    await bench.failing(DRAWING)
    obstacle.rmdir()
    result = await bench.runner.call(
        bench.ledger, JOB, "main", "replicate", IMAGE, progress=bench.percents.append
    )
    assert (result.provider, result.model) == ("openai", DRAWING.model)


async def test_files_in_the_answer_outlive_an_outage_of_the_storage(bench: Bench) -> None:
    obstacle = bench.folder / "generation_jobs"
    obstacle.write_text("no folder can be made here")
    for _ in range(2):
        failure = (await bench.failing(DRAWING)).failure
        assert (failure.kind, failure.code) == (FailureKind.TRANSIENT, "storage")
        assert bench.ledger.files == {1: [bench.vendor.content]}
    assert bench.ledger.states == ["finished"]
    paid = bench.ledger.last.cost_cents
    obstacle.unlink()
    bench.ledger.rows[1] = replace(
        bench.ledger.last, result=json.loads(json.dumps(bench.ledger.last.result))
    )
    result = await bench.call(DRAWING)
    assert (bench.folder / result.outputs[0].key).read_bytes() == bench.vendor.content
    assert (result.cost_cents, bench.ledger.files) == (paid, {})
    assert bench.vendor.sent == 1


async def test_a_task_whose_output_cannot_be_stored_is_paid_and_kept(bench: Bench) -> None:
    obstacle = bench.folder / "generation_jobs"
    obstacle.write_text("no folder can be made here")
    for _ in range(2):
        assert (await bench.failing()).failure.code == "storage"
        assert bench.ledger.ends == [("finished", Decimal(4))]
    obstacle.unlink()
    result = await bench.call()
    assert (len(result.outputs), result.cost_cents) == (2, Decimal(4))
    assert bench.ledger.log == ["intent", "accepted", "finished", "kept"]
    assert bench.vendor.sent == 1


async def test_an_answer_with_links_is_read_again(bench: Bench) -> None:
    bench.vendor.as_link = True
    bench.vendor.files.extend([500] * 4)
    assert (await bench.failing(DRAWING)).failure.code == "http_500"
    assert bench.ledger.states == ["finished"]
    assert len((await bench.call(DRAWING)).outputs) == 2
    assert bench.vendor.sent == 1


def stored(bench: Bench) -> list[str]:
    files = [path for path in bench.folder.rglob("*") if path.is_file()]
    return sorted(str(path.relative_to(bench.folder)) for path in files)


# --------------------------------------------------------------------------- stopped, orphaned


async def test_a_paid_answer_is_written_down_even_while_stopping(bench: Bench) -> None:
    bench.ledger.gate.clear()
    task = asyncio.create_task(bench.call(TEXT))
    await bench.ledger.writing.wait()
    task.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not task.done(), "it stays until the write is through"
    bench.ledger.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.ledger.states == ["finished"]


async def accepted(bench: Bench) -> None:
    """Leave a task running at the provider that nobody waits for."""
    bench.vendor.polls.append("hang")
    task = asyncio.create_task(bench.call())
    await bench.vendor.hung.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_abandoned_task_is_cancelled_and_its_bill_recorded(bench: Bench) -> None:
    await accepted(bench)
    assert await bench.runner.abandon(bench.ledger, bench.ledger.last)
    assert bench.vendor.accepted[0]["status"] == "canceled"
    assert bench.ledger.ends == [("cancelled", 0)]


async def test_task_that_cannot_be_cancelled_is_left_to_maintenance(bench: Bench) -> None:
    await accepted(bench)
    bench.vendor.polls.extend(["uncancellable", *["processing"] * 5])
    assert not await bench.runner.abandon(bench.ledger, bench.ledger.last)
    assert bench.ledger.states == ["accepted"]
    bench.vendor.polls.extend(["processing", "503"])
    assert not await bench.runner.settle_orphan(bench.ledger, bench.ledger.last)
    assert not await bench.runner.settle_orphan(bench.ledger, bench.ledger.last)
    assert await bench.runner.settle_orphan(bench.ledger, bench.ledger.last)
    assert bench.ledger.ends == [("finished", 4)]


async def test_orphan_that_was_made_is_fetched_if_its_job_comes_back(bench: Bench) -> None:
    await accepted(bench)
    assert await bench.runner.settle_orphan(bench.ledger, bench.ledger.last)
    assert bench.ledger.states == ["finished"]
    result = await bench.call()
    assert (len(result.outputs), result.cost_cents) == (2, Decimal(4))
    assert bench.vendor.sent == 1
    seen = len(bench.vendor.requests)
    assert await bench.call() == result
    assert len(bench.vendor.requests) == seen


async def test_orphan_whose_files_are_gone_failed_and_was_paid(bench: Bench) -> None:
    await accepted(bench)
    assert await bench.runner.settle_orphan(bench.ledger, bench.ledger.last)
    bench.vendor.files.extend([404, 404])
    assert (await bench.failing()).failure.kind is FailureKind.GONE
    assert bench.ledger.ends == [("failed", Decimal(4))]


@pytest.mark.parametrize(
    ("polls", "state", "cost"),
    [("failed", "failed", 0), ("aborted", "cancelled", 0), ("404 404 404", "failed", 4)],
)
async def test_orphans_that_ended_badly(bench: Bench, polls: str, state: str, cost: int) -> None:
    await accepted(bench)
    bench.vendor.polls.extend(polls.split())
    assert await bench.runner.settle_orphan(bench.ledger, bench.ledger.last)
    assert bench.ledger.ends == [(state, cost)]


@pytest.mark.parametrize(
    ("polls", "state"), [("404 404", "finished"), ("404 404 503 404", "accepted")]
)
async def test_an_orphan_is_not_lost_because_one_replica_lacks_it(
    bench: Bench, polls: str, state: str
) -> None:
    """A new task may not be everywhere yet: it is lost as late as for the job that made it."""
    await accepted(bench)
    bench.vendor.polls.extend(polls.split())
    await bench.runner.settle_orphan(bench.ledger, bench.ledger.last)
    assert bench.ledger.states == [state]


async def test_orphans_that_cannot_be_looked_at(bench: Bench) -> None:
    await accepted(bench)
    seen = len(bench.vendor.requests)
    row = bench.ledger.last
    for blind in (
        replace(row, ref=None),
        replace(row, account="other"),
        replace(row, provider="other"),
        replace(row, state=State.FINISHED),
    ):
        assert not await bench.runner.settle_orphan(bench.ledger, blind)
        assert not await bench.runner.abandon(bench.ledger, blind)
    assert len(bench.vendor.requests) == seen


async def test_stopped_while_its_intent_waits_for_its_turn(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "LAST_WORD", 0.01)
    bench.ledger.intents.clear()
    call = asyncio.create_task(bench.call())
    await bench.ledger.intending.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert bench.ledger.log == bench.vendor.requests == []


async def test_stopped_while_it_intends(bench: Bench) -> None:
    """Nobody sends what it intended, so nobody has to wonder."""
    bench.ledger.intents.clear()
    call = asyncio.create_task(bench.call())
    await bench.ledger.intending.wait()
    call.cancel()
    bench.ledger.intents.set()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert bench.ledger.ends == [("written_off", 0)]
    assert bench.vendor.requests == []


# --------------------------------------------------------------------------- its row was changed

EDITED = replace(IMAGE, prompt="A ship")


async def test_a_changed_request_is_never_sent_beside_the_old_one(bench: Bench) -> None:
    """What was sent isn't what we would send now, so "not in the list" would prove nothing."""
    bench.vendor.posts.append("drop-after")
    bench.vendor.lists.append("503")
    await bench.failing()
    bench.ledger.age = LATER
    with pytest.raises(HeldForPerson, match="its row was changed since"):
        await bench.call(EDITED)
    assert (bench.vendor.sent, bench.ledger.states) == (1, ["unknown"])
    assert (await bench.call()).external_id == "p1"  # changed back, it is found


async def test_a_changed_request_waits_for_whoever_sent_the_old_one(bench: Bench) -> None:
    bench.vendor.posts.append("hang-after")
    first = asyncio.create_task(bench.call())
    await bench.vendor.hung.wait()
    bench.ledger.age = 1
    assert (await bench.failing(EDITED)).failure.code == "unsettled"
    bench.vendor.over.set()
    assert (await first).external_id == (await bench.call(EDITED)).external_id
    assert bench.vendor.sent == 1


async def test_a_changed_request_is_sent_where_the_old_one_is_a_priced_risk(bench: Bench) -> None:
    bench.rebuild(resubmit_up_to_cents=Decimal(5))
    bench.vendor.posts.append("drop-after")
    bench.vendor.lists.append("503")
    await bench.failing()
    await bench.call(EDITED)
    assert bench.ledger.states == ["written_off", "finished"]


async def test_a_dear_text_is_not_held_while_its_sender_may_still_hear(bench: Bench) -> None:
    """A worker that was only slow is given up, and its answer comes all the same."""
    bench.vendor.posts.append("hang-after")
    first = asyncio.create_task(bench.call(DEAR))
    await bench.vendor.hung.wait()
    assert (await bench.failing(DEAR)).failure.code == "unsettled"
    bench.vendor.over.set()
    assert (await first).text == (await bench.call(DEAR)).text
    assert bench.vendor.sent == 1


async def test_a_dear_text_whose_sender_is_gone_is_held(bench: Bench) -> None:
    bench.vendor.posts.append("hang-after")
    first = asyncio.create_task(bench.call(DEAR))
    await bench.vendor.hung.wait()
    bench.ledger.age = LATER
    with pytest.raises(HeldForPerson):
        await bench.call(DEAR)
    bench.vendor.over.set()
    await first
    assert bench.vendor.sent == 1


# --------------------------------------------------------------------------- the door


@dataclass
class Keeper:
    """A door that writes down who comes, beside what the ledger does."""

    log: list[str]
    full: bool = False
    again_after: float = 0.0
    tokens: list[int] = field(default_factory=list)
    waits: list[tuple[str, float]] = field(default_factory=list)

    def guards(self, _provider: str, _job: Job) -> bool:
        return True

    async def enter(self, _provider: str, _job: Job, tokens: int) -> None:
        self.log.append("enter")
        self.tokens.append(tokens)
        if self.full:
            raise NotNow("full", 9.0, keeps_place=True)

    async def again(self, _provider: str, _job: Job, _tokens: int) -> float:
        self.log.append("again")
        return self.again_after

    def told(self, provider: str, seconds: float) -> None:
        self.waits.append((provider, seconds))


@pytest.fixture
def keeper(bench: Bench) -> Keeper:
    made = Keeper(bench.ledger.log)
    bench.rebuild(door=made)
    return made


async def test_the_door_is_before_the_intent(bench: Bench, keeper: Keeper) -> None:
    await bench.call(TEXT)
    assert bench.ledger.log == ["enter", "intent", "finished"]
    await bench.call(IMAGE, step="second")
    assert bench.ledger.log[3:] == ["enter", "intent", "accepted", "finished"]
    assert keeper.tokens == [500 + 2, 0], "the answer's limit and the prompt; a picture has none"


async def test_a_full_door_leaves_nothing_behind(bench: Bench, keeper: Keeper) -> None:
    keeper.full = True
    with pytest.raises(NotNow):
        await bench.call()
    assert (bench.ledger.log, bench.vendor.sent) == (["enter"], 0)


async def test_what_was_bought_already_needs_no_door(bench: Bench, keeper: Keeper) -> None:
    result = await bench.call(TEXT)
    keeper.full = True
    assert await bench.call(TEXT) == result
    assert bench.ledger.log == ["enter", "intent", "finished"]


@pytest.mark.usefixtures("keeper")
async def test_a_doubtful_call_that_is_sent_again_goes_through_the_door_again(
    bench: Bench,
) -> None:
    bench.vendor.posts.append("garbled")
    await bench.call(TEXT)
    assert bench.ledger.log == [
        *("enter", "intent", "unknown", "written_off"),
        *("enter", "intent", "finished"),
    ]


@pytest.mark.usefixtures("keeper")
async def test_each_repetition_of_a_post_is_counted(bench: Bench) -> None:
    bench.vendor.posts.extend(["429", "429"])
    await bench.call(TEXT)
    assert bench.ledger.log == ["enter", "intent", "again", "again", "finished"]
    assert bench.vendor.sent == 3


async def test_without_room_a_post_is_not_repeated(bench: Bench, keeper: Keeper) -> None:
    keeper.again_after = 30.0
    bench.vendor.posts.extend(["429", "429"])
    failure = (await bench.failing(TEXT)).failure
    assert (failure.kind, failure.retry_after) == (FailureKind.RATE_LIMIT, 30)
    assert (bench.vendor.sent, bench.ledger.ends) == (1, [("failed", 0)])


async def test_the_door_hears_what_a_provider_says(bench: Bench, keeper: Keeper) -> None:
    bench.vendor.posts.append("429-long")
    await bench.failing(TEXT)
    assert keeper.waits == [("openai", 120)]
