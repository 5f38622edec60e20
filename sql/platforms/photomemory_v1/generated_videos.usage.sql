-- What the customer used: one video, and the bytes of its file.
INSERT INTO public.usage_records (user_id, resource_type, amount, unit, billing_month, metadata)
SELECT
  project.user_id,
  used.resource_type::public.resource_type,
  used.amount,
  used.unit,
  date_trunc('month', now() AT TIME ZONE 'UTC')::date,
  jsonb_strip_nulls(jsonb_build_object(
    'generated_video_id', video.id,
    'provider', result.provider,
    'model', result.model,
    'run', result.run
  ))
FROM result
JOIN public.generated_videos AS video ON video.id = result.row_id AND video.id = ANY(rowmill_keys)
JOIN public.video_projects AS project ON project.id = video.project_id
CROSS JOIN LATERAL (VALUES
  ('video_generation', 1, 'count'),
  ('storage_bytes', (result.outputs -> 0 ->> 'size')::numeric, 'bytes')
) AS used(resource_type, amount, unit);
