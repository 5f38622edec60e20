-- One row per job. `usage` counts what the customer is charged for, the video; that its bytes are
-- recorded, too, is part of `consistent`, as is everything else a result leaves behind.
SELECT
  'generated_videos' AS source,
  video.id::text AS key,
  video.status::text AS status,
  CASE WHEN video.status IN ('completed', 'failed', 'cancelled') THEN video.status::text END
    AS finished,
  video.status = 'completed' AS metered,
  coalesce(used.videos, 0) AS usage,
  CASE video.status WHEN 'completed' THEN video.file_url END AS url,
  coalesce((project.status::text = video.status::text OR video.status IN ('queued', 'cancelled')
   OR row_number() OVER (PARTITION BY video.project_id
                         ORDER BY video.created_at DESC, video.id DESC) > 1)
  AND owner.total_storage_bytes = coalesce(photos.bytes, 0) + coalesce(library.bytes, 0)
  AND CASE video.status
    WHEN 'completed' THEN
      video.file_url = media.file_url AND video.file_size_bytes = media.file_size_bytes
      AND video.file_size_bytes = used.bytes AND video.duration_seconds > 0
      AND video.external_generation_id IS NOT NULL AND video.progress_percentage = 100
      AND video.started_at <= video.completed_at AND video.error_message IS NULL
      AND video.estimated_completion_at IS NULL AND media.files = 1
    WHEN 'failed' THEN video.error_message <> '' AND media.files IS NULL AND used.videos IS NULL
    ELSE media.files IS NULL AND used.videos IS NULL
  END, false) AS consistent
FROM public.generated_videos AS video
JOIN public.video_projects AS project ON project.id = video.project_id
JOIN public.users AS owner ON owner.id = project.user_id
LEFT JOIN (
  SELECT metadata ->> 'generated_video_id' AS video,
         count(*) FILTER (WHERE resource_type = 'video_generation') AS videos,
         sum(amount) FILTER (WHERE resource_type = 'storage_bytes') AS bytes
  FROM public.usage_records
  GROUP BY 1
) AS used ON used.video = video.id::text
LEFT JOIN (
  SELECT metadata ->> 'generated_video_id' AS video, count(*) AS files,
         max(file_url) AS file_url, sum(file_size_bytes) AS file_size_bytes
  FROM public.media_items
  GROUP BY 1
) AS media ON media.video = video.id::text
LEFT JOIN (
  SELECT user_id, sum(file_size_bytes) AS bytes FROM public.media_items GROUP BY 1
) AS library ON library.user_id = owner.id
LEFT JOIN (
  SELECT taken.user_id, sum(photo.file_size_bytes) AS bytes
  FROM public.photos AS photo
  JOIN public.video_projects AS taken ON taken.id = photo.project_id
  GROUP BY 1
) AS photos ON photos.user_id = owner.id;
