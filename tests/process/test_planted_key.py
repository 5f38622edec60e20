"""Keys and passwords stay where they were put: in a worker's environment and a provider's requests.

Every secret of these tests begins with the same word. Workers and commands run with them, at a
provider that works and at one that tells whatever it is sent; then everything they left is read.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobs.providers.registry import ADAPTERS
from tests.process.fleet import Fleet, Worker, until
from tests.process.gossip import ELSEWHERE, SAID, WAYS, Gossip, gossip
from worker.store import Store, trials

pytestmark = pytest.mark.process

PLANTED = "planted-7f3a"


@dataclass(frozen=True, slots=True)
class Work:
    adapter: str
    path: str
    """In the sandbox."""
    kind: str
    model: str


WORK = {
    work.adapter: work
    for work in (
        Work("anthropic", "anthropic/v1", "text", "claude-haiku-4-5"),
        Work("elevenlabs", "elevenlabs/v1", "media:audio", "eleven_multilingual_v2"),
        Work("freepik", "freepik/v1/ai", "media:thumbnail", "mystic"),
        Work("gemini", "gemini/v1beta", "text", "gemini-3.8-flash"),
        Work("openai", "openai/v1", "text", "gpt-4o-mini"),
        Work("openai_responses", "openai/v1", "text", "gpt-4o-mini"),
        Work("replicate", "replicate/v1", "media:thumbnail", "sandbox/image"),
        Work("runway", "runway/v1", "media:thumbnail", "gen4_image"),
        Work("stability", "stability/v2beta", "media:thumbnail", "core"),
    )
}
KEY_HEADERS = {
    "anthropic": "x-api-key",
    "elevenlabs": "xi-api-key",
    "freepik": "x-magnific-api-key",
    "gemini": "x-goog-api-key",
}
GATEWAY = f"{PLANTED}-gateway"

_TABLES = """
SELECT format('%I.%I', n.nspname, c.relname) AS name
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
"""
_DECIDED = """
SELECT t.id::text, t.provider, t.status, coalesce(t.error, q.note) AS told,
       t.status NOT IN ('queued', 'processing') OR q.state IN ('held', 'scheduled') AS decided
  FROM rowmill.trials t LEFT JOIN rowmill.queue q ON q.row_key = t.id::text
"""


def planted(what: str) -> str:
    return f"{PLANTED}-{what}/{secrets.token_hex(12)}"


@pytest.fixture
async def teller() -> AsyncIterator[Gossip]:
    async with gossip() as server:
        yield server


def configured(fleet: Fleet, teller: Gossip) -> tuple[dict[str, Any], dict[str, Work]]:
    """Settings of every adapter at the sandbox and at the gossip, and the work of each lane."""
    settings: dict[str, Any] = {}
    lanes: dict[str, Work] = {}
    for adapter, work in WORK.items():
        places = {adapter: f"{fleet.sandbox.url}/{work.path}"}
        ways = (*WAYS, ELSEWHERE) if adapter == "replicate" else WAYS
        places |= {f"{adapter}_{way}": f"{teller.url}/{way}/{adapter}_{way}" for way in ways}
        for lane, url in places.items():
            name = f"PROVIDERS__{lane.upper()}"
            settings |= {
                f"{name}__ADAPTER": adapter,
                f"{name}__BASE_URL": url,
                key_of(lane): planted(lane),
                f"{name}__HEADERS": json.dumps({"X-Gateway-Token": GATEWAY}),
                f"{name}__POLL_SECONDS": "0.1",
                f"{name}__REQUEST_TIMEOUT": "5",
            }
            lanes[lane] = work
    return settings, lanes


def key_of(lane: str) -> str:
    return f"PROVIDERS__{lane.upper()}__API_KEY"


def keys_in(headers: Mapping[str, str]) -> dict[str, str]:
    found = {name: value for name, value in headers.items() if PLANTED in value}
    return {name: value.removeprefix("Bearer ") for name, value in found.items()}


def with_password(dsn: str) -> str:
    return re.sub(r"^(\w+://\w+)(:[^@/]*)?@", rf"\1:{PLANTED}-password@", dsn)


def secret_free(text: str, where: str) -> None:
    found = [text[max(0, m.start() - 60) : m.end() + 60] for m in re.finditer(PLANTED, text)]
    assert not found, f"{where}: {found[:3]}"


async def nothing_in_the_database(db: Any) -> None:
    for table in await db.fetch(_TABLES):
        rows = await db.fetch(
            f"SELECT t::text AS line FROM {table['name']} t WHERE strpos(t::text, $1) > 0", PLANTED
        )
        assert not [row["line"] for row in rows], table["name"]


def nothing_in_its_arguments(worker: Worker) -> None:
    line = Path(f"/proc/{worker.process.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    assert "worker.cli" in line
    secret_free(line, "the process's arguments")


def nothing_in_files(directory: Path) -> None:
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert [path for path in files if path.suffix == ".png"]
    for path in files:
        secret_free(path.read_bytes().decode("latin-1"), str(path))


async def test_a_key_is_only_ever_told_to_its_provider(
    db: Any, both: str, fleet: Fleet, teller: Gossip
) -> None:
    assert WORK.keys() == ADAPTERS.keys()
    settings, work = configured(fleet, teller)
    settings["DATABASE_URL"] = with_password(both)
    settings["ALLOW_PRIVATE_HOSTS"] = "127.0.0.1,127.0.0.2"
    settings["UNKNOWN_PRICE"] = "1"
    store = await Store.open(both, size=2)
    await trials.prepare(store)
    for lane, one in work.items():
        await trials.insert(store, lane, one.kind, "A boat", one.model, 100, "test")
    await store.close()
    worker = await fleet.hire("a", slots=50, LOG_LEVEL="debug", **settings)

    async def decided() -> list[Any]:
        rows = await db.fetch(_DECIDED)
        return rows if all(row["decided"] for row in rows) else []

    rows = {row["provider"]: row for row in await until(decided, within=60)}
    nothing_in_its_arguments(worker)

    # It was a real trial: the good ones were made, the others came back with what they were told.
    made = {lane for lane, row in rows.items() if row["status"] == "completed"}
    assert made == {*WORK, f"replicate_{ELSEWHERE}"}, {k: rows[k]["told"] for k in WORK}
    for adapter in WORK:
        assert SAID in rows[f"{adapter}_refused"]["told"], rows[f"{adapter}_refused"]
    assert {heard.way for heard in teller.heard} == {*WAYS, ELSEWHERE}
    for heard in teller.heard:
        secret_free(heard.path, "a URL")
        adapter = work[heard.lane].adapter
        assert keys_in(heard.headers) == {
            KEY_HEADERS.get(adapter, "authorization"): settings[key_of(heard.lane)],
            "x-gateway-token": GATEWAY,
        }

    # Nobody was sent on to the other host with anything but the bare request for a file.
    assert [text.split()[:2] for text in teller.other] == [["GET", "/out.png"]]
    secret_free(" ".join(teller.other), "another host")

    stories = [("job", "show", rows[f"openai_{way}"]["id"], "--json") for way in WAYS]
    for words in (("status", "--json"), ("providers", "--json"), ("providers",), *stories):
        _, said = await fleet.command(*words, **settings)
        secret_free(said, " ".join(words))
    assert await worker.drain() == 0
    await nothing_in_the_database(db)
    secret_free(worker.log_file.read_text(), "the log")
    nothing_in_files(fleet.directory)


async def test_a_trial_that_fails_tells_no_key(fleet: Fleet, teller: Gossip) -> None:
    settings, work = configured(fleet, teller)
    settings["UNKNOWN_PRICE"] = "1"
    for lane in ("openai_refused", "stability_broken", "gemini_garbled"):
        words = ("try", lane, "A boat", "--max-cents", "50", "--model", work[lane].model)
        code, said = await fleet.command(*words, **settings)
        assert code == 1, said
        secret_free(said, lane)


# --------------------------------------------------------------------------- wrong settings

WRONG: dict[str, dict[str, str]] = {
    "a key of two lines": {"PROVIDERS__OPENAI__API_KEY": f"{PLANTED}\n{PLANTED}"},
    "a key that is no ASCII": {"PROVIDERS__OPENAI__API_KEY": f"{PLANTED}-\N{EURO SIGN}"},
    "a key where its provider should be": {"PROVIDERS__OPENAI": PLANTED},
    "keys instead of providers": {"PROVIDERS": PLANTED},
    "a key under a name nobody knows": {"PROVIDERS__OPENAI__APIKEY": PLANTED},
    "a header of two lines": {"PROVIDERS__OPENAI__HEADERS": f'{{"X-Token": "{PLANTED}\\n"}}'},
    "headers that are none": {"PROVIDERS__OPENAI__HEADERS": PLANTED},
    "a password in a DSN nobody answers": {"DATABASE_URL": f"postgresql://u:{PLANTED}@127.0.0.1:1/d"},
    "a password with a slash": {"DATABASE_URL": f"postgresql://u:a/{PLANTED}@127.0.0.1:1/d"},
    "a password with an at sign": {"DATABASE_URL": f"postgresql://u:a@{PLANTED}@127.0.0.1:1/d"},
    "a password as a parameter": {"DATABASE_URL": f"postgresql://127.0.0.1:1/d?password={PLANTED}"},
    "a DSN of another kind": {"DATABASE_URL": f"mysql://u:{PLANTED}@127.0.0.1/d"},
    "a DSN in words": {"DATABASE_URL": f"host=127.0.0.1 port=1 password={PLANTED}"},
    "no number as a port": {"DATABASE_URL": f"postgresql://u:{PLANTED}@127.0.0.1:x/d"},
    "a secret in the storage's URL": {"STORAGE_URL": f"s4://id:{PLANTED}@bucket/x"},
    "a secret as its parameter": {"STORAGE_URL": f"s4://bucket/x?secret_access_key={PLANTED}"},
    "a password for Redis": {"REDIS_URL": f"rediss://:{PLANTED}@127.0.0.1:x/0"},
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
async def test_a_wrong_setting_is_named_and_not_shown(fleet: Fleet, wrong: dict[str, str]) -> None:
    late = wrong.keys() & {"STORAGE_URL", "REDIS_URL"}  # what only a worker looks at
    code, said = await fleet.command(*(("run", "--burst") if late else ("status",)), **wrong)
    assert code in (2, 3) or "REDIS_URL" in wrong, said  # a worker does without Redis
    assert "Traceback" not in said
    secret_free(said, "what the command said")
