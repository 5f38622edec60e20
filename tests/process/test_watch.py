"""`rowmill watch` in a real terminal, on a server of its own that is stopped and started."""

from __future__ import annotations

import asyncio
import html
import re
import signal
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.commandline import Rowmill
from tests.database.conftest import attached
from tests.database.hand import Hand
from tests.database.support import add_background, add_texts, add_videos
from tests.process.fleet import Fleet, Sandbox, until, until_sql
from tests.process.postgres import frozen, own_postgres
from tests.process.rows import add_media
from tests.process.seat import Seat, kept
from worker.embedded import EmbeddedPostgres
from worker.store import Store
from worker.watch.picture import picture

pytestmark = pytest.mark.process

SCREENS = Path(__file__).parent / "screens"

SLOW = "this one takes its time"
"""In a prompt: polls of such a job hang until the test lets them go on."""


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server whose log tells every statement, when it began and whose it is."""
    with own_postgres(tmp_path_factory.mktemp("watch")) as server:
        asyncio.run(_furnished(server.dsn()))
        yield server


FURNISHED = """
ALTER SYSTEM SET log_statement = 'all';
ALTER SYSTEM SET log_line_prefix = '%m|%a|%p|';
ALTER SYSTEM SET log_timezone = 'UTC';
"""


async def _furnished(dsn: str) -> None:
    await attached("photomemory", "ebook")(dsn)
    connection = await asyncpg.connect(dsn)
    for statement in FURNISHED.strip().split("\n"):
        await connection.execute(statement)
    await connection.execute("SELECT pg_reload_conf()")
    await _with_jobs(connection, dsn)
    await connection.close()


async def _with_jobs(connection: Any, dsn: str) -> None:
    """Two videos at work, one of them with a name that would move the cursor; others wait."""
    store = await Store.open(dsn, 2)
    await connection.execute(
        "UPDATE public.system_settings SET value = '60'"
        " WHERE key = 'generation_queue_max_concurrent'"
    )
    hand = await Hand.hire(store, ("replicate",))
    await connection.execute(
        "UPDATE rowmill.workers SET name = E'evil\\x1b[2J[red]', host = E'evil\\x1b[2J[red]',"
        " running = 2"
    )
    await add_videos(connection, 2)
    await hand.start(await hand.claim(2))
    await connection.execute(
        "UPDATE public.generation_jobs g SET progress_percentage = 35 + 30 * n.n"
        "  FROM (SELECT row_key::uuid AS id, row_number() OVER (ORDER BY id) AS n"
        "          FROM rowmill.queue WHERE state = 'claimed') n WHERE n.id = g.id"
    )
    await add_videos(connection, 3)
    await add_texts(connection, 4)
    (held,) = await add_background(connection)
    await connection.execute(
        "UPDATE rowmill.queue SET state = 'held', note = 'nobody knows' WHERE row_key = $1", held
    )
    await connection.execute("UPDATE rowmill.queue SET enqueued_at = now() - interval '2 hours'")
    await store.close()


@pytest.fixture
async def db(postgres: EmbeddedPostgres) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(postgres.dsn())
    yield connection
    connection.terminate()


def normalised(screen: str) -> str:
    """Without what differs from run to run; everything keeps its place."""
    screen = re.sub(r"^rowmill .*Z$", "rowmill VERSION  DATABASE  TIME", screen, flags=re.MULTILINE)
    screen = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{4,}…?", lambda m: "K" * len(m[0]), screen)
    return re.sub(r" +\d+(\.\d)?(ms|[smhd])\b", lambda m: " " * (len(m[0]) - 1) + "T", screen)


# In the middle of stretches of the history, none of them in the last minute.
LATELY = """
INSERT INTO rowmill.pulses (at, worker, source, lane, started, succeeded, failed, retried, yielded,
                            waits, runs, arrived)
SELECT now() - make_interval(secs => 90 + 120 * n), w.id, 'generation_jobs', 'replicate', 2 * n,
       n, n, 0, 0, array_fill(0, ARRAY[9 + n]) || 2 * n || array_fill(0, ARRAY[22 - n]),
       array_fill(0, ARRAY[12]) || 2 * n || array_fill(0, ARRAY[19]), array_fill(0, ARRAY[30])
  FROM generate_series(1, 5) n, rowmill.workers w
"""


async def test_what_one_sees_and_does(postgres: EmbeddedPostgres, db: Any) -> None:
    await db.execute(LATELY)
    seat = await Seat.take("watch", dsn=postgres.dsn())
    try:
        await seat.shows("replicate", "95%", "evil", "rowmill job show", "Providers: 1 ok")
        assert normalised(seat.text) == kept("watch-80x24", normalised(seat.text), SCREENS)
        await filters(seat)
        await opens_a_job(seat, db)
        await opens_a_lane(seat)
        await pauses_and_resumes(seat, db)
        assert COLOUR.search(seat.sent)
        await grows(seat)
        await survives_an_outage(seat, postgres)
        with frozen(postgres):  # it needs no answer to end
            seat.process.terminate()
            assert await seat.ended() == 128 + signal.SIGTERM
        assert seat.restored
    finally:
        await seat.leave()


async def filters(seat: Seat) -> None:
    seat.press("/")
    await seat.shows("part of a lane's")
    seat.press("open")
    await seat.sees(lambda s: "openai" in s.text and "95%" not in s.text)
    seat.press("enter", "escape")
    await seat.shows("95%", "q quit")


async def opens_a_job(seat: Seat, db: Any) -> None:
    """And cancels it, after a question."""
    seat.press("tab")
    await seat.shows("━ Running")
    seat.press("down", "enter")
    await seat.shows("rowmill job show generation_jobs/", "running on evil")
    key = seat.line("job show").rsplit("/", 1)[1]
    seat.press("c")
    await seat.shows("Cancel generation_jobs/", "y: yes")
    seat.press("n")
    await seat.sees(lambda s: "y: yes" not in s.text)
    assert await status_of(db, key) == "processing"
    seat.press("c")
    await seat.shows("y: yes")
    seat.press("y")
    await seat.shows(f"{key} is cancelled")
    assert await status_of(db, key) == "cancelled"
    subject = await db.fetchval("SELECT subject FROM rowmill.actions WHERE action = 'cancel'")
    assert subject == f"generation_jobs/{key}"
    seat.press("escape")
    await seat.sees(lambda s: "65%" in s.text and "95%" not in s.text)


async def status_of(db: Any, key: str) -> str:
    query = "SELECT status::text FROM public.generation_jobs WHERE id = $1"
    return str(await db.fetchval(query, key))


async def opens_a_lane(seat: Seat) -> None:
    seat.press("\x1b[Z")  # Shift-Tab
    await seat.shows("━ Lanes")
    seat.press("g", "enter")
    await seat.shows("next, then held", "nobody knows")
    seat.press("escape")
    await seat.shows("━ Lanes")


GATE = "SELECT paused_by, pause_reason FROM rowmill.lanes WHERE lane = 'openai' AND source = '*'"


async def pauses_and_resumes(seat: Seat, db: Any) -> None:
    seat.press("down", "p")
    await seat.shows("Pause lane openai?", "4 would wait")
    seat.press("too dear", "enter")
    await seat.shows("lane openai is paused")
    by, reason = await db.fetchrow(GATE)
    assert (reason, "@" in by) == ("too dear", True)
    await seat.sees(lambda s: "paused" in s.line("openai   "))
    seat.press("p")
    await seat.shows("Resume lane openai?")
    seat.press("y")
    await seat.shows("lane openai is resumed")
    actions = await db.fetch("SELECT action, subject FROM rowmill.actions WHERE who = $1", by)
    done = [tuple(a) for a in actions if a["subject"] == "lane openai"]
    assert done == [("pause", "lane openai"), ("resume", "lane openai")]


async def grows(seat: Seat) -> None:
    """A larger terminal shows what the small one had no room for."""
    assert "p95" not in seat.text
    seat.resize(150, 40)
    await seat.shows("p95", "table")
    assert max(map(len, seat.lines)) > 130
    seat.resize(80, 24)
    await seat.sees(lambda s: "p95" not in s.text)


async def survives_an_outage(seat: Seat, postgres: EmbeddedPostgres) -> None:
    with frozen(postgres):
        await seat.shows("no answer since", "isn't answered yet")
    await seat.sees(lambda s: "no answer" not in s.text and "ready" in s.text)
    postgres.stop("immediate")
    await seat.shows("no answer since", "replicate")  # the last picture stays
    postgres.start()
    await seat.sees(lambda s: "no answer" not in s.text and "ready" in s.text)


async def test_one_question_a_second_none_while_suspended_and_a_closed_window_ends_it(
    postgres: EmbeddedPostgres, db: Any
) -> None:
    before = {pid for pid, _ in asked(postgres)}
    seat = await Seat.take("watch", "--lane", "replic", dsn=postgres.dsn(), NO_COLOR="1")
    try:
        await seat.shows("Lanes /replic", "replicate")
        assert not seat.line("openai  ")
        assert not COLOUR.search(seat.sent)

        async def seven() -> list[datetime]:
            times = [at for pid, at in asked(postgres) if pid not in before]
            return times if len(times) > 6 else []

        times = await until(seven)
        assert len(times) - 1.5 < (times[-1] - times[0]).total_seconds()
        assert len({pid for pid, _ in asked(postgres)} - before) == 1  # so never two at a time
        seat.press("ctrl+z")

        async def stopped() -> bool:
            state = Path(f"/proc/{seat.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
            return state == "T"

        await until(stopped)
        assert seat.restored
        seat.process.send_signal(signal.SIGCONT)
        await seat.sees(lambda s: not s.restored and "Lanes /replic" in s.text)
        seat.hang_up()
        assert await seat.ended() == 128 + signal.SIGHUP
        gone = "SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'rowmill watch'"
        await until_sql(db, gone)
    finally:
        await seat.leave()


COLOUR = re.compile(r"\x1b\[(\d+;)*[349][0-8](;\d+)*m")

BREAKS = """
import sys
from worker.watch import panels
secret = "hunter2"
def breaks(*_):
    mine = secret
    raise LookupError("a mistake of ours")
panels.lanes = breaks
from worker.cli import main
sys.argv = ["rowmill", "watch"]
main()
"""


async def test_a_mistake_of_ours_gives_the_terminal_back(postgres: EmbeddedPostgres) -> None:
    seat = await Seat.take(dsn=postgres.dsn(), program=("-c", BREAKS), size=(120, 40))
    try:
        assert await seat.ended() == 1
        assert seat.restored
        assert "LookupError: a mistake of ours" in seat.text
        assert "hunter2" not in seat.sent.replace(BREAKS, "")
    finally:
        await seat.leave()


async def test_a_real_worker_s_progress_and_its_leaving(both: str, tmp_path: Path) -> None:
    """Bars grow as its jobs do; then it is drained from the screen, and ends."""
    connection = await asyncpg.connect(both)
    sandbox = await Sandbox.start(tmp_path, duration=12)
    fleet = Fleet(both, sandbox, tmp_path)
    worker = await fleet.hire("busy", slots=4)
    (key,) = await add_media(connection)
    await sandbox.fault("poll-hang", match=SLOW)
    await add_media(connection, prompt=SLOW)
    seat = await Seat.take("watch", dsn=both, size=(100, 30))
    try:
        seen = await seat.sees(lambda s: percent(s, key[:8]))
        await seat.sees(lambda s: percent(s, key[:8]) > seen)
        seat.press("tab", "tab")
        await seat.shows("━ Workers")
        seat.press("d")
        await seat.shows("Drain worker busy?")
        seat.press("y")
        await seat.shows("busy drains: it claims nothing more")
        await seat.sees(lambda s: "draining" in row_of(s, "busy"))
        await sandbox.clear_faults()
        assert await worker.ended() == 0
        await seat.sees(lambda s: not row_of(s, "busy"))
        seat.press("q")
        assert await seat.ended() == 0
        assert seat.restored
        assert await status_of(connection, key) == "completed"
        assert await connection.fetchval("SELECT who FROM rowmill.actions WHERE action = 'drain'")
    finally:
        await seat.leave()
        await fleet.dismiss()
        await sandbox.stop()
        connection.terminate()


def row_of(seat: Seat, name: str) -> str:
    """The line that begins with it, and goes on in the next column."""
    return next((line for line in seat.lines if line.startswith(f"{name}  ")), "")


def percent(seat: Seat, key: str) -> int:
    found = re.search(r"(\d+)%", seat.line(key))
    return int(found[1]) if found else 0


def asked(postgres: EmbeddedPostgres) -> list[tuple[str, datetime]]:
    """Which process was asked when, by the server's own log, of what viewers asked."""
    lines = (line.split("|") for line in postgres.log.read_text().splitlines())
    return [
        (line[2], datetime.fromisoformat(line[0][:23]))
        for line in lines
        if len(line) > 3 and line[1] == "rowmill watch" and "execute" in line[3]
    ]


async def test_where_nothing_can_be_drawn_it_says_what_to_do(
    postgres: EmbeddedPostgres, rowmill: Rowmill
) -> None:
    piped = await rowmill(postgres.dsn(), "watch")
    assert piped.code == 2
    assert "rowmill status --json" in piped.err
    seat = await Seat.take("watch", dsn=postgres.dsn(), TERM="dumb")
    try:
        assert await seat.ended() == 2
        assert "rowmill status" in seat.text.replace("\n", "")
    finally:
        await seat.leave()


async def test_the_same_screen_as_a_picture(postgres: EmbeddedPostgres) -> None:
    svg = await picture(postgres.dsn(), (120, 30), reports=1, keys=("tab",))
    assert svg.startswith("<svg")
    shown = html.unescape(re.sub(r"<[^>]*>", "", svg)).replace("\xa0", " ")
    assert "━ Running" in shown
    assert "media:video" in shown
