"""Both platforms in one database, and what their front ends would insert: plain SQL."""

from __future__ import annotations

from importlib.resources import files

from worker.maps import load
from worker.store import Store
from worker.store.attaching import attach
from worker.store.migrations import migrate

PLATFORMS = ("photomemory", "ebook")
PRODUCER = "rowmill_demo_producer"


async def prepare(dsn: str) -> None:
    """Schemas and sample customers first, as if they had always been there; then Rowmill."""
    store = await Store.open(dsn)
    try:
        for platform in PLATFORMS:
            folder = files("sql") / "platforms" / platform
            await store.script((folder / "schema.sql").read_text())
            await store.script((folder / "sample.sql").read_text())
        await store.script(_PRODUCER)
    finally:
        await store.close()
    await migrate(dsn)
    for platform in PLATFORMS:
        await attach(dsn, load(platform))


async def produce(store: Store, jobs: int) -> None:
    """About six in ten generations, the rest texts and background work, in mixed priorities.

    Inserted by a role that has no right on the rowmill schema: an INSERT is all it takes.
    """
    texts = max(1, jobs * 3 // 13)
    background = max(1, jobs // 6)
    media = max(1, jobs - texts - background)
    await store.script(
        f"BEGIN; SET LOCAL ROLE {PRODUCER};"
        + _MEDIA.format(jobs=media)
        + _TEXTS.format(jobs=texts)
        + _BACKGROUND.format(jobs=background)
        + "COMMIT;"
    )


_PRODUCER = f"""
DO $$ BEGIN
    CREATE ROLE {PRODUCER} NOLOGIN BYPASSRLS;
EXCEPTION WHEN duplicate_object THEN NULL;
END $$;
GRANT USAGE ON SCHEMA public, auth, users, content, ai_processing, system TO {PRODUCER};
GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA
    public, users, content, ai_processing, system TO {PRODUCER};
"""

# Each job's prompt carries its own id, by which the sandbox ascribes what it bills. The customers
# are those of the largest plans: a demo of thousands of jobs is more than the others allow.
_MEDIA = """
WITH planned AS (
    SELECT n, gen_random_uuid() AS job, gen_random_uuid() AS project,
           ('a0000000-0000-4000-8000-0000000000' || lpad((8 + n % 3)::text, 2, '0'))::uuid AS owner,
           (ARRAY['video', 'video', 'thumbnail', 'preview', 'audio'])[1 + n % 5] AS kind
      FROM generate_series(1, {jobs}) n
), projects AS (
    INSERT INTO public.video_projects (id, user_id, title_i18n, style, ai_prompt, generation_settings)
    SELECT project, owner, jsonb_build_object('en', 'Memory ' || n), 'cinematic',
           'Waves on a pier at sunset, take ' || n || ' [job:generation_jobs/' || job || ']',
           '{{"duration_seconds": 2}}'
      FROM planned RETURNING id)
INSERT INTO public.generation_jobs (id, project_id, user_id, job_type, generation_service, priority)
SELECT p.job, p.project, p.owner, p.kind, 'replicate', 1 + p.n % 10
  FROM planned p JOIN projects r ON r.id = p.project;
"""

_TEXTS = """
INSERT INTO ai_processing.ai_generations
       (id, user_id, project_id, chapter_id, model_id, prompt, system_prompt, max_tokens)
SELECT id, 'e0000000-0000-4000-8000-000000000004',
       ('e5000000-0000-4000-8000-00000000000' || 1 + n % 2)::uuid,
       CASE WHEN n % 3 = 0 THEN ('e6000000-0000-4000-8000-00000000000'
                                 || CASE n % 2 WHEN 0 THEN 4 ELSE 8 END)::uuid END,
       'e2000000-0000-4000-8000-000000000001',
       'Write a paragraph about the smell of bread [job:ai_generations/' || id || ']',
       'You are a patient editor.', 200
  FROM (SELECT n, gen_random_uuid() AS id FROM generate_series(1, {jobs}) n) planned;
"""

_BACKGROUND = """
WITH planned AS (
    SELECT n, gen_random_uuid() AS job, gen_random_uuid() AS chapter,
           (ARRAY['embed_content', 'content_statistics'])[1 + n % 2] AS kind
      FROM generate_series(1, {jobs}) n
), chapters AS (
    INSERT INTO content.chapters (id, project_id, title, position, content)
    SELECT chapter, 'e5000000-0000-4000-8000-000000000001', 'Demo ' || n, 1000 + n,
           'The oven must be hot before the dough goes in. Patience is the first ingredient. '
           || '[job:background_jobs/' || job || ']'
      FROM planned RETURNING id)
INSERT INTO system.background_jobs (id, job_type, payload, priority)
SELECT p.job, p.kind, jsonb_build_object('content_type', 'chapter', 'content_id', p.chapter),
       p.n % 5 - 2
  FROM planned p JOIN chapters c ON c.id = p.chapter;
"""
