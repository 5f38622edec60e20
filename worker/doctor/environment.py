"""The settings of this shell, against each other and against this machine."""

from __future__ import annotations

import difflib
import os
import resource
import shutil
import tempfile
from collections.abc import Iterable, Mapping

from dotenv import dotenv_values

from jobs import registry
from jobs.providers.registry import ADAPTERS, ProviderSettings
from worker.doctor.patient import Finding, Patient
from worker.paying import charges_of, providers_of
from worker.settings import Settings
from worker.store.health import fleet

PREFIX = "ROWMILL_"
CONNECTIONS_PER_SLOT = 2
"""A job speaks to its provider and downloads or stores what came of it."""
BESIDES = 100
"""Files of a worker at rest: its database, Redis, libraries, processes."""
MINE = "this shell"


async def names(_patient: Patient) -> list[Finding]:
    return [
        Finding("environment.unknown", "warning", name, evidence, fix)
        for name, evidence, fix in unknown(dotenv_values() | dict(os.environ))
    ]


def unknown(environment: Mapping[str, str | None]) -> list[tuple[str, str, str]]:
    """(name, evidence, fix) of variables that nothing reads."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    nested = f"{PREFIX}PROVIDERS__"
    found = []
    for name in sorted(environment):
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper in known:
            continue
        if upper.startswith(nested):
            provider, _, setting = upper.removeprefix(nested).partition("__")
            if setting.partition("__")[0].lower() in ProviderSettings.model_fields:
                continue
            fields = [
                f"{nested}{provider}__{field.upper()}" for field in ProviderSettings.model_fields
            ]
            found.append((name, *_nearest(upper, fields)))
        else:
            found.append((name, *_nearest(upper, known)))
    return found


def _nearest(name: str, known: Iterable[str]) -> tuple[str, str]:
    near = difflib.get_close_matches(name, sorted(known), 1, 0.75)
    evidence = "no setting has this name, so nothing reads it"
    return (
        evidence,
        f"did you mean {near[0]}?" if near else "docs/configuration.md has every setting",
    )


async def worker(patient: Patient) -> list[Finding]:
    """What a worker with these settings would end with at once."""
    findings = []
    for what in (
        lambda: registry.load(patient.settings.handlers),
        lambda: providers_of(patient.settings),
        lambda: charges_of(patient.settings),
    ):
        try:
            what()
        except Exception as error:  # noqa: BLE001 - a handler is anyone's code
            evidence = (
                f"a worker doesn't start with these settings: {type(error).__name__}: {error}"
            )
            fix = "mend the setting that it names: docs/configuration.md"
            findings.append(Finding("environment.worker", "error", MINE, evidence, fix))
    return findings


async def lanes(patient: Patient) -> list[Finding]:
    status = await patient.status()
    waiting = {lane["lane"] for lane in status["lanes"]}
    known = waiting | ADAPTERS.keys() | patient.settings.providers.keys()
    findings = []
    for lane in patient.settings.lanes:
        if lane in known or ":" in lane:
            continue
        near = difflib.get_close_matches(lane, sorted(known), 1)
        evidence = f"ROWMILL_LANES has {lane!r}: no provider is called so, and no job waits there"
        fix = f"did you mean {near[0]}?" if near else "`rowmill providers` has their names"
        findings.append(Finding("environment.lane", "warning", MINE, evidence, fix))
    return findings


async def settings(patient: Patient) -> list[Finding]:
    given = patient.settings
    findings = []
    if given.pulse_seconds > given.lease_seconds / 5 and "pulse_seconds" in given.model_fields_set:
        evidence = (
            f"ROWMILL_PULSE_SECONDS is {given.pulse_seconds:g}, with a lease of "
            f"{given.lease_seconds:g}s: a heartbeat is written every {given.lease_seconds / 5:g}s"
        )
        fix = "a shorter pulse, or a longer ROWMILL_LEASE_SECONDS"
        findings.append(Finding("environment.pulse", "info", MINE, evidence, fix))
    if (given.smtp_url is None) != (given.mail_from is None):
        lacking = "ROWMILL_SMTP_URL" if given.smtp_url is None else "ROWMILL_MAIL_FROM"
        evidence = f"{lacking} isn't set though the other one is: mails are held"
        findings.append(Finding("environment.mail", "warning", MINE, evidence, f"set {lacking}"))
    return findings


async def machine(patient: Patient) -> list[Finding]:
    given = patient.settings
    findings = []
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = given.slots * CONNECTIONS_PER_SLOT + BESIDES
    if files != resource.RLIM_INFINITY and files < needed:
        evidence = f"{files} files may be open here; {given.slots} slots may need {needed}"
        fix = f"ulimit -n {2 * needed} where workers start, or fewer ROWMILL_SLOTS"
        findings.append(Finding("environment.files", "warning", MINE, evidence, fix))
    room = tempfile.gettempdir()
    free = shutil.disk_usage(room).free
    if free < given.max_output_bytes:
        evidence = (
            f"{room} has {free / 1024**2:.0f} MiB free, and one output may have "
            f"{given.max_output_bytes / 1024**2:.0f} MiB"
        )
        fix = "another TMPDIR, or a smaller ROWMILL_MAX_OUTPUT_BYTES"
        findings.append(Finding("environment.disk", "warning", MINE, evidence, fix))
    return findings


async def storage(patient: Patient) -> list[Finding]:
    """Whether those who read can find what was written."""
    url = patient.settings.storage_url
    scheme = url.split(":", 1)[0]
    if scheme == "memory":
        evidence = "outputs are kept in the memory of the worker that made them, and go with it"
        fix = "ROWMILL_STORAGE_URL=s3://…, gs://…, az://… or file:///…"
        return [Finding("environment.storage", "warning", "storage", evidence, fix)]
    if scheme == "file":
        hosts = {row["name"].split(":")[0] for row in await fleet.alive(patient.store)}
        if len(hosts) < 2:
            return []
        evidence = (
            f"outputs go to {url} while workers live on {len(hosts)} hosts: "
            f"{', '.join(sorted(hosts)[:5])}"
        )
        fix = (
            "one storage for all (s3://…, gs://…, az://…), unless this directory is shared by them"
        )
        return [Finding("environment.storage", "warning", "storage", evidence, fix)]
    if patient.settings.public_base_url is None:
        evidence = f"rows get URLs such as {scheme}://…, which no browser opens"
        fix = "ROWMILL_PUBLIC_BASE_URL=https://… where rows are read by people"
        return [Finding("environment.links", "info", "storage", evidence, fix)]
    return []
