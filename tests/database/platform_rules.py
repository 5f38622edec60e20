"""Rule files, run as the engine runs them: embedded in plpgsql, with nothing on the search path."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.database.platform_samples import sql_file
from worker.generate.rules import statements, with_relation

RESULT = """result AS (
  SELECT r.*, r.key::uuid AS row_id FROM jsonb_to_recordset(v_results) AS r(
    key text, kind text, verb text, run integer, media_id uuid, outputs jsonb, text text,
    data jsonb, metadata jsonb, tokens integer, cost_cents numeric, provider text, model text,
    external_id text, duration_ms integer, error text))"""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule file; `file` is `<platform>/<source>.<rule>`."""

    connection: Any
    file: str

    def parts(self) -> list[str]:
        platform, name = self.file.split("/")
        return [with_relation(s, RESULT) for s in statements(sql_file(platform, f"{name}.sql"))]

    async def apply(self, keys: Sequence[str], results: Sequence[dict[str, Any]] = ()) -> None:
        body = "\n".join(f"{part};" for part in self.parts())
        await self._create("void", body)
        await self.connection.execute(
            "SELECT pg_temp.rule($1, $2)", list(keys), json.dumps(list(results))
        )

    async def inputs(self, keys: Sequence[str]) -> dict[str, Any]:
        (query,) = self.parts()
        body = f"RETURN QUERY SELECT i.key, i.input FROM ({query}\n) i;"
        await self._create("TABLE (key uuid, input jsonb)", body)
        rows = await self.connection.fetch("SELECT * FROM pg_temp.rule($1, NULL)", list(keys))
        assert len(rows) == len(keys)
        return {str(row["key"]): json.loads(row["input"]) for row in rows}

    async def plans(self, keys: Sequence[str], results: Sequence[dict[str, Any]]) -> str:
        """The generic plans of all its statements, as a function called for long comes to use."""
        await self.connection.execute("SET plan_cache_mode = force_generic_plan")
        found = []
        for number, part in enumerate(self.parts()):
            query = part.replace("rowmill_keys", "$1").replace("v_results", "$2")
            name = f"rule_{number}"
            await self.connection.execute(f"PREPARE {name}(uuid[], jsonb) AS {query}")
            listed = "{" + ",".join(keys) + "}"
            values = json.dumps(list(results)).replace("'", "''")
            found += await self.connection.fetch(f"EXPLAIN EXECUTE {name}('{listed}', '{values}')")
            await self.connection.execute(f"DEALLOCATE {name}")
        return "\n".join(row[0] for row in found)

    async def _create(self, returns: str, body: str) -> None:
        await self.connection.execute("DROP FUNCTION IF EXISTS pg_temp.rule(uuid[], jsonb)")
        await self.connection.execute(
            f"CREATE FUNCTION pg_temp.rule(rowmill_keys uuid[], v_results jsonb) RETURNS {returns} "
            f"LANGUAGE plpgsql SET search_path = pg_catalog AS $rule$\n"
            f"#variable_conflict use_column\nBEGIN\n{body}\nEND $rule$"
        )


# --------------------------------------------------------------------------- results


def output(key: str, media_id: str, **changes: Any) -> dict[str, Any]:
    return {
        "role": "main",
        "media_id": media_id,
        "key": key,
        "url": f"https://media.example.com/{key}",
        "mime_type": "video/mp4",
        "file_type": "video",
        "size": 54321,
        "sha256": "ab" * 32,
        "filename": "clip.mp4",
        "width": 1280,
        "height": 720,
        "duration_seconds": 2.04,
        **changes,
    }


def thumbnail(key: str) -> dict[str, Any]:
    picture = {"role": "thumbnail", "mime_type": "image/jpeg", "file_type": "image"}
    return output(key, str(uuid.uuid4()), **picture)


def result(key: str, media_id: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"key": key, "media_id": media_id, "verb": "succeed", "run": 1, **fields}
