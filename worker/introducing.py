"""What a worker tells of itself over HTTP; never a key, a job's contents or a tenant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from worker import __version__
from worker.endpoint import Endpoint
from worker.ledger import boottime
from worker.metrics import Now

if TYPE_CHECKING:
    from worker.app import Worker


def endpoint_of(worker: Worker) -> Endpoint:
    return Endpoint(
        healthy=lambda: _healthy(worker),
        ready=lambda: _ready(worker),
        metrics=worker.metrics.rendered(lambda: _now(worker)),
    )


def _healthy(worker: Worker) -> tuple[bool, Mapping[str, Any]]:
    limit = worker.settings.stuck_seconds
    reasons = [
        f"{loop} has made no turn for {limit:g} s although the database answers"
        for loop in worker.vitals.stuck
    ]
    return not reasons, {"status": "stuck" if reasons else "ok", **_told(worker, reasons)}


def _ready(worker: Worker) -> tuple[bool, Mapping[str, Any]]:
    reasons = list(_in_the_way(worker))
    return not reasons, {"status": "not ready" if reasons else "ready", **_told(worker, reasons)}


def _in_the_way(worker: Worker) -> list[str]:
    reasons = []
    if worker.draining:
        reasons.append("draining: it claims nothing more")
    if not worker.registered:
        reasons.append("not registered yet")
    elif not worker.lease.young():
        age, half = _heartbeat_age(worker), worker.settings.lease_seconds / 2
        reasons.append(
            f"no heartbeat acknowledged for {age:.1f} s, more than half a lease ({half:g} s): "
            "is the database away?"
        )
    return reasons


def _told(worker: Worker, reasons: list[str]) -> Mapping[str, Any]:
    age = _heartbeat_age(worker)
    return {
        "reasons": reasons,
        "worker": worker.name,
        "version": __version__,
        "lanes": worker.attached.lanes,
        "slots": worker.settings.slots,
        "slots_used": worker.slots_used,
        "draining": worker.draining,
        "heartbeat_age_s": None if age is None else round(age, 3),
    }


def _heartbeat_age(worker: Worker) -> float | None:
    return boottime() - worker.lease.acknowledged if worker.registered else None


def _now(worker: Worker) -> Now:
    return Now(
        tallies=worker.pulse.statistics.total(),
        lanes=worker.attached.lanes,
        sources=worker.attached.sources,
        slots=worker.settings.slots,
        slots_used=worker.slots_used,
        heartbeat_age=_heartbeat_age(worker),
        settlements_pending=worker.settler.pending,
        ready=_ready(worker)[0],
        traffic=worker.store.traffic,
    )
