"""The platforms' schemas load on this server, and refuse what they should."""

from __future__ import annotations

import secrets

import asyncpg
import pytest

from tests.database.platform_samples import (
    GIGABYTE,
    PLATFORMS,
    CloneDatabase,
    NewDatabase,
    project,
    run,
    sample_of,
    sql_file,
    upload,
    user,
    v1_project,
    v1_user,
)

# --------------------------------------------------------------------------- loading

TABLES = """
SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'm') AND n.nspname !~ '^pg_|^information_schema$'
"""


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_schema_is_one_transaction(platform: str, new_database: NewDatabase) -> None:
    connection = await asyncpg.connect(await new_database())
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(sql_file(platform, "schema.sql"))
    await connection.execute(sql_file(platform, "sample.sql"))
    assert await connection.fetchval(TABLES) > 8
    await transaction.rollback()
    assert await connection.fetchval(TABLES) == 0
    await connection.close()


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_schema_loads_for_a_database_owner_in_any_time_zone(
    platform: str, new_database: NewDatabase
) -> None:
    dsn = await new_database()
    role = f"rowmill_test_{secrets.token_hex(4)}"
    await run(dsn, f"CREATE ROLE {role}")
    owner = f"""
        DO $$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO {role}', current_database()); END $$;
        SET ROLE {role};
        SET timezone = 'Pacific/Kiritimati';
    """
    try:
        await run(dsn, owner + sql_file(platform, "schema.sql") + sql_file(platform, "sample.sql"))
    finally:
        await run(dsn, f"REASSIGN OWNED BY {role} TO CURRENT_USER", f"DROP ROLE {role}")


async def test_embeddings_exist_where_pgvector_does(clone_database: CloneDatabase) -> None:
    async with sample_of("ebook", clone_database) as connection:
        available = await connection.fetchval(
            "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector')"
        )
        table = await connection.fetchval("SELECT to_regclass('content.content_embeddings')")
        assert (table is not None) == available


# --------------------------------------------------------------------------- checks

BASE_ROWS = {
    "photomemory": f"""
        INSERT INTO public.generation_jobs (project_id, user_id, generation_service)
        VALUES ('{project(1)}', '{user(1)}', 'replicate');
        INSERT INTO public.usage_records
          (user_id, resource_type, quantity, unit, billing_period)
        VALUES ('{user(1)}', 'video_generation', 1, 'count',
                date_trunc('month', now() AT TIME ZONE 'UTC'));
        INSERT INTO public.audit_logs (action, resource_type) VALUES ('create', 'project');
    """,
    "photomemory_v1": f"""
        INSERT INTO public.generated_videos (project_id, ai_prompt, generation_service)
        VALUES ('{v1_project(1)}', 'A lake', 'replicate');
        INSERT INTO public.usage_records (user_id, resource_type, amount, unit, billing_month)
        VALUES ('{v1_user(1)}', 'video_generation', 1, 'count',
                date_trunc('month', now() AT TIME ZONE 'UTC'));
        INSERT INTO public.media_items
          (user_id, file_url, original_filename, file_type, file_size_bytes, mime_type)
        VALUES ('{v1_user(1)}', 'https://files.example.com/a.jpg', 'a.jpg', 'image', 1,
                'image/jpeg');
    """,
    "ecomvideo": """
        INSERT INTO public.usage_credits (user_id, credit_type, amount, source)
        SELECT id, 'VideoGeneration', 1, 'Bonus' FROM public.users LIMIT 1;
    """,
    "ebook": """
        INSERT INTO ai_processing.ai_generations (user_id, model_id, prompt)
        SELECT u.id, m.id, 'Write' FROM users.users u, ai_processing.ai_models m LIMIT 1;
        INSERT INTO system.background_jobs (job_type, payload) VALUES ('embed_content', '{}');
        INSERT INTO users.user_sessions (user_id, session_token, expires_at)
        SELECT id, 'token', '2099-01-01' FROM users.users LIMIT 1;
        INSERT INTO content.content_versions (chapter_id, version_number, content, changed_by)
        SELECT c.id, 1, 'Text', u.id FROM content.chapters c, users.users u LIMIT 1;
        INSERT INTO content.content_statistics (content_id, content_type)
        VALUES (gen_random_uuid(), 'chapter');
        DO $$ BEGIN
            IF to_regclass('content.content_embeddings') IS NOT NULL THEN
                INSERT INTO content.content_embeddings (content_id, content_type, model)
                VALUES (gen_random_uuid(), 'chapter', 'text-embedding-3-small');
            END IF;
        END $$;
    """,
    "education": """
        INSERT INTO public.media_files
          (user_id, filename, original_filename, file_path, file_size, mime_type)
        SELECT id, 'a.png', 'A.png', 'uploads/a.png', 1, 'image/png' FROM public.users LIMIT 1;
        INSERT INTO public.course_completions (user_id, course_id, rating)
        SELECT u.id, c.id, 5 FROM public.users u, public.courses c LIMIT 1;
    """,
}

BROKEN = {
    "photomemory": {
        "users.valid_language": "language = 'xx'",
        "users.valid_preferences": "preferences = '[]'",
        "subscription_plans.positive_price": "price_cents = -1",
        "subscription_plans.valid_billing_interval": "billing_interval = 'day'",
        "subscription_plans.valid_features": "features = '{}'",
        "user_subscriptions.valid_period": "current_period_end = current_period_start",
        "user_subscriptions.stripe_id_required": "stripe_subscription_id = NULL",
        "media_files.valid_file_type": "file_type = 'text'",
        "media_files.positive_file_size": "file_size_bytes = 0",
        "media_files.valid_processing_status": "processing_status = 'lost'",
        "media_files.valid_dimensions": "width = 0",
        "video_projects.valid_duration": "duration_minutes = 31",
        "video_projects.valid_progress": "progress_percentage = 101",
        "video_projects.valid_aspect_ratio": "aspect_ratio = '2:1'",
        "video_projects.valid_resolution": "resolution = '144p'",
        "video_projects.valid_title_i18n": "title_i18n = '[]'",
        "video_projects.valid_description_i18n": "description_i18n = '1'",
        "project_media.positive_duration": "duration_seconds = 0",
        "project_media.valid_transition": "transition_type = 'spin'",
        "generation_jobs.valid_job_type": "job_type = 'poem'",
        "generation_jobs.valid_priority": "priority = 11",
        "generation_jobs.valid_progress": "progress_percentage = -1",
        "generation_jobs.valid_retry_count": "retry_count = max_retries + 1",
        "generation_jobs.status_consistency": "status = 'completed', completed_at = now()",
        "usage_records.positive_quantity": "quantity = -1",
        "usage_records.positive_cost": "cost_cents = -1",
        "usage_records.valid_unit": "unit = 'miles'",
        "system_settings.valid_value": "value = 'null'",
        "audit_logs.valid_action": "action = 'Create!'",
    },
    "photomemory_v1": {
        "users.valid_language": "language = 'zh-cn'",
        "users.valid_subscription": "subscription_plan = 'gold'",
        "video_projects.valid_duration": "duration_minutes = 0",
        "video_projects.valid_photo_count": "photo_count = 21",
        "video_projects.valid_title_i18n": "title_i18n = '[]'",
        "video_projects.valid_title_i18n_format": """title_i18n = '{"en": 1}'""",
        "video_projects.valid_description_i18n": "description_i18n = '1'",
        "photos.valid_file_size": "file_size_bytes = 10485761",
        "photos.valid_mime_type": "mime_type = 'image/gif'",
        "photos.valid_dimensions": "width = 0",
        "generated_videos.valid_progress": "progress_percentage = 101",
        "generated_videos.valid_duration": "duration_seconds = 0",
        "generated_videos.valid_file_size": "file_size_bytes = 0",
        "generated_videos.status_consistency": "status = 'completed', completed_at = now()",
        "subscriptions.valid_plan": "plan_id = 'gold'",
        "subscriptions.valid_period": "current_period_end = current_period_start",
        "subscriptions.stripe_id_required": "stripe_subscription_id = NULL",
        "usage_records.positive_amount": "amount = -1",
        "usage_records.valid_unit": "unit = 'miles'",
        "media_items.valid_file_size": "file_size_bytes = 0",
        "media_items.valid_file_type": "file_type = 'audio'",
        "media_items.valid_image_mime": "mime_type = 'image/gif'",
    },
    "ecomvideo": {
        "usage_credits.ck_usage_credits_used": "used_amount = amount + 1",
    },
    "ebook": {
        "users.users_status_check": "status = 'gone'",
        "users.users_tier_check": "tier = 'gold'",
        "users.valid_email": "email = 'nobody'",
        "user_sessions.user_sessions_check": "expires_at = created_at",
        "projects.projects_status_check": "status = 'lost'",
        "projects.projects_visibility_check": "visibility = 'hidden'",
        "projects.check_word_count_positive": "target_word_count = 0",
        "chapters.chapters_status_check": "status = 'lost'",
        "content_versions.content_versions_change_type_check": "change_type = 'magic'",
        "content_embeddings.content_embeddings_content_type_check": "content_type = 'word'",
        "content_statistics.content_statistics_content_type_check": "content_type = 'word'",
        "ai_providers.ai_providers_status_check": "status = 'lost'",
        "ai_generations.ai_generations_quality_rating_check": "quality_rating = 6",
        "ai_generations.ai_generations_status_check": "status = 'lost'",
        "ai_generations.check_reasonable_cost": "cost = 1000",
        "subscription_plans.subscription_plans_billing_cycle_check": "billing_cycle = 'daily'",
        "subscription_plans.subscription_plans_status_check": "status = 'lost'",
        "user_subscriptions.user_subscriptions_status_check": "status = 'lost'",
        "user_subscriptions.check_subscription_period": (
            "current_period_end = current_period_start"
        ),
        "background_jobs.background_jobs_status_check": "status = 'lost'",
    },
    "education": {
        "users.valid_email": "email = 'nobody'",
        "users.valid_phone": "phone = '0'",
        "courses.valid_rating": "average_rating = 6",
        "courses.course_price_consistency": "is_free = NOT is_free",
        "course_completions.course_completions_rating_check": "rating = 6",
        "media_files.valid_file_size": "file_size = 0",
    },
}

ALL_CHECKS = """
SELECT conrelid::regclass::text AS table, relname || '.' || conname AS check
FROM pg_constraint
JOIN pg_class c ON c.oid = conrelid
JOIN pg_namespace n ON n.oid = relnamespace
WHERE contype = 'c' AND NOT relispartition AND nspname !~ '^pg_|^information_schema$'
"""


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_every_check_refuses(platform: str, clone_database: CloneDatabase) -> None:
    async with sample_of(platform, clone_database) as connection:
        await connection.execute(BASE_ROWS[platform])
        refused = set()
        checks = await connection.fetch(ALL_CHECKS)
        for table, check in checks:
            with pytest.raises(asyncpg.CheckViolationError) as caught:
                await connection.execute(f"UPDATE {table} SET {BROKEN[platform][check]}")
            refused.add(caught.value.constraint_name)
        assert refused == {check.split(".")[1] for _, check in checks}
        assert len(checks) >= len(BROKEN[platform]) - 1  # embeddings need pgvector


# --------------------------------------------------------------------------- row-level security


async def test_policies_of_users_and_service(clone_database: CloneDatabase) -> None:
    role = f"rowmill_test_{secrets.token_hex(4)}"
    act = "SELECT set_config('request.jwt.claims', $1, true)"
    async with sample_of("photomemory", clone_database) as connection:
        await connection.execute(
            "UPDATE public.subscription_plans SET max_storage_gb = 0 WHERE id = 'free'"
        )
        transaction = connection.transaction()
        await transaction.start()  # rolled back, and the role with it
        await connection.execute(
            f"CREATE ROLE {role}; GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}"
        )
        await connection.execute(f"SET LOCAL ROLE {role}")

        assert await connection.fetchval("SELECT count(*) FROM video_projects") == 0
        await connection.execute(act, f'{{"sub": "{user(4)}", "role": "authenticated"}}')
        assert await connection.fetchval("SELECT count(*) FROM video_projects") == 1
        assert await connection.fetchval("SELECT count(*) FROM project_media") == 2
        # Sees no subscription, and has the storage of the plan all the same.
        assert await connection.fetchval("SELECT count(*) FROM user_subscriptions") == 0
        await upload(connection, user(4), GIGABYTE)

        await connection.execute(act, '{"role": "service_role"}')
        assert await connection.fetchval("SELECT count(*) FROM video_projects") == 10
        assert await connection.fetchval("SELECT count(*) FROM user_subscriptions") == 8
        await transaction.rollback()


# --------------------------------------------------------------------------- analytics


async def test_summaries_count_each_thing_once(clone_database: CloneDatabase) -> None:
    async with sample_of("photomemory", clone_database) as connection:
        await connection.execute(BASE_ROWS["photomemory"] * 2)
        for view in ("user_analytics_summary", "generation_performance_metrics"):
            await connection.execute(f"REFRESH MATERIALIZED VIEW CONCURRENTLY {view}")
        summary = await connection.fetchrow(
            "SELECT * FROM user_analytics_summary WHERE user_id = $1", user(1)
        )
        stored = await connection.fetchval(
            "SELECT sum(file_size_bytes) FROM media_files WHERE user_id = $1", user(1)
        )
        assert summary["total_storage_bytes"] == stored > 0
        assert (summary["total_projects"], summary["total_generations"]) == (1, 2)
        assert (summary["total_files"], summary["success_rate"]) == (3, 0)
        assert (
            await connection.fetchval("SELECT sum(total_jobs) FROM generation_performance_metrics")
            == 2
        )
