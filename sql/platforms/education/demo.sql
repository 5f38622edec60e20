-- :jobs uploads of three teachers, as their platform's upload service writes them: two thirds
-- photos, the others films, recordings and handouts; every fourth is public. :sandbox has samples
-- of them, each made as long as its row says.
INSERT INTO public.media_files
  (user_id, filename, original_filename, file_path, file_size, mime_type, visibility)
SELECT
  ('f0000000-0000-4000-8000-00000000000' || 1 + n % 3)::uuid,
  format('upload-%s.%s', n, sample.extension),
  format('Lesson %s.%s', n, sample.extension),
  format(':sandbox/samples/%s.%s?label=%s&bytes=%s', sample.name, sample.extension, n, sample.size),
  sample.size,
  sample.mime_type,
  (ARRAY['public', 'course_only', 'private', 'course_only'])[1 + n % 4]
FROM generate_series(1, :jobs) AS n
JOIN (VALUES
  (0, 'image', 'jpg', 40000, 'image/jpeg'),
  (1, 'image', 'png', 50000, 'image/png'),
  (2, 'video', 'mp4', 120000, 'video/mp4'),
  (3, 'image', 'jpg', 40001, 'image/jpeg'),
  (4, 'audio', 'wav', 100000, 'audio/wav'),
  (5, 'image', 'png', 50001, 'image/png'),
  (6, 'document', 'pdf', 3000, 'application/pdf'),
  (7, 'image', 'jpg', 40002, 'image/jpeg'),
  (8, 'image', 'jpg', 40003, 'image/jpeg')
) AS sample(turn, name, extension, size, mime_type) ON sample.turn = n % 9;
