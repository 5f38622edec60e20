-- 7P Education: the tables around courses and their media files, in a form PostgreSQL 14 to 18 runs.
--
-- Load it into an empty database, as its owner or a superuser. It holds no BEGIN or COMMIT and
-- nothing that cannot run in a transaction, so one failure leaves nothing behind.
--
-- Corrections to the platform's own design, and why:
--
--  1. users, courses, course_lessons and lesson_progress are described twice. These are the later,
--     enhanced ones. enrollments is described once, and its indexes, triggers and the dashboard
--     read columns it lacks: status, last_accessed_at and updated_at were added.
--  2. users lost its role with the enhanced version, so idx_users_role and the policy that read it
--     are gone.
--  3. courses: is_free is FALSE and price 0 by default, which course_price_consistency refuses. A
--     course without a price is free now. valid_price is gone: the other refuses all that it did.
--  4. course_lessons: unique_lesson_order (course, order) contradicts UNIQUE (section, order):
--     every section counts its lessons from one. The section's stays.
--  5. lesson_progress: the primary key of a partitioned table must contain the partition key, so it
--     is (id, created_at), and created_at is NOT NULL. UNIQUE (user_id, lesson_id) would need
--     created_at, too, and then forbid nothing. A trigger keeps one row per user and lesson over
--     all months, under a lock for each pair.
--  6. The partitions of January and February 2024 are gone. The current month and the next two are
--     made at the end of this file.
--  7. create_monthly_partition failed when the month existed, took any day for the month's first,
--     and CREATE … PARTITION OF waits, with an exclusive lock on the parent, behind any open SELECT.
--     It is idempotent now, builds the table beside and attaches it, gives up after half a second
--     (ATTACH locks the tables the foreign keys point to against writes), and runs with its owner's
--     rights, a pinned search_path, and in UTC. Not for PUBLIC: grant EXECUTE to the role that keeps
--     partitions.
--  8. calculate_course_progress ran only on updates from another status: a lesson inserted as
--     completed was never counted, nor one that was taken back or deleted. Two lessons completed at
--     once each missed the other: it now locks the enrollment before it counts.
--  9. update_course_stats counted a whole course for every change of an enrollment, which each
--     completed lesson is, and forgot the old course of one that moved.
-- 10. The trigger functions run with their owner's rights and a pinned search_path: a student has
--     no right to write what follows from their progress.
-- 11. course_statistics joined enrollments, completions, progress and purchases of a course with
--     each other: revenue came out multiplied, and a refresh took time with the product of the
--     four. Each is counted on its own. A review is a completion with a rating.
-- 12. The refresh by pg_cron is the fleet's now ([[refreshes]] in map.toml).
-- 13. Full-text indexes: a NULL description made the whole text NULL.
-- 14. Row-level security is switched on as designed where students' own rows are kept. The policy
--     course_visibility stood on a table where it was never switched on; left out.
--     auth.uid() and auth.jwt() are Supabase's. Stand-ins are made where they are missing.
-- 15. idx_users_email and idx_enrollments_user_course repeat what a unique constraint has.
-- 16. Left out, for no job reads or writes them: addresses (with a UNIQUE … WHERE, which no table
--     constraint can have), preferences, roles, tags, resources, quizzes, subscriptions and payment
--     transactions, content versions, notes and bookmarks; the dashboard and recommendation
--     functions (they name columns that no table has), encryption, backup and health functions.

-- ------------------------------------------------------------------ Supabase's auth, if absent

CREATE SCHEMA IF NOT EXISTS auth;

-- Neither names the schema auth in its body: whom a policy asks them for needs no right on it.
DO $$
BEGIN
  IF to_regprocedure('auth.jwt()') IS NULL THEN
    CREATE FUNCTION auth.jwt() RETURNS jsonb LANGUAGE sql STABLE AS
      'SELECT nullif(pg_catalog.current_setting(''request.jwt.claims'', true), '''')::jsonb';
  END IF;
  IF to_regprocedure('auth.uid()') IS NULL THEN
    CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS
      'SELECT (nullif(pg_catalog.current_setting(''request.jwt.claims'', true), '''')::jsonb
               ->> ''sub'')::uuid';
  END IF;
END $$;

-- ------------------------------------------------------------------ users

CREATE TABLE public.users (
  id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  email VARCHAR(255) UNIQUE NOT NULL,
  name VARCHAR(100) NOT NULL,
  first_name VARCHAR(50),
  last_name VARCHAR(50),
  phone VARCHAR(20),
  date_of_birth DATE,
  gender VARCHAR(20),
  timezone VARCHAR(50) DEFAULT 'UTC',
  language VARCHAR(10) DEFAULT 'en',
  status VARCHAR(20) DEFAULT 'active',
  email_verified BOOLEAN DEFAULT FALSE,
  phone_verified BOOLEAN DEFAULT FALSE,
  bio TEXT,
  avatar_url TEXT,
  website_url TEXT,
  linkedin_url TEXT,
  twitter_url TEXT,
  last_login_at TIMESTAMPTZ,
  created_at TIMESTAMPTZ DEFAULT NOW(),
  updated_at TIMESTAMPTZ DEFAULT NOW(),

  CONSTRAINT valid_email CHECK (email ~* '^[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}$'),
  CONSTRAINT valid_phone CHECK (phone IS NULL OR phone ~* '^\+?[1-9]\d{1,14}$')
);

CREATE INDEX idx_users_status ON public.users(status) WHERE status = 'active';
CREATE INDEX idx_users_created_at ON public.users(created_at);

-- ------------------------------------------------------------------ courses

CREATE TABLE public.course_categories (
  id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  name VARCHAR(100) UNIQUE NOT NULL,
  slug VARCHAR(100) UNIQUE NOT NULL,
  description TEXT,
  parent_id UUID REFERENCES public.course_categories(id),
  icon_url TEXT,
  color VARCHAR(7),
  sort_order INTEGER DEFAULT 0,
  is_active BOOLEAN DEFAULT TRUE,
  created_at TIMESTAMPTZ DEFAULT NOW()
);

CREATE TABLE public.courses (
  id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  title VARCHAR(200) NOT NULL,
  slug VARCHAR(200) UNIQUE NOT NULL,
  short_description TEXT,
  description TEXT,
  instructor_id UUID REFERENCES public.users(id) NOT NULL,
  category_id UUID REFERENCES public.course_categories(id),

  price DECIMAL(10,2) DEFAULT 0,
  original_price DECIMAL(10,2),
  currency VARCHAR(3) DEFAULT 'USD',

  difficulty VARCHAR(20) DEFAULT 'beginner',
  language VARCHAR(10) DEFAULT 'en',
  duration_hours DECIMAL(4,1),

  status VARCHAR(20) DEFAULT 'draft',
  is_featured BOOLEAN DEFAULT FALSE,
  is_free BOOLEAN DEFAULT TRUE,

  thumbnail_url TEXT,
  preview_video_url TEXT,

  meta_title VARCHAR(200),
  meta_description TEXT,

  learning_objectives JSONB DEFAULT '[]',
  requirements JSONB DEFAULT '[]',
  target_audience JSONB DEFAULT '[]',

  enrollment_count INTEGER DEFAULT 0,
  average_rating DECIMAL(3,2) DEFAULT 0,
  review_count INTEGER DEFAULT 0,
  completion_rate DECIMAL(5,2) DEFAULT 0,

  published_at TIMESTAMPTZ,
  created_at TIMESTAMPTZ DEFAULT NOW(),
  updated_at TIMESTAMPTZ DEFAULT NOW(),

  CONSTRAINT valid_rating CHECK (average_rating >= 0 AND average_rating <= 5),
  CONSTRAINT course_price_consistency CHECK (
    (is_free = TRUE AND price = 0) OR
    (is_free = FALSE AND price > 0)
  )
);

CREATE INDEX idx_courses_status_published ON public.courses(status, published_at)
  WHERE status = 'published';
CREATE INDEX idx_courses_category_difficulty ON public.courses(category_id, difficulty);
CREATE INDEX idx_courses_instructor ON public.courses(instructor_id);
CREATE INDEX idx_courses_featured ON public.courses(is_featured) WHERE is_featured = true;
CREATE INDEX idx_courses_price ON public.courses(price);
CREATE INDEX idx_courses_category_price_rating
  ON public.courses(category_id, price, average_rating);
CREATE INDEX idx_courses_search ON public.courses
  USING gin(to_tsvector('english', title || ' ' || coalesce(description, '')));

CREATE TABLE public.course_sections (
  id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  course_id UUID REFERENCES public.courses(id) ON DELETE CASCADE,
  title VARCHAR(200) NOT NULL,
  description TEXT,
  order_index INTEGER NOT NULL,
  is_preview BOOLEAN DEFAULT FALSE,
  created_at TIMESTAMPTZ DEFAULT NOW(),

  UNIQUE(course_id, order_index)
);

CREATE TABLE public.course_lessons (
  id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  course_id UUID REFERENCES public.courses(id) ON DELETE CASCADE,
  section_id UUID REFERENCES public.course_sections(id) ON DELETE CASCADE,
  title VARCHAR(200) NOT NULL,
  slug VARCHAR(200) NOT NULL,
  content TEXT,
  content_type VARCHAR(20) DEFAULT 'video',

  video_url TEXT,
  video_duration INTEGER,
  video_quality JSONB,

  reading_time INTEGER,

  order_index INTEGER NOT NULL,
  is_preview BOOLEAN DEFAULT FALSE,
  is_downloadable BOOLEAN DEFAULT FALSE,

  attachments JSONB DEFAULT '[]',
  external_links JSONB DEFAULT '[]',

  created_at TIMESTAMPTZ DEFAULT NOW(),
  updated_at TIMESTAMPTZ DEFAULT NOW(),

  UNIQUE(course_id, slug),
  UNIQUE(section_id, order_index)
);

CREATE INDEX idx_lessons_course_section_order
  ON public.course_lessons(course_id, section_id, order_index);
CREATE INDEX idx_lessons_search ON public.course_lessons
  USING gin(to_tsvector('english', title || ' ' || coalesce(content, '')));

-- ------------------------------------------------------------------ enrollments and progress

CREATE TABLE public.enrollments (
  id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  user_id UUID REFERENCES public.users(id),
  course_id UUID REFERENCES public.courses(id),
  status VARCHAR(20) DEFAULT 'active',
  enrolled_at TIMESTAMPTZ DEFAULT NOW(),
  completed_at TIMESTAMPTZ,
  progress DECIMAL(5,2) DEFAULT 0,
  last_accessed_at TIMESTAMPTZ,
  updated_at TIMESTAMPTZ DEFAULT NOW(),

  UNIQUE(user_id, course_id)
);

CREATE INDEX idx_enrollments_course_status ON public.enrollments(course_id, status);

CREATE TABLE public.lesson_progress (
  id UUID NOT NULL DEFAULT gen_random_uuid(),
  user_id UUID REFERENCES public.users(id) ON DELETE CASCADE,
  lesson_id UUID REFERENCES public.course_lessons(id) ON DELETE CASCADE,

  status VARCHAR(20) DEFAULT 'not_started',
  progress_percentage DECIMAL(5,2) DEFAULT 0,

  total_time_spent INTEGER DEFAULT 0,
  last_position INTEGER DEFAULT 0,

  started_at TIMESTAMPTZ,
  completed_at TIMESTAMPTZ,
  last_accessed_at TIMESTAMPTZ DEFAULT NOW(),

  interaction_count INTEGER DEFAULT 0,
  notes_count INTEGER DEFAULT 0,
  bookmarks_count INTEGER DEFAULT 0,

  created_at TIMESTAMPTZ NOT NULL DEFAULT NOW(),
  updated_at TIMESTAMPTZ DEFAULT NOW(),

  PRIMARY KEY (id, created_at)
)
PARTITION BY RANGE (created_at);

CREATE INDEX idx_lesson_progress_user_lesson ON public.lesson_progress(user_id, lesson_id);
CREATE INDEX idx_lesson_progress_lesson ON public.lesson_progress(lesson_id);
CREATE INDEX idx_lesson_progress_user_status ON public.lesson_progress(user_id, status);

CREATE TABLE public.course_completions (
  id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  user_id UUID REFERENCES public.users(id) ON DELETE CASCADE,
  course_id UUID REFERENCES public.courses(id) ON DELETE CASCADE,

  completed_at TIMESTAMPTZ DEFAULT NOW(),
  completion_percentage DECIMAL(5,2) DEFAULT 100,
  total_time_spent INTEGER DEFAULT 0,

  final_score DECIMAL(5,2),
  certificate_issued BOOLEAN DEFAULT FALSE,
  certificate_url TEXT,

  rating INTEGER CHECK (rating >= 1 AND rating <= 5),
  review TEXT,
  would_recommend BOOLEAN,

  UNIQUE(user_id, course_id)
);

CREATE TABLE public.course_purchases (
  id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  user_id UUID REFERENCES public.users(id) ON DELETE CASCADE,
  course_id UUID REFERENCES public.courses(id) ON DELETE CASCADE,

  amount DECIMAL(10,2) NOT NULL,
  currency VARCHAR(3) DEFAULT 'USD',
  purchase_type VARCHAR(20) DEFAULT 'one_time',

  status VARCHAR(20) DEFAULT 'pending',
  payment_method VARCHAR(50),
  transaction_id VARCHAR(100),

  stripe_payment_intent_id VARCHAR(100),
  stripe_invoice_id VARCHAR(100),

  purchased_at TIMESTAMPTZ DEFAULT NOW(),
  expires_at TIMESTAMPTZ,

  UNIQUE(user_id, course_id)
);

-- ------------------------------------------------------------------ media files: the jobs

CREATE TABLE public.media_files (
  id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  user_id UUID REFERENCES public.users(id),

  filename VARCHAR(255) NOT NULL,
  original_filename VARCHAR(255) NOT NULL,
  file_path TEXT NOT NULL,
  file_size BIGINT NOT NULL,
  mime_type VARCHAR(100) NOT NULL,
  file_hash VARCHAR(64),

  width INTEGER,
  height INTEGER,
  duration INTEGER,

  processing_status VARCHAR(20) DEFAULT 'pending',
  processed_variants JSONB DEFAULT '{}',

  cdn_url TEXT,
  cache_expires_at TIMESTAMPTZ,

  visibility VARCHAR(20) DEFAULT 'private',
  download_count INTEGER DEFAULT 0,

  created_at TIMESTAMPTZ DEFAULT NOW(),
  updated_at TIMESTAMPTZ DEFAULT NOW(),

  CONSTRAINT valid_file_size CHECK (file_size > 0)
);

-- ------------------------------------------------------------------ what follows from progress

CREATE FUNCTION public.update_course_stats() RETURNS TRIGGER AS $$
BEGIN
  UPDATE public.courses AS course
  SET enrollment_count = (
    SELECT count(*) FROM public.enrollments AS enrolled WHERE enrolled.course_id = course.id
  )
  WHERE course.id IN (
    CASE WHEN TG_OP <> 'DELETE' THEN NEW.course_id END,
    CASE WHEN TG_OP <> 'INSERT' THEN OLD.course_id END
  );
  RETURN NULL;
END;
$$ LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

CREATE TRIGGER trigger_update_course_stats
  AFTER INSERT OR DELETE OR UPDATE OF course_id ON public.enrollments
  FOR EACH ROW EXECUTE FUNCTION public.update_course_stats();

CREATE FUNCTION public.keep_progress_single() RETURNS TRIGGER AS $$
BEGIN
  -- The second of two at once waits here, and then sees the first.
  PERFORM pg_advisory_xact_lock(hashtextextended(
    'lesson_progress ' || NEW.user_id::text || ' ' || NEW.lesson_id::text, 0
  ));
  IF EXISTS (
    SELECT FROM public.lesson_progress AS other
    WHERE other.user_id = NEW.user_id
      AND other.lesson_id = NEW.lesson_id
      AND (other.id, other.created_at) <> (NEW.id, NEW.created_at)
  ) THEN
    RAISE EXCEPTION 'this user has progress in lesson % already', NEW.lesson_id
      USING ERRCODE = 'unique_violation', CONSTRAINT = 'lesson_progress_user_id_lesson_id_key';
  END IF;
  RETURN NULL;
END;
$$ LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

CREATE TRIGGER keep_progress_single
  AFTER INSERT OR UPDATE OF user_id, lesson_id ON public.lesson_progress
  FOR EACH ROW EXECUTE FUNCTION public.keep_progress_single();

CREATE FUNCTION public.update_user_last_access() RETURNS TRIGGER AS $$
BEGIN
  UPDATE public.enrollments AS enrolled
  SET last_accessed_at = now()
  FROM public.course_lessons AS lesson
  WHERE lesson.id = NEW.lesson_id
    AND enrolled.course_id = lesson.course_id
    AND enrolled.user_id = NEW.user_id;
  RETURN NULL;
END;
$$ LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

CREATE TRIGGER trigger_update_last_access
  AFTER INSERT OR UPDATE ON public.lesson_progress
  FOR EACH ROW EXECUTE FUNCTION public.update_user_last_access();

CREATE FUNCTION public.calculate_course_progress() RETURNS TRIGGER AS $$
DECLARE
  who UUID := CASE TG_OP WHEN 'DELETE' THEN OLD.user_id ELSE NEW.user_id END;
  which UUID := CASE TG_OP WHEN 'DELETE' THEN OLD.lesson_id ELSE NEW.lesson_id END;
  course UUID;
  reached DECIMAL(5,2);
BEGIN
  SELECT lesson.course_id INTO course FROM public.course_lessons AS lesson WHERE lesson.id = which;

  -- Whoever completes another lesson at this moment counts after us, and sees ours.
  PERFORM FROM public.enrollments AS enrolled
  WHERE enrolled.user_id = who AND enrolled.course_id = course
  FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;

  SELECT 100.0 * count(*) FILTER (WHERE EXISTS (
           SELECT FROM public.lesson_progress AS done
           WHERE done.user_id = who AND done.lesson_id = lesson.id AND done.status = 'completed'
         )) / count(*)
  INTO reached
  FROM public.course_lessons AS lesson
  WHERE lesson.course_id = course
  HAVING count(*) > 0;

  UPDATE public.enrollments AS enrolled
  SET progress = coalesce(reached, 0),
      completed_at = CASE WHEN reached = 100 THEN coalesce(enrolled.completed_at, now()) END,
      updated_at = now()
  WHERE enrolled.user_id = who AND enrolled.course_id = course;

  IF reached = 100 THEN
    INSERT INTO public.course_completions (user_id, course_id)
    VALUES (who, course)
    ON CONFLICT (user_id, course_id) DO NOTHING;
  END IF;
  RETURN NULL;
END;
$$ LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

CREATE TRIGGER trigger_calculate_progress
  AFTER UPDATE ON public.lesson_progress
  FOR EACH ROW
  WHEN ((NEW.status = 'completed') IS DISTINCT FROM (OLD.status = 'completed'))
  EXECUTE FUNCTION public.calculate_course_progress();

CREATE TRIGGER trigger_calculate_first_progress
  AFTER INSERT ON public.lesson_progress
  FOR EACH ROW
  WHEN (NEW.status = 'completed')
  EXECUTE FUNCTION public.calculate_course_progress();

CREATE TRIGGER trigger_calculate_lost_progress
  AFTER DELETE ON public.lesson_progress
  FOR EACH ROW
  WHEN (OLD.status = 'completed')
  EXECUTE FUNCTION public.calculate_course_progress();

-- ------------------------------------------------------------------ analytics

CREATE MATERIALIZED VIEW public.course_statistics AS
SELECT
  c.id,
  c.title,
  c.instructor_id,
  c.category_id,
  COALESCE(enrolled.users, 0) AS enrollment_count,
  completed.rating::DECIMAL(3,2) AS average_rating,
  COALESCE(completed.reviews, 0) AS review_count,
  studied.rate::DECIMAL(5,2) AS avg_completion_rate,
  bought.revenue AS total_revenue,
  COALESCE(bought.purchases, 0) AS purchase_count
FROM public.courses c
LEFT JOIN (
  SELECT course_id, COUNT(DISTINCT user_id) AS users
  FROM public.enrollments
  GROUP BY course_id
) enrolled ON enrolled.course_id = c.id
LEFT JOIN (
  SELECT course_id, AVG(rating) AS rating, COUNT(rating) AS reviews
  FROM public.course_completions
  GROUP BY course_id
) completed ON completed.course_id = c.id
LEFT JOIN (
  SELECT lesson.course_id, AVG(progress.progress_percentage) AS rate
  FROM public.lesson_progress progress
  JOIN public.course_lessons lesson ON lesson.id = progress.lesson_id
  GROUP BY lesson.course_id
) studied ON studied.course_id = c.id
LEFT JOIN (
  SELECT course_id, SUM(amount) AS revenue, COUNT(*) AS purchases
  FROM public.course_purchases
  WHERE status = 'completed'
  GROUP BY course_id
) bought ON bought.course_id = c.id
WHERE c.status = 'published';

CREATE UNIQUE INDEX idx_course_statistics_id ON public.course_statistics(id);

-- ------------------------------------------------------------------ partitions

CREATE FUNCTION public.create_monthly_partition(table_name TEXT, partition_date DATE)
RETURNS VOID AS $$
DECLARE
  parent REGCLASS := to_regclass(format('public.%I', table_name));
  start_date DATE := date_trunc('month', partition_date);
  partition_name TEXT := table_name || '_' || to_char(start_date, 'YYYY_MM');
BEGIN
  IF NOT EXISTS (SELECT FROM pg_partitioned_table WHERE partrelid = parent) THEN
    RAISE EXCEPTION '% is not a partitioned table of this platform', table_name
      USING ERRCODE = 'wrong_object_type';
  END IF;

  -- Two callers at once: the second waits, then finds the month made.
  PERFORM pg_advisory_xact_lock('pg_partitioned_table'::regclass::oid::int, parent::oid::int);
  IF to_regclass(format('public.%I', partition_name)) IS NOT NULL THEN
    RETURN;
  END IF;

  EXECUTE format('CREATE TABLE public.%I (LIKE %s INCLUDING ALL)', partition_name, parent);
  IF (SELECT relrowsecurity FROM pg_class WHERE oid = parent) THEN
    -- Read directly, a partition doesn't ask its parent's policies.
    EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY', partition_name);
  END IF;
  EXECUTE format(
    'ALTER TABLE %s ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
    parent, partition_name, start_date, (start_date + INTERVAL '1 month')::date
  );
END;
$$ LANGUAGE plpgsql SECURITY DEFINER
  SET search_path = pg_catalog, pg_temp
  SET timezone = 'UTC'
  -- Below the default deadlock_timeout, so that in a cycle it is this call that gives way.
  SET lock_timeout = '500ms';

REVOKE ALL ON FUNCTION public.create_monthly_partition(TEXT, DATE) FROM PUBLIC;

-- ------------------------------------------------------------------ row-level security

ALTER TABLE public.users ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.enrollments ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.lesson_progress ENABLE ROW LEVEL SECURITY;

CREATE POLICY user_own_data ON public.users
  FOR ALL USING (auth.uid() = id);

CREATE POLICY user_own_enrollments ON public.enrollments
  FOR ALL USING (auth.uid() = user_id);

CREATE POLICY instructor_course_enrollments ON public.enrollments
  FOR SELECT USING (
    EXISTS (
      SELECT 1 FROM public.courses
      WHERE courses.id = enrollments.course_id
        AND courses.instructor_id = auth.uid()
    )
  );

CREATE POLICY user_own_progress ON public.lesson_progress
  FOR ALL USING (auth.uid() = user_id);

-- ------------------------------------------------------------------ this month and the next two

SELECT public.create_monthly_partition(
  'lesson_progress', (today + make_interval(months => ahead))::date
)
FROM generate_series(0, 2) AS ahead,
     CAST(date_trunc('month', now() AT TIME ZONE 'UTC') AS date) AS today;
