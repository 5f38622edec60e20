"""The work of the money proof: jobs of all kinds and providers, and what is to go wrong with each.

A prompt carries its job's mark, by which the sandbox ascribes what it bills, and the fault that the
sandbox makes when it meets it. What must become of a job follows from its fault alone.
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from worker.store import Store

ASKED = "replicate"
"""The only provider here that tells which requests it has; the others can't be asked."""


@dataclass(frozen=True, slots=True)
class Kind:
    """So many in a hundred jobs are of this kind."""

    share: int
    source: str
    lane: str
    type: str = ""
    settings: str = "{}"
    model: str = ""
    polled: bool = True
    """Its task is looked at until it has ended; else the answer is the result."""


TWO_SECONDS = '{"duration_seconds": 2}'
WITH_SOUND = '{"duration_seconds": 2, "soundtrack": true}'
SMALL = '{"options": {"resolution": "1k"}}'
KINDS = (
    Kind(14, "generation_jobs", "replicate", "video", TWO_SECONDS),
    Kind(5, "generation_jobs", "replicate", "video", WITH_SOUND),
    Kind(10, "generation_jobs", "replicate", "thumbnail"),
    Kind(4, "generation_jobs", "replicate", "preview", TWO_SECONDS),
    Kind(7, "generation_jobs", "replicate", "audio"),
    Kind(6, "generation_jobs", "runway", "video", TWO_SECONDS),
    Kind(4, "generation_jobs", "runway", "thumbnail"),
    Kind(5, "generation_jobs", "freepik", "thumbnail", SMALL),
    Kind(5, "generation_jobs", "elevenlabs", "audio", polled=False),
    Kind(5, "generation_jobs", "openai", "thumbnail", polled=False),
    Kind(5, "ai_generations", "openai", model="gpt-4o-mini", polled=False),
    Kind(6, "ai_generations", "anthropic", model="claude-haiku-4-5", polled=False),
    Kind(4, "ai_generations", "gemini", model="gemini-3.8-flash", polled=False),
    Kind(6, "ai_generations", "openai_responses", model="gpt-4o-mini"),
    Kind(10, "background_jobs", "openai", "embed_content", polled=False),
    Kind(4, "background_jobs", "", "content_statistics"),
)

IN_DOUBT = (
    *("500", "503-after", "disconnect", "disconnect-after"),
    *("hang", "hang-after", "garbled", "cut"),
)
"""After these nobody but the provider can know whether a request was accepted. Each happens once."""
AT_SUBMIT = ("429=0.2*2", "slow=0.5*1")
AT_POLL = (
    *("poll-500*2", "poll-429=0.2*1", "poll-slow=1*2", "poll-disconnect*1", "poll-garbled*1"),
    *("poll-hang*1", "poll-cut*1", "download-500*1", "download-cut*1", "expired*1", "fail*1"),
)
FATAL = ("invalid", "policy")
"""The job's own fault: it has to fail."""


@dataclass(frozen=True, slots=True)
class Job:
    key: str
    kind: Kind
    fault: str

    @property
    def marker(self) -> str:
        return f"{self.kind.source}/{self.key}"

    @property
    def ends(self) -> str:
        return "failed" if self.fault in FATAL else "completed"

    @property
    def words(self) -> str:
        return f"[job:{self.marker}]" + (f" [fault:{self.fault}]" if self.fault else "")


def plan(count: int, dice: random.Random) -> list[Job]:
    """Mixed, so that every stretch of it holds something of everything."""
    kinds = [kind for kind in KINDS for _ in range(kind.share)]
    bags: dict[Kind, list[str]] = {}
    jobs: list[Job] = []
    while len(jobs) < count:
        dice.shuffle(kinds)
        jobs += [Job(str(uuid.UUID(int=dice.getrandbits(128), version=4)), kind,
                     _fault(kind, bags.setdefault(kind, []), dice))
                 for kind in kinds[: count - len(jobs)]]  # fmt: skip
    return jobs


def _fault(kind: Kind, bag: list[str], dice: random.Random) -> str:
    """From a bag for each kind, so that every fault has its turn with it."""
    if not bag:
        bag += _faults(kind)
        dice.shuffle(bag)
    return bag.pop()


def _faults(kind: Kind) -> list[str]:
    if not kind.lane:
        return [""]
    # Half a sound is a sound: nobody can tell that it was cut.
    heard = [fault for fault in IN_DOUBT if (kind.lane, fault) != ("elevenlabs", "garbled")]
    faults = [
        *AT_SUBMIT,
        *(f"{fault}*1" for fault in heard),
        *(AT_POLL if kind.polled else ()),
        "invalid",
    ]
    if kind.source != "background_jobs" and kind.lane not in ("elevenlabs", "freepik"):
        faults.append("policy")
    if kind.lane == ASKED:
        return faults + [""] * (len(faults) // 2)
    # Half of what goes wrong here waits for a person, and that is enough of it.
    return faults + [""] * len(faults)


# ------------------------------------------------------------------------------ rows


async def prepare(store: Store) -> None:
    """Room for many at once, and models of all providers that write."""
    await store.script(_ROOM)
    for kind in KINDS:
        if kind.source == "ai_generations" and kind.lane != "openai":
            await store.value(_MODEL, kind.lane, kind.model)


async def insert(store: Store, jobs: Sequence[Job]) -> None:
    rows = json.dumps(
        [
            {
                "key": job.key,
                "lane": job.kind.lane,
                "type": job.kind.type,
                "settings": job.kind.settings,
                "words": job.words,
                "source": job.kind.source,
            }
            for job in jobs
        ]
    )
    for statement in (_MEDIA, _TEXTS, _BACKGROUND):
        await store.value(statement, rows)


_ROOM = """
UPDATE public.system_settings SET value = '60' WHERE key = 'generation_queue_max_concurrent'
"""

_MODEL = """
WITH provider AS (
    INSERT INTO ai_processing.ai_providers (name) VALUES ($1) RETURNING id)
INSERT INTO ai_processing.ai_models (provider_id, name) SELECT id, $2 FROM provider RETURNING id
"""

_GIVEN = """
WITH given AS (
    SELECT j.*, row_number() OVER () AS n
      FROM jsonb_to_recordset($1::jsonb) AS j (key uuid, lane text, type text, settings text, words text, source text)
)
"""

# Customers 8 to 10 may have as many projects as they like.
_MEDIA = (
    _GIVEN
    + """
, projects AS (
    INSERT INTO public.video_projects
           (id, user_id, title_i18n, style, resolution, ai_prompt, generation_settings)
    SELECT key, ('a0000000-0000-4000-8000-' || lpad((8 + n % 3)::text, 12, '0'))::uuid,
           '{"en": "Proof"}', 'cinematic', '720p', 'Waves on a pier at sunset ' || words, settings::jsonb
      FROM given WHERE source = 'generation_jobs' RETURNING id, user_id)
, made AS (
    INSERT INTO public.generation_jobs (id, project_id, user_id, job_type, generation_service, priority)
    SELECT g.key, p.id, p.user_id, g.type, g.lane, 1 + g.n % 10
      FROM given g JOIN projects p ON p.id = g.key RETURNING 1)
SELECT count(*) FROM made
"""
)

_TEXTS = (
    _GIVEN
    + """
, made AS (
    INSERT INTO ai_processing.ai_generations
           (id, user_id, project_id, model_id, prompt, system_prompt, max_tokens)
    SELECT g.key, ('e0000000-0000-4000-8000-00000000000' || 2 + g.n % 2)::uuid,
           'e5000000-0000-4000-8000-000000000002', m.id,
           'Write about the smell of bread ' || g.words, 'You are a patient editor.', 200
      FROM given g JOIN ai_processing.ai_providers p ON p.name = g.lane
      JOIN ai_processing.ai_models m ON m.provider_id = p.id AND m.name NOT LIKE '%embedding%'
     WHERE g.source = 'ai_generations' RETURNING 1)
SELECT count(*) FROM made
"""
)

_BACKGROUND = (
    _GIVEN
    + """
, chapters AS (
    INSERT INTO content.chapters (id, project_id, title, position, content)
    SELECT key, 'e5000000-0000-4000-8000-000000000001', 'Proof',
           (SELECT max(position) FROM content.chapters) + n, 'Patience is the first ingredient. ' || words
      FROM given WHERE source = 'background_jobs' RETURNING id)
, made AS (
    INSERT INTO system.background_jobs (id, job_type, payload)
    SELECT g.key, g.type, jsonb_build_object('content_type', 'chapter', 'content_id', c.id)
      FROM given g JOIN chapters c ON c.id = g.key RETURNING 1)
SELECT count(*) FROM made
"""
)
