"""Ebook's rule files, each on the platform's own schema and sample rows."""

from __future__ import annotations

import json
import uuid
from decimal import Decimal
from typing import Any

import pytest

from tests.database.platform_rules import Rule
from tests.database.platform_samples import CloneDatabase, sample_of

AUTHOR = "e0000000-0000-4000-8000-000000000003"
FREE_USER = "e0000000-0000-4000-8000-000000000001"
BOOK = "e5000000-0000-4000-8000-000000000002"
WRITTEN, SECOND, EMPTY = (f"e6000000-0000-4000-8000-00000000000{n}" for n in (5, 6, 8))
MODEL = "e2000000-0000-4000-8000-000000000001"


async def insert(connection: Any, table: str, values: dict[str, Any]) -> str:
    names, marks = ", ".join(values), ", ".join(f"${n}" for n in range(1, len(values) + 1))
    return str(
        await connection.fetchval(
            f"INSERT INTO {table} ({names}) VALUES ({marks}) RETURNING id", *values.values()
        )
    )


async def generation(connection: Any, **columns: Any) -> str:
    default = {"user_id": AUTHOR, "model_id": MODEL, "prompt": "Write on."}
    return await insert(connection, "ai_processing.ai_generations", {**default, **columns})


async def background(connection: Any, job_type: str, payload: Any) -> str:
    values = {"job_type": job_type, "payload": json.dumps(payload)}
    return await insert(connection, "system.background_jobs", values)


def result(key: str, **fields: Any) -> dict[str, Any]:
    return {"key": key, "verb": "succeed", "run": 1, "cost_cents": "0", **fields}


async def chapter(connection: Any, key: str) -> Any:
    return await connection.fetchrow("SELECT * FROM content.chapters WHERE id = $1", key)


# --------------------------------------------------------------------------- generations: input


async def test_input_of_a_generation(clone_database: CloneDatabase) -> None:
    async with sample_of("ebook", clone_database) as connection:
        full = await generation(
            connection,
            system_prompt="Be brief.",
            temperature=Decimal("1.25"),
            max_tokens=200,
            chapter_id=EMPTY,
            project_id=BOOK,
        )
        bare = await generation(connection, temperature=None)
        found = await Rule(connection, "ebook/ai_generations.input").inputs([full, bare])
        assert found[full] == {
            "prompt": "Write on.",
            "system_prompt": "Be brief.",
            "temperature": 1.25,
            "max_tokens": 200,
            "model": "gpt-4o-mini",
            "version": "2024-07-18",
            "model_status": "active",
            "provider": "openai",
            "provider_status": "active",
            "cost_per_input_token": "0.00000015",
            "cost_per_output_token": "0.00000060",
            "capabilities": {"chat": True, "json_mode": True},
            "context_window": 128000,
            "model_max_tokens": 16384,
            "chapter_id": EMPTY,
            "project_id": BOOK,
            "user_id": AUTHOR,
            "user_status": "active",
            "replace_content": None,
        }
        assert (found[bare]["temperature"], found[bare]["chapter_id"]) == (0.7, None)
        for status, read in {
            None: "active",
            "suspended": "suspended",
            "deleted": "deleted",
        }.items():
            await connection.execute("UPDATE users.users SET status = $1", status)
            found = await Rule(connection, "ebook/ai_generations.input").inputs([bare])
            assert found[bare]["user_status"] == read


@pytest.mark.parametrize(
    ("of_model", "of_provider", "read"),
    [
        ((None, None), "0.00000123", ("0.00000123", "0.00000123")),
        (("0.00000010", None), "0.00000123", ("0.00000010", "0.00000123")),
        (("0.00000000", "0.00000060"), "0.00000123", ("0.00000000", "0.00000060")),
        ((None, "0.00000060"), None, (None, "0.00000060")),
    ],
)
async def test_a_providers_price_stands_in_where_a_model_has_none(
    clone_database: CloneDatabase,
    of_model: tuple[str | None, str | None],
    of_provider: str | None,
    read: tuple[str | None, str | None],
) -> None:
    async with sample_of("ebook", clone_database) as connection:
        key = await generation(connection)
        await connection.execute(
            "UPDATE ai_processing.ai_models SET status = NULL,"
            " cost_per_input_token = $1::text::numeric, cost_per_output_token = $2::text::numeric",
            *of_model,
        )
        await connection.execute(
            "UPDATE ai_processing.ai_providers SET status = NULL,"
            " cost_per_token = $1::text::numeric",
            of_provider,
        )
        found = (await Rule(connection, "ebook/ai_generations.input").inputs([key]))[key]
        assert (found["cost_per_input_token"], found["cost_per_output_token"]) == read
        assert (found["model_status"], found["provider_status"]) == ("active", "active")


# --------------------------------------------------------------------------- generations: finish


async def test_versions_of_one_batch_are_consecutive(clone_database: CloneDatabase) -> None:
    async with sample_of("ebook", clone_database) as connection:
        rule = Rule(connection, "ebook/ai_generations.finish")
        keys = [await generation(connection, chapter_id=WRITTEN) for _ in range(3)]
        other = await generation(connection, chapter_id=SECOND)
        no_chapter = await generation(connection)
        await rule.apply([keys[0]], [result(keys[0], text="first  text\nhere")])
        batch = [keys[2], other, no_chapter, keys[1]]
        await rule.apply(batch, [result(key, text=f"text {n}") for n, key in enumerate(batch)])

        rows = await connection.fetch(
            "SELECT * FROM content.content_versions ORDER BY chapter_id, version_number"
        )
        assert [(str(r["chapter_id"]), r["version_number"], r["content"]) for r in rows] == [
            (WRITTEN, 1, "first  text\nhere"),
            (WRITTEN, 2, "text 3"),
            (WRITTEN, 3, "text 0"),
            (SECOND, 1, "text 1"),
        ]
        assert (rows[0]["change_type"], str(rows[0]["changed_by"])) == ("ai_generation", AUTHOR)
        assert (rows[0]["word_count"], rows[0]["title"]) == (3, "The Last Ship")
        assert keys[0] in rows[0]["change_summary"]


async def test_a_written_chapter_keeps_its_text(clone_database: CloneDatabase) -> None:
    async with sample_of("ebook", clone_database) as connection:
        before = await chapter(connection, WRITTEN)
        key = await generation(connection, chapter_id=WRITTEN, prompt="Go on.")
        await Rule(connection, "ebook/ai_generations.finish").apply(
            [key], [result(key, text="New.", model="gpt-4o-mini-2024-07-18")]
        )
        after = await chapter(connection, WRITTEN)
        same = ("content", "word_count", "character_count", "title", "status")
        assert [after[name] for name in same] == [before[name] for name in same]
        assert (after["ai_generated"], after["ai_prompt_used"]) == (True, "Go on.")
        assert after["ai_model"] == "gpt-4o-mini-2024-07-18"
        assert after["ai_generation_timestamp"] == after["updated_at"] > before["updated_at"]


@pytest.mark.parametrize("content", [None, "", " \n\t"])
async def test_an_empty_chapter_is_filled(
    clone_database: CloneDatabase, content: str | None
) -> None:
    async with sample_of("ebook", clone_database) as connection:
        await connection.execute("UPDATE content.chapters SET content = $1", content)
        key = await generation(connection, chapter_id=EMPTY)
        await Rule(connection, "ebook/ai_generations.finish").apply(
            [key], [result(key, text="Naïve words, three")]
        )
        row = await chapter(connection, EMPTY)
        assert row["content"] == "Naïve words, three"
        assert (row["word_count"], row["character_count"]) == (3, 18)
        assert row["ai_model"] == "gpt-4o-mini"


@pytest.mark.parametrize(
    ("target", "asked", "kept"),
    [
        (WRITTEN, [False, True, False], "text 1"),  # the one that asked, though not the last
        (WRITTEN, [True, True, False], "text 1"),
        (EMPTY, [False, False, False], "text 2"),
        (EMPTY, [True, False, False], "text 0"),
    ],
)
async def test_one_batch_replaces_a_text_once(
    clone_database: CloneDatabase, target: str, asked: list[bool], kept: str
) -> None:
    async with sample_of("ebook", clone_database) as connection:
        keys = [
            await generation(connection, chapter_id=target, prompt=f"prompt {n}") for n in range(3)
        ]
        results = [
            result(key, text=f"text {n}", data={"replace_content": asked[n]})
            for n, key in enumerate(keys)
        ]
        await Rule(connection, "ebook/ai_generations.finish").apply(keys, results[::-1])
        row = await chapter(connection, target)
        assert (row["content"], row["word_count"], row["character_count"]) == (kept, 2, 6)
        assert row["ai_prompt_used"] == "prompt 2"


# --------------------------------------------------------------------------- generations: usage


async def test_usage_of_generations(clone_database: CloneDatabase) -> None:
    costs = {"100.5": "1.00", "101.5": "1.02", "0.4": "0.00", "2.51": "0.03"}
    async with sample_of("ebook", clone_database) as connection:
        keys = [await generation(connection, project_id=BOOK) for _ in costs]
        results = [result(k, cost_cents=c, tokens=1000) for k, c in zip(keys, costs, strict=True)]
        free = await generation(connection, user_id=FREE_USER)
        results.append(result(free, cost_cents=None, tokens=None))
        await Rule(connection, "ebook/ai_generations.usage").apply([*keys, free], results)
        rows = {
            str(row["ai_generation_id"]): row
            for row in await connection.fetch("SELECT * FROM billing.usage_records")
        }
        assert [str(rows[key]["total_cost"]) for key in keys] == list(costs.values())
        assert str(rows[keys[1]]["unit_cost"]) == "0.001015"
        assert str(rows[keys[2]]["unit_cost"]) == "0.000004"
        row = rows[keys[0]]
        assert (row["resource_type"], row["quantity"]) == ("ai_tokens", 1000)
        assert (str(row["user_id"]), str(row["project_id"])) == (AUTHOR, BOOK)
        assert str(row["subscription_id"]) == AUTHOR.replace("e0", "e4", 1)
        today = await connection.fetchval("SELECT (now() AT TIME ZONE 'UTC')::date")
        assert row["usage_date"] == today
        nothing = [rows[free][name] for name in ("quantity", "unit_cost", "subscription_id")]
        assert nothing == [0, None, None]
        assert len(rows) == 5


async def test_usage_takes_one_active_subscription(clone_database: CloneDatabase) -> None:
    """Nothing keeps a user from having several: the newest that runs is meant."""
    async with sample_of("ebook", clone_database) as connection:
        await connection.execute(
            """
            INSERT INTO billing.user_subscriptions
              (user_id, plan_id, status, current_period_start, current_period_end, amount)
            SELECT $1, plan.id, held.status, '2020-01-01', held.ends::timestamptz, 1
            FROM billing.subscription_plans AS plan,
                 (VALUES ('cancelled', '2099-01-01'), ('active', '2021-01-01'),
                         (NULL, '2099-01-01')) AS held(status, ends)
            WHERE plan.name = 'Basic'
            """,
            AUTHOR,
        )
        newest = await connection.fetchval(
            "SELECT id FROM billing.user_subscriptions WHERE status IS NULL"
        )
        key = await generation(connection)
        await Rule(connection, "ebook/ai_generations.usage").apply([key], [result(key, tokens=1)])
        used = await connection.fetchval("SELECT subscription_id FROM billing.usage_records")
        assert used == newest


# --------------------------------------------------------------------------- background: input


async def test_input_of_content_jobs(clone_database: CloneDatabase) -> None:
    async with sample_of("ebook", clone_database) as connection:
        text = (await chapter(connection, WRITTEN))["content"]
        wanted = {
            ("embed_content", "chapter", WRITTEN): text,
            ("embed_content", "chapter", WRITTEN.upper()): text,
            ("embed_content", "summary", WRITTEN): "A letter ends the service of the lighthouse.",
            ("embed_content", "summary", EMPTY): "",
            ("content_statistics", "chapter", EMPTY): "",
            ("content_statistics", "chapter", BOOK): None,
            ("content_statistics", "poem", WRITTEN): None,
            ("deliver_webhook", "chapter", WRITTEN): None,
        }
        keys = {
            await background(connection, kind, {"content_type": type_, "content_id": id_}): text
            for (kind, type_, id_), text in wanted.items()
        }
        found = await Rule(connection, "ebook/background_jobs.input").inputs(list(keys))
        assert {key: found[key]["content_text"] for key in keys} == keys

        whole = await background(
            connection, "content_statistics", {"content_type": "project", "content_id": BOOK}
        )
        found = await Rule(connection, "ebook/background_jobs.input").inputs([whole])
        assert found[whole]["content_title"] == "The Keeper of Small Lights"
        assert found[whole]["content_text"].startswith(text + "\n\nThere were thirty-one")
        assert (found[whole]["job_type"], found[whole]["content_id"]) == (
            "content_statistics",
            BOOK,
        )


@pytest.mark.parametrize("kind", ["embed_content", "content_statistics", "deliver_webhook"])
async def test_no_payload_fails_the_batch(clone_database: CloneDatabase, kind: str) -> None:
    odd: list[Any] = [
        {},
        [],
        "text",
        1,
        None,
        True,
        {"content_id": None, "content_type": "chapter"},
        {"content_id": "not-a-uuid", "content_type": "chapter"},
        {"content_id": WRITTEN + "\n", "content_type": "chapter"},
        {"content_id": "{" + WRITTEN + "}", "content_type": "chapter"},
        {"content_id": {"a": [1]}, "content_type": ["project"]},
        {"content_id": "é" * 36, "content_type": 5},
        [{"content_id": WRITTEN}],
    ]
    async with sample_of("ebook", clone_database) as connection:
        keys = [await background(connection, kind, payload) for payload in odd]
        found = await Rule(connection, "ebook/background_jobs.input").inputs(keys)
        assert [found[key]["payload"] for key in keys] == odd
        assert {found[key]["content_text"] for key in keys} == {None}


# --------------------------------------------------------------------------- background: finish


async def test_statistics_are_replaced(clone_database: CloneDatabase) -> None:
    async with sample_of("ebook", clone_database) as connection:
        rule = Rule(connection, "ebook/background_jobs.finish")
        named = {"content_id": WRITTEN, "content_type": "chapter"}
        keys = [await background(connection, "content_statistics", named) for _ in range(3)]
        webhook = await background(connection, "deliver_webhook", {})

        def counted(number: int) -> dict[str, Any]:
            data = {**named, "word_count": number, "flesch_reading_ease": 71.25, "topics": ["sea"]}
            return result(keys[number], data=data)

        await rule.apply([keys[0]], [counted(0)])
        odd = result(webhook, data={"content_id": "none", "word_count": "many"})
        await rule.apply([webhook, keys[2], keys[1]], [counted(2), odd, counted(1)])
        (row,) = await connection.fetch("SELECT * FROM content.content_statistics")
        assert (str(row["content_id"]), row["content_type"], row["word_count"]) == (
            WRITTEN,
            "chapter",
            2,
        )
        assert (row["flesch_reading_ease"], row["topics"]) == (Decimal("71.25"), '["sea"]')

        await rule.apply([webhook], [result(webhook, data=None)])
        assert await connection.fetchval("SELECT count(*) FROM content.content_statistics") == 1


async def test_embeddings_are_replaced(clone_database: CloneDatabase) -> None:
    async with sample_of("ebook", clone_database) as connection:
        if await connection.fetchval("SELECT to_regclass('content.content_embeddings')") is None:
            pytest.skip("this server has no pgvector")
        rule = Rule(connection, "ebook/background_jobs.embed_content.finish")
        keys = [await background(connection, "embed_content", {}) for _ in range(4)]
        models = ["small", "small", "small", "large"]

        def made(number: int) -> dict[str, Any]:
            data = {
                "content_id": WRITTEN,
                "content_type": "chapter",
                "model": models[number],
                "embedding": [float(number)] + [0.5] * 1535,
            }
            return result(keys[number], data=data)

        await rule.apply([keys[0]], [made(0)])
        await rule.apply(keys[1:], [made(2), made(3), made(1)])
        rows = await connection.fetch(
            "SELECT model, embedding::real[] AS vector FROM content.content_embeddings ORDER BY 1"
        )
        assert [(row["model"], row["vector"][:2]) for row in rows] == [
            ("large", [3.0, 0.5]),
            ("small", [2.0, 0.5]),
        ]


# --------------------------------------------------------------------------- plans


@pytest.mark.parametrize(
    "rule",
    [
        "ai_generations.input",
        "ai_generations.finish",
        "ai_generations.usage",
        "background_jobs.input",
        "background_jobs.finish",
        "background_jobs.generate_from_template.finish",
    ],
)
async def test_no_rule_reads_a_whole_table(clone_database: CloneDatabase, rule: str) -> None:
    small = ("on ai_models", "on ai_providers", "on prompt_templates")
    async with sample_of("ebook", clone_database) as connection:
        await connection.execute(
            f"""
            INSERT INTO users.users (id, email)
            SELECT md5('u' || n)::uuid, n || '@example.com' FROM generate_series(1, 5000) n;
            INSERT INTO billing.user_subscriptions
              (user_id, plan_id, current_period_start, current_period_end, amount)
            SELECT md5('u' || n)::uuid, p.id, '2020-01-01', '2099-01-01', 1
            FROM generate_series(1, 5000) n, billing.subscription_plans p WHERE p.name = 'Basic';
            INSERT INTO content.projects (id, title, owner_id)
            SELECT md5('p' || n)::uuid, 'p', md5('u' || n)::uuid FROM generate_series(1, 5000) n;
            INSERT INTO content.chapters (id, project_id, position)
            SELECT md5('c' || n)::uuid, md5('p' || n)::uuid, 1 FROM generate_series(1, 5000) n;
            INSERT INTO content.content_versions (chapter_id, version_number, content, changed_by)
            SELECT md5('c' || n)::uuid, 1, 'text', '{AUTHOR}' FROM generate_series(1, 5000) n;
            INSERT INTO ai_processing.ai_generations (id, user_id, model_id, prompt, chapter_id)
            SELECT md5('j' || n)::uuid, md5('u' || n)::uuid, '{MODEL}', 'x', md5('c' || n)::uuid
            FROM generate_series(1, 5000) n;
            INSERT INTO system.background_jobs (id, job_type, payload)
            SELECT md5('j' || n)::uuid, 'embed_content',
                   jsonb_build_object('content_type', 'chapter', 'content_id', md5('c' || n)::uuid)
            FROM generate_series(1, 5000) n;
            ANALYZE;
            """
        )
        ids = await connection.fetch("SELECT id::text FROM system.background_jobs LIMIT 200")
        keys = [row["id"] for row in ids]
        plan = await Rule(connection, f"ebook/{rule}").plans(keys, [result(key) for key in keys])
        scanned = [line.strip() for line in plan.splitlines() if "Seq Scan" in line]
        assert [line for line in scanned if not any(name in line for name in small)] == []
        assert f"{rule.partition('.')[0]}_pkey" in plan


async def test_no_rule_needs_pgvector_to_be_planned(clone_database: CloneDatabase) -> None:
    """Only the file of the one kind may name its table."""
    async with sample_of("ebook", clone_database) as connection:
        await connection.execute("DROP TABLE IF EXISTS content.content_embeddings")
        key = await background(
            connection,
            "embed_content",
            {"content_id": str(uuid.uuid4()), "content_type": "chapter"},
        )
        await Rule(connection, "ebook/background_jobs.input").inputs([key])
        await Rule(connection, "ebook/background_jobs.finish").apply([key], [result(key)])
