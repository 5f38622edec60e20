"""The embedded PostgreSQL, for real: started, joined, crashed, orphaned, hidden."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from worker import embedded_places
from worker.embedded import EmbeddedError, EmbeddedPostgres, embedded_postgres


async def ask(dsn: str, question: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """The temporary directory is closed to other users: as root this tests the move elsewhere."""
    path = tmp_path / "postgres"
    yield path
    cluster = EmbeddedPostgres(path)
    cluster.delete()


async def test_a_server_in_a_directory_and_nothing_left_of_it(place: Path) -> None:
    with embedded_postgres(place, tcp=True) as server:
        assert await ask(server.dsn(), "SHOW fsync") == "on"
        assert await ask(server.dsn(), "SELECT inet_client_addr() IS NULL") is True
        assert await ask(server.dsn(tcp=True), "SELECT host(inet_client_addr())") == "127.0.0.1"
        assert await ask(server.dsn("template1"), "SELECT current_database()") == "template1"
        home = server.home
    assert not home.exists()
    assert not (place / "cluster").is_symlink()
    with pytest.raises(OSError):  # noqa: PT011 - refused or gone, by the system's choice
        await ask(server.dsn(), "SELECT 1")


async def test_loopback_asks_for_the_password(place: Path) -> None:
    with embedded_postgres(place, tcp=True) as server:
        password = (server.home / "password").read_text()
        wrong = server.dsn(tcp=True).replace(password, "guess")
        with pytest.raises(asyncpg.InvalidPasswordError):
            await ask(wrong, "SELECT 1")


async def test_kept_data_is_there_at_the_next_start(place: Path) -> None:
    with embedded_postgres(place, keep=True) as server:
        await ask(server.dsn(), "CREATE TABLE kept AS SELECT 42 AS answer")
    with embedded_postgres(place, keep=True) as server:
        assert await ask(server.dsn(), "SELECT answer FROM kept") == 42


async def test_a_second_one_joins_and_does_not_stop_it(place: Path) -> None:
    with embedded_postgres(place, tcp=True) as server:
        with embedded_postgres(place) as joined:
            assert not joined.owned
            assert joined.pid == server.pid
            assert joined.dsn() == server.dsn()
            assert joined.dsn(tcp=True) == server.dsn(tcp=True)
        assert await ask(server.dsn(), "SELECT 1") == 1


async def test_a_crash_and_a_restart_at_the_same_address(place: Path) -> None:
    with embedded_postgres(place, tcp=True) as server:
        before = server.dsn(tcp=True)
        await ask(server.dsn(), "CREATE TABLE safe AS SELECT 1 AS one")
        server.stop("immediate")
        with pytest.raises(OSError):  # noqa: PT011 - refused or gone, by the system's choice
            await ask(before, "SELECT 1")
        server.start()
        assert server.dsn(tcp=True) == before
        assert await ask(before, "SELECT one FROM safe") == 1


async def test_settings_reach_the_server(place: Path) -> None:
    with embedded_postgres(place, settings={"application_name": "it's mine"}) as server:
        assert await ask(server.dsn(), "SHOW application_name") == "it's mine"


OWNER = """
import sys
from pathlib import Path
from worker.embedded import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.process
async def test_no_server_outlives_its_killed_owner(place: Path) -> None:
    with subprocess.Popen(  # noqa: ASYNC220 - nothing else runs on this loop
        [sys.executable, "-c", OWNER, str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        os.kill(owner.pid, signal.SIGKILL)
    # Starting waits for the directory's lock, which the old server holds until it is gone.
    with embedded_postgres(place) as server:
        assert server.owned
        assert server.pid != pid
        assert "immediate shutdown" not in server.log.read_text()


def test_a_server_that_cannot_start_says_why(place: Path) -> None:
    server = EmbeddedPostgres(place, settings={"shared_buffers": "lots"})
    with pytest.raises(EmbeddedError, match="shared_buffers"):
        server.start()
    assert not server.owned


def test_a_missing_wheel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(EmbeddedError, match=r"pip install 'rowmill\[embedded\]'"):
        embedded_places.wheel_binaries()


def test_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    home = tmp_path / ("long" * 20)
    home.mkdir()
    first = embedded_places.socket_dir(home, None)
    try:
        assert len(str(first / ".s.PGSQL.65535")) < 104
        assert embedded_places.socket_dir(home, None) == first
        assert first.stat().st_mode & 0o077 == 0
    finally:
        first.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hides a directory from the server's user")
async def test_binaries_the_user_cannot_reach_are_copied(place: Path, tmp_path: Path) -> None:
    binaries = embedded_places.wheel_binaries()[0]
    packages = binaries.parents[2]
    hidden = tmp_path / "packages"
    hidden.symlink_to(packages)
    with embedded_postgres(place, binaries=hidden / binaries.relative_to(packages)) as server:
        assert list((server.home / "install").rglob("bin/postgres"))
        assert await ask(server.dsn(), "SELECT 1") == 1


# --------------------------------------------------------------------------- the fixtures


async def test_databases_of_a_test_are_its_own(new_database: Callable[[], Awaitable[str]]) -> None:
    first, second = await new_database(), await new_database()
    await ask(first, "CREATE TABLE mine ()")
    assert await ask(second, "SELECT to_regclass('mine')") is None


async def test_a_template_is_built_once_and_cloned(
    clone_database: Callable[..., Awaitable[str]],
) -> None:
    built = []

    async def build(dsn: str) -> None:
        built.append(dsn)
        await ask(dsn, "CREATE TABLE things AS SELECT 7 AS n")

    first = await clone_database("embedded: things", build)
    await ask(first, "DELETE FROM things")
    second = await clone_database("embedded: things", build)
    assert await ask(second, "SELECT n FROM things") == 7
    assert len(built) == 1
    assert len({first, second, *built}) == 3
