-- What the platform's front end inserts: projects and their videos. Each prompt carries its job's
-- mark, by which the provider's bill names it.
WITH planned AS (
  SELECT n, gen_random_uuid() AS job, gen_random_uuid() AS project,
         ('a1000000-0000-4000-8000-0000000000' || lpad((1 + n % 10)::text, 2, '0'))::uuid AS owner
  FROM generate_series(1, :jobs) AS n
), projects AS (
  INSERT INTO public.video_projects (id, user_id, title_i18n, style, metadata)
  SELECT project, owner, jsonb_build_object('en', 'Memory ' || n),
         (ARRAY['classic', 'modern', 'cinematic', 'vintage'])[1 + n % 4]::public.video_style,
         jsonb_build_object('duration_seconds', CASE WHEN n % 4 = 0 THEN 5 ELSE 2 END,
                            'aspect_ratio', '16:9')
  FROM planned
  RETURNING id
)
INSERT INTO public.generated_videos (id, project_id, ai_prompt, generation_service)
SELECT planned.job, planned.project,
       'An old photo album, page ' || planned.n || ' [job:generated_videos/' || planned.job || ']',
       CASE WHEN planned.n % 4 = 0 THEN 'runway' ELSE 'replicate' END
FROM planned
JOIN projects ON projects.id = planned.project;
