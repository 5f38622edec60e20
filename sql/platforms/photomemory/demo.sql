-- Each project's prompt carries its job's id, by which the sandbox ascribes what it bills. The
-- customers are those of the largest plan: a demo of thousands of jobs is more than others allow.
-- So many at once that the platform's own limit doesn't hide the order of all.
UPDATE public.system_settings SET value = '500' WHERE key = 'generation_queue_max_concurrent';

WITH planned AS (
  SELECT
    n,
    gen_random_uuid() AS job,
    gen_random_uuid() AS project,
    ('a0000000-0000-4000-8000-0000000000' || lpad((8 + n % 3)::text, 2, '0'))::uuid AS owner,
    (ARRAY['video', 'video', 'thumbnail', 'preview', 'audio'])[1 + n % 5] AS kind
  FROM generate_series(1, :jobs) AS n
), projects AS (
  INSERT INTO public.video_projects (id, user_id, title_i18n, style, ai_prompt, generation_settings)
  SELECT
    project,
    owner,
    jsonb_build_object('en', 'Memory ' || n),
    'cinematic',
    'Waves on a pier at sunset, take ' || n || ' [job:generation_jobs/' || job || ']',
    '{"duration_seconds": 2}'
  FROM planned
  RETURNING id
)
INSERT INTO public.generation_jobs (id, project_id, user_id, job_type, generation_service, priority)
SELECT planned.job, planned.project, planned.owner, planned.kind, 'replicate', 1 + planned.n % 10
FROM planned
JOIN projects ON projects.id = planned.project;
