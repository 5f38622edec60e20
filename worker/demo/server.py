"""Where the demo's database is: on the server that is configured, or on one of its own."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from worker.store import Store


@asynccontextmanager
async def demo_database(home: Path) -> AsyncIterator[str]:
    """A fresh database; with ROWMILL_DATABASE_URL on that server, else embedded under `home`."""
    given = os.environ.get("ROWMILL_DATABASE_URL")
    if given:
        name = f"rowmill_demo_{secrets.token_hex(4)}"
        store = await Store.open(given)
        try:
            await store.script(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
        finally:
            await store.close()
        yield re.sub(r"^(\w+://[^/?]*)(/[^?]*)?", rf"\1/{name}", given)
        return
    from worker.embedded import embedded_postgres  # noqa: PLC0415 - an optional dependency

    with embedded_postgres(home / "postgres", keep=True) as server:
        yield server.dsn()
