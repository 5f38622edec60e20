-- A small, always equal school for the demo and the tests. Load it once, into a schema just created
-- by schema.sql. It holds no media_files.
--
-- Fixed ids (N from 1):
--   teacher N   f0000000-0000-4000-8000-00000000000N   3 of them, teacherN@example.com
--   student N   f1000000-0000-4000-8000-00000000000N   5 of them, studentN@example.com
--   course N    f2000000-0000-4000-8000-00000000000N   2 of them: 1 is free, 2 costs 49.00
--   section S   f3000000-0000-4000-8000-0000000000NS   2 of each course
--   lesson L    f4000000-0000-4000-8000-0000000000NL   4 of each course, 2 of each section
--
-- Students 1 to 3 are enrolled in course 1, student 1 in both; 4 and 5 in none.

INSERT INTO public.users (id, email, name, created_at)
SELECT ('f0000000-0000-4000-8000-00000000000' || n)::uuid, format('teacher%s@example.com', n),
       'Teacher ' || n, '2026-01-15 08:00+00'::timestamptz
FROM generate_series(1, 3) AS n
UNION ALL
SELECT ('f1000000-0000-4000-8000-00000000000' || n)::uuid, format('student%s@example.com', n),
       'Student ' || n, '2026-01-16 08:00+00'
FROM generate_series(1, 5) AS n;

INSERT INTO public.course_categories (id, name, slug)
VALUES ('f5000000-0000-4000-8000-000000000001', 'Languages', 'languages');

INSERT INTO public.courses
  (id, title, slug, description, instructor_id, category_id, price, is_free, status, published_at)
SELECT ('f2000000-0000-4000-8000-00000000000' || n)::uuid, 'Course ' || n, 'course-' || n,
       'What there is to know about ' || n, ('f0000000-0000-4000-8000-00000000000' || n)::uuid,
       'f5000000-0000-4000-8000-000000000001', (n - 1) * 49, n = 1, 'published',
       '2026-02-01 08:00+00'
FROM generate_series(1, 2) AS n;

INSERT INTO public.course_sections (id, course_id, title, order_index)
SELECT format('f3000000-0000-4000-8000-0000000000%s%s', n, s)::uuid,
       ('f2000000-0000-4000-8000-00000000000' || n)::uuid, 'Section ' || s, s
FROM generate_series(1, 2) AS n, generate_series(1, 2) AS s;

INSERT INTO public.course_lessons (id, course_id, section_id, title, slug, content, order_index)
SELECT format('f4000000-0000-4000-8000-0000000000%s%s', n, l)::uuid,
       ('f2000000-0000-4000-8000-00000000000' || n)::uuid,
       format('f3000000-0000-4000-8000-0000000000%s%s', n, 1 + (l - 1) / 2)::uuid,
       'Lesson ' || l, 'lesson-' || l, 'Read this.', 1 + (l - 1) % 2
FROM generate_series(1, 2) AS n, generate_series(1, 4) AS l;

INSERT INTO public.enrollments (user_id, course_id, enrolled_at)
SELECT ('f1000000-0000-4000-8000-00000000000' || who)::uuid,
       ('f2000000-0000-4000-8000-00000000000' || what)::uuid, '2026-03-01 08:00+00'
FROM (VALUES (1, 1), (2, 1), (3, 1), (1, 2)) AS enrolled(who, what);

INSERT INTO public.course_purchases (user_id, course_id, amount, status, purchased_at)
VALUES ('f1000000-0000-4000-8000-000000000001', 'f2000000-0000-4000-8000-000000000002', 49,
        'completed', '2026-03-01 08:00+00');
