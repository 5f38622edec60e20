-- PhotoMemory AI: the tables that matter to running jobs, in a form PostgreSQL 14 to 18 runs.
--
-- Load it into an empty database, as its owner or a superuser. It holds no BEGIN or COMMIT and
-- nothing that cannot run in a transaction, so one failure leaves nothing behind.
--
-- Corrections to the platform's own design, and why:
--
--  1. The types generation_status, project_status, video_style, subscription_status and
--     resource_type were used but never created. They come from the design's first version and
--     are created before the tables that use them.
--  2. project_status gained 'deleted': check_user_limit compares with it, and an enum refuses a
--     word it doesn't have.
--  3. generation_jobs.created_at was missing, although two of its indexes and
--     generation_performance_metrics read it. Added, with the default the other tables have.
--  4. usage_records and audit_logs: the primary key of a partitioned table must contain the
--     partition key, so it is (id, billing_period) and (id, created_at).
--  5. ALTER TABLE … PARTITION BY does not exist. The tables are created partitioned.
--  6. The partitions of January 2024 are gone. The current month and the next two are made at the
--     end of this file.
--  7. The indexes of single partitions stand on the parents, which hand them to every partition.
--     create_monthly_partition therefore makes none (its idx_%I_… names also quoted the table name
--     in the middle of a word).
--  8. create_monthly_partition failed when the month existed, and CREATE … PARTITION OF takes an
--     exclusive lock on the parent, behind any open SELECT. It is now idempotent, builds the table
--     beside and attaches it. ATTACH still locks the tables the foreign keys point to against
--     writes, so it gives up after half a second instead of making every producer queue behind it.
--     It runs with its owner's rights, a pinned search_path, and in UTC: a bound of a timestamptz
--     column written as a date means another moment in another session's time zone.
--     Not for PUBLIC: grant EXECUTE to the role that keeps partitions.
--  9. A partition made for a table with row-level security gets it too. Read directly, a partition
--     does not ask its parent's policies.
-- 10. check_user_limit selected four columns into two variables, so it always failed, and with it
--     every INSERT into media_files and video_projects. It picks the limit by type, takes the free
--     plan where there is no active subscription (or it ran out), and takes -1 and NULL as
--     unlimited.
--     The free plan's limits are those of the setting free_plan_limits, where it has numbers: the
--     design has both, and a setting that changes nothing would mislead.
-- 11. check_user_limit's amount is numeric, and storage is compared in whole bytes. The cast of
--     gigabytes to INTEGER counted every file below half a gigabyte as nothing, and one of
--     600 MB as a whole gigabyte.
-- 12. Months in check_user_limit are UTC months, as in usage_records.
-- 13. Functions name the schema of all they use, so they also run for a session with another
--     search_path. The two trigger functions run with their owner's rights: under row-level
--     security an end user sees no subscription, and a paying one would be held to the free plan.
-- 14. user_analytics_summary joined projects, jobs and files of a user with each other: its storage
--     sum came out multiplied, and a refresh took time with the product of the three. Each is
--     counted on its own now. A unique index was added, without which REFRESH … CONCURRENTLY
--     refuses.
-- 15. idx_users_preferences_gin was created twice.
-- 16. The policy loop covered every table of the schema, partitions and tables without row-level
--     security included. It covers those that have it on. "Service role has full access" on users
--     is left to the loop, which made a second, equal policy for it.
-- 17. auth.users, auth.uid() and auth.jwt() are Supabase's. Stand-ins are made where they are
--     missing, and what exists is left alone.
-- 18. Left out: payment_methods (its check of card_exp_year against NOW() refuses old rows in a
--     restore), payment_transactions (partitioned without PARTITION BY), business_metrics_daily
--     (reads payments), db_performance_metrics and slow_queries (reads columns that
--     pg_stat_statements renamed). No job reads or writes them.

-- ------------------------------------------------------------------ Supabase's auth, if absent

CREATE SCHEMA IF NOT EXISTS auth;

CREATE TABLE IF NOT EXISTS auth.users (
  id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  email TEXT
);

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

-- ------------------------------------------------------------------ types

CREATE TYPE public.user_status AS ENUM ('active', 'suspended', 'deleted', 'pending_verification');
CREATE TYPE public.generation_priority AS ENUM ('low', 'normal', 'high', 'urgent');
CREATE TYPE public.audit_action AS ENUM (
  'create', 'update', 'delete', 'login', 'logout',
  'upload', 'download', 'generate', 'cancel', 'share'
);
CREATE TYPE public.processing_status AS ENUM (
  'pending', 'processing', 'completed', 'failed', 'cancelled'
);
CREATE TYPE public.subscription_status AS ENUM ('active', 'past_due', 'cancelled', 'unpaid');
CREATE TYPE public.project_status AS ENUM (
  'draft', 'processing', 'completed', 'failed', 'cancelled', 'deleted'
);
CREATE TYPE public.video_style AS ENUM ('classic', 'modern', 'cinematic', 'vintage');
CREATE TYPE public.generation_status AS ENUM (
  'queued', 'processing', 'completed', 'failed', 'cancelled'
);
CREATE TYPE public.resource_type AS ENUM ('video_generation', 'storage_bytes', 'project_creation');

-- ------------------------------------------------------------------ users and subscriptions

CREATE TABLE public.users (
  id UUID PRIMARY KEY REFERENCES auth.users(id) ON DELETE CASCADE,
  email VARCHAR(255) UNIQUE NOT NULL,
  display_name VARCHAR(100) NOT NULL,
  avatar_url TEXT,
  language VARCHAR(5) DEFAULT 'en' NOT NULL,
  timezone VARCHAR(50) DEFAULT 'UTC' NOT NULL,

  preferences JSONB DEFAULT '{}' NOT NULL,
  onboarding_completed BOOLEAN DEFAULT FALSE,
  last_activity_at TIMESTAMPTZ,

  created_at TIMESTAMPTZ DEFAULT NOW() NOT NULL,
  updated_at TIMESTAMPTZ DEFAULT NOW() NOT NULL,

  CONSTRAINT valid_language CHECK (language IN ('en', 'ko', 'ja', 'zh-cn', 'es', 'fr', 'de')),
  CONSTRAINT valid_preferences CHECK (jsonb_typeof(preferences) = 'object')
);

CREATE INDEX idx_users_email ON public.users(email);
CREATE INDEX idx_users_language ON public.users(language);
CREATE INDEX idx_users_last_activity ON public.users(last_activity_at DESC)
  WHERE last_activity_at IS NOT NULL;
CREATE INDEX idx_users_preferences_gin ON public.users USING gin(preferences);

CREATE TABLE public.subscription_plans (
  id VARCHAR(50) PRIMARY KEY,
  name VARCHAR(100) NOT NULL,
  display_order INTEGER NOT NULL DEFAULT 0,

  price_cents INTEGER NOT NULL,
  billing_interval VARCHAR(20) NOT NULL,
  currency VARCHAR(3) DEFAULT 'USD' NOT NULL,

  max_projects INTEGER,
  max_videos_per_month INTEGER,
  max_storage_gb INTEGER,
  features JSONB DEFAULT '[]' NOT NULL,

  is_active BOOLEAN DEFAULT TRUE,
  description TEXT,
  created_at TIMESTAMPTZ DEFAULT NOW() NOT NULL,
  updated_at TIMESTAMPTZ DEFAULT NOW() NOT NULL,

  CONSTRAINT positive_price CHECK (price_cents >= 0),
  CONSTRAINT valid_billing_interval CHECK (billing_interval IN ('month', 'year')),
  CONSTRAINT valid_features CHECK (jsonb_typeof(features) = 'array')
);

INSERT INTO public.subscription_plans
  (id, name, price_cents, billing_interval,
   max_projects, max_videos_per_month, max_storage_gb, features)
VALUES
  ('free', 'Free Plan', 0, 'month', 3, 5, 1, '["watermark"]'),
  ('pro', 'Pro Plan', 1900, 'month', 50, 100, 50, '["no_watermark", "priority_support"]'),
  ('enterprise', 'Enterprise Plan', 9900, 'month', -1, -1, 500,
   '["no_watermark", "priority_support", "custom_branding", "api_access"]');

CREATE INDEX idx_subscription_plans_active ON public.subscription_plans(is_active, display_order);
CREATE INDEX idx_subscription_plans_features_gin
  ON public.subscription_plans USING gin(features);

CREATE TABLE public.user_subscriptions (
  id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  user_id UUID NOT NULL REFERENCES public.users(id) ON DELETE CASCADE,
  plan_id VARCHAR(50) NOT NULL REFERENCES public.subscription_plans(id),

  status public.subscription_status NOT NULL DEFAULT 'active',
  current_period_start TIMESTAMPTZ NOT NULL,
  current_period_end TIMESTAMPTZ NOT NULL,
  cancel_at_period_end BOOLEAN DEFAULT FALSE,
  cancelled_at TIMESTAMPTZ,

  stripe_subscription_id VARCHAR(255) UNIQUE,
  stripe_customer_id VARCHAR(255),

  created_at TIMESTAMPTZ DEFAULT NOW() NOT NULL,
  updated_at TIMESTAMPTZ DEFAULT NOW() NOT NULL,

  CONSTRAINT valid_period CHECK (current_period_end > current_period_start),
  CONSTRAINT stripe_id_required CHECK (
    (plan_id = 'free') OR
    (plan_id != 'free' AND stripe_subscription_id IS NOT NULL)
  )
);

CREATE UNIQUE INDEX idx_user_subscriptions_active ON public.user_subscriptions(user_id)
  WHERE status = 'active';
CREATE INDEX idx_user_subscriptions_stripe ON public.user_subscriptions(stripe_subscription_id);
CREATE INDEX idx_user_subscriptions_period ON public.user_subscriptions(current_period_end)
  WHERE status = 'active';

-- ------------------------------------------------------------------ media

CREATE TABLE public.media_files (
  id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  user_id UUID NOT NULL REFERENCES public.users(id) ON DELETE CASCADE,

  original_filename VARCHAR(255) NOT NULL,
  file_key TEXT NOT NULL UNIQUE,
  file_url TEXT NOT NULL,
  thumbnail_url TEXT,

  file_type VARCHAR(20) NOT NULL,
  mime_type VARCHAR(100) NOT NULL,
  file_size_bytes BIGINT NOT NULL,

  width INTEGER,
  height INTEGER,
  duration_seconds INTEGER,

  processing_status VARCHAR(20) DEFAULT 'completed',
  processing_error TEXT,

  metadata JSONB DEFAULT '{}',
  content_hash VARCHAR(64),

  folder_path TEXT DEFAULT '/',
  tags TEXT[] DEFAULT '{}',

  uploaded_at TIMESTAMPTZ DEFAULT NOW() NOT NULL,
  last_accessed_at TIMESTAMPTZ,
  created_at TIMESTAMPTZ DEFAULT NOW() NOT NULL,
  updated_at TIMESTAMPTZ DEFAULT NOW() NOT NULL,

  CONSTRAINT valid_file_type CHECK (file_type IN ('image', 'video', 'audio', 'document')),
  CONSTRAINT positive_file_size CHECK (file_size_bytes > 0),
  CONSTRAINT valid_processing_status CHECK (
    processing_status IN ('pending', 'processing', 'completed', 'failed')
  ),
  CONSTRAINT valid_dimensions CHECK (
    (file_type != 'image' AND file_type != 'video') OR
    (width > 0 AND height > 0)
  )
);

CREATE INDEX idx_media_files_user_id ON public.media_files(user_id, created_at DESC);
CREATE INDEX idx_media_files_type ON public.media_files(file_type, created_at DESC);
CREATE INDEX idx_media_files_hash ON public.media_files(content_hash)
  WHERE content_hash IS NOT NULL;
CREATE INDEX idx_media_files_folder ON public.media_files(user_id, folder_path);
CREATE INDEX idx_media_files_tags_gin ON public.media_files USING gin(tags);
CREATE INDEX idx_media_files_user_folder_type
  ON public.media_files(user_id, folder_path, file_type, created_at DESC);
CREATE INDEX idx_media_files_metadata_gin ON public.media_files USING gin(metadata);

-- ------------------------------------------------------------------ projects and their jobs

CREATE TABLE public.video_projects (
  id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  user_id UUID NOT NULL REFERENCES public.users(id) ON DELETE CASCADE,

  title_i18n JSONB NOT NULL DEFAULT '{}',
  description_i18n JSONB NOT NULL DEFAULT '{}',

  style public.video_style NOT NULL DEFAULT 'classic',
  duration_minutes INTEGER NOT NULL DEFAULT 1,
  aspect_ratio VARCHAR(10) DEFAULT '16:9',
  resolution VARCHAR(10) DEFAULT '1080p',

  status public.project_status NOT NULL DEFAULT 'draft',
  progress_percentage INTEGER DEFAULT 0,

  ai_prompt TEXT,
  generation_settings JSONB DEFAULT '{}',

  metadata JSONB DEFAULT '{}',
  template_id UUID,

  photo_count INTEGER DEFAULT 0,
  total_file_size_bytes BIGINT DEFAULT 0,

  started_at TIMESTAMPTZ,
  completed_at TIMESTAMPTZ,
  created_at TIMESTAMPTZ DEFAULT NOW() NOT NULL,
  updated_at TIMESTAMPTZ DEFAULT NOW() NOT NULL,

  CONSTRAINT valid_duration CHECK (duration_minutes BETWEEN 1 AND 30),
  CONSTRAINT valid_progress CHECK (progress_percentage BETWEEN 0 AND 100),
  CONSTRAINT valid_aspect_ratio CHECK (aspect_ratio IN ('16:9', '9:16', '1:1', '4:3')),
  CONSTRAINT valid_resolution CHECK (resolution IN ('720p', '1080p', '4k')),
  CONSTRAINT valid_title_i18n CHECK (jsonb_typeof(title_i18n) = 'object'),
  CONSTRAINT valid_description_i18n CHECK (jsonb_typeof(description_i18n) = 'object')
);

CREATE INDEX idx_video_projects_user_id ON public.video_projects(user_id, created_at DESC);
CREATE INDEX idx_video_projects_status ON public.video_projects(status, created_at DESC);
CREATE INDEX idx_video_projects_template ON public.video_projects(template_id)
  WHERE template_id IS NOT NULL;
CREATE INDEX idx_video_projects_user_status_updated
  ON public.video_projects(user_id, status, updated_at DESC)
  WHERE status IN ('draft', 'processing', 'completed');
CREATE INDEX idx_video_projects_title_gin ON public.video_projects USING gin(title_i18n);

CREATE TABLE public.project_media (
  id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  project_id UUID NOT NULL REFERENCES public.video_projects(id) ON DELETE CASCADE,
  media_file_id UUID NOT NULL REFERENCES public.media_files(id) ON DELETE CASCADE,

  display_order INTEGER NOT NULL DEFAULT 0,
  duration_seconds NUMERIC(5,2),
  transition_type VARCHAR(50) DEFAULT 'fade',

  settings JSONB DEFAULT '{}',

  added_at TIMESTAMPTZ DEFAULT NOW() NOT NULL,

  CONSTRAINT positive_duration CHECK (duration_seconds > 0),
  CONSTRAINT valid_transition CHECK (transition_type IN ('fade', 'slide', 'zoom', 'none')),

  UNIQUE(project_id, media_file_id),
  UNIQUE(project_id, display_order)
);

CREATE INDEX idx_project_media_project_order ON public.project_media(project_id, display_order);
CREATE INDEX idx_project_media_file ON public.project_media(media_file_id);

CREATE TABLE public.generation_jobs (
  id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  project_id UUID NOT NULL REFERENCES public.video_projects(id) ON DELETE CASCADE,
  user_id UUID NOT NULL REFERENCES public.users(id),

  job_type VARCHAR(20) NOT NULL DEFAULT 'video',
  priority INTEGER DEFAULT 5,

  status public.generation_status NOT NULL DEFAULT 'queued',
  progress_percentage INTEGER DEFAULT 0,

  generation_service VARCHAR(50) NOT NULL,
  external_job_id VARCHAR(255),

  estimated_duration_seconds INTEGER,
  actual_duration_seconds INTEGER,
  compute_cost_cents INTEGER,

  output_file_id UUID REFERENCES public.media_files(id),
  output_metadata JSONB DEFAULT '{}',

  error_message TEXT,
  retry_count INTEGER DEFAULT 0,
  max_retries INTEGER DEFAULT 3,

  queued_at TIMESTAMPTZ DEFAULT NOW() NOT NULL,
  started_at TIMESTAMPTZ,
  completed_at TIMESTAMPTZ,
  failed_at TIMESTAMPTZ,
  created_at TIMESTAMPTZ DEFAULT NOW() NOT NULL,

  CONSTRAINT valid_job_type CHECK (job_type IN ('video', 'thumbnail', 'preview', 'audio')),
  CONSTRAINT valid_priority CHECK (priority BETWEEN 1 AND 10),
  CONSTRAINT valid_progress CHECK (progress_percentage BETWEEN 0 AND 100),
  CONSTRAINT valid_retry_count CHECK (retry_count >= 0 AND retry_count <= max_retries),
  CONSTRAINT status_consistency CHECK (
    (status = 'completed' AND output_file_id IS NOT NULL AND completed_at IS NOT NULL) OR
    (status != 'completed')
  )
);

CREATE INDEX idx_generation_jobs_status_priority
  ON public.generation_jobs(status, priority DESC, queued_at);
CREATE INDEX idx_generation_jobs_project ON public.generation_jobs(project_id, created_at DESC);
CREATE INDEX idx_generation_jobs_user ON public.generation_jobs(user_id, created_at DESC);
CREATE INDEX idx_generation_jobs_service
  ON public.generation_jobs(generation_service, external_job_id);
CREATE INDEX idx_generation_jobs_queue_processing
  ON public.generation_jobs(status, priority DESC, queued_at ASC)
  WHERE status IN ('queued', 'processing');

-- ------------------------------------------------------------------ usage, settings, audit

CREATE TABLE public.usage_records (
  id UUID NOT NULL DEFAULT gen_random_uuid(),
  user_id UUID NOT NULL REFERENCES public.users(id) ON DELETE CASCADE,
  subscription_id UUID REFERENCES public.user_subscriptions(id),

  resource_type public.resource_type NOT NULL,
  resource_subtype VARCHAR(50),

  quantity DECIMAL(12,4) NOT NULL,
  unit VARCHAR(20) NOT NULL,
  cost_cents INTEGER DEFAULT 0,

  billing_period DATE NOT NULL,

  project_id UUID REFERENCES public.video_projects(id),
  generation_job_id UUID REFERENCES public.generation_jobs(id),

  metadata JSONB DEFAULT '{}',

  recorded_at TIMESTAMPTZ DEFAULT NOW() NOT NULL,
  billed_at TIMESTAMPTZ,

  PRIMARY KEY (id, billing_period),

  CONSTRAINT positive_quantity CHECK (quantity >= 0),
  CONSTRAINT positive_cost CHECK (cost_cents >= 0),
  CONSTRAINT valid_unit CHECK (unit IN ('count', 'bytes', 'seconds', 'requests', 'gb_hours'))
)
PARTITION BY RANGE (billing_period);

CREATE INDEX idx_usage_records_user_period ON public.usage_records(user_id, billing_period);
CREATE INDEX idx_usage_records_type ON public.usage_records(resource_type, resource_subtype);
CREATE INDEX idx_usage_records_user_period_type
  ON public.usage_records(user_id, billing_period, resource_type, resource_subtype);

CREATE TABLE public.system_settings (
  key VARCHAR(100) PRIMARY KEY,
  value JSONB NOT NULL,
  description TEXT,
  is_public BOOLEAN DEFAULT FALSE,

  updated_by UUID REFERENCES public.users(id),
  updated_at TIMESTAMPTZ DEFAULT NOW() NOT NULL,

  CONSTRAINT valid_value CHECK (
    jsonb_typeof(value) IN ('string', 'number', 'boolean', 'object', 'array')
  )
);

INSERT INTO public.system_settings (key, value, description, is_public) VALUES
  ('max_file_size_mb', '10', 'Maximum file upload size in MB', true),
  ('supported_video_formats', '["mp4", "mov", "avi"]', 'Supported video formats', true),
  ('generation_queue_max_concurrent', '5', 'Max concurrent generation jobs', false),
  ('free_plan_limits', '{"projects": 3, "videos_per_month": 5, "storage_gb": 1}',
   'Free plan limitations', false);

CREATE INDEX idx_system_settings_public ON public.system_settings(is_public)
  WHERE is_public = true;

CREATE TABLE public.audit_logs (
  id UUID NOT NULL DEFAULT gen_random_uuid(),

  user_id UUID REFERENCES public.users(id),
  session_id VARCHAR(255),
  ip_address INET,
  user_agent TEXT,

  action VARCHAR(100) NOT NULL,
  resource_type VARCHAR(50) NOT NULL,
  resource_id UUID,

  changes JSONB,
  metadata JSONB DEFAULT '{}',

  success BOOLEAN NOT NULL DEFAULT true,
  error_message TEXT,

  created_at TIMESTAMPTZ DEFAULT NOW() NOT NULL,

  PRIMARY KEY (id, created_at),

  CONSTRAINT valid_action CHECK (action ~ '^[a-z_]+$')
)
PARTITION BY RANGE (created_at);

CREATE INDEX idx_audit_logs_user ON public.audit_logs(user_id, created_at DESC);
CREATE INDEX idx_audit_logs_resource
  ON public.audit_logs(resource_type, resource_id, created_at DESC);
CREATE INDEX idx_audit_logs_action ON public.audit_logs(action, created_at DESC);

-- ------------------------------------------------------------------ subscription limits

CREATE FUNCTION public.get_user_subscription_features(p_user_id UUID)
RETURNS TABLE(
  plan_id VARCHAR(50),
  features JSONB,
  max_projects INTEGER,
  max_videos_per_month INTEGER,
  max_storage_gb INTEGER,
  is_active BOOLEAN
) AS $$
BEGIN
  RETURN QUERY
  SELECT
    sp.id,
    sp.features,
    sp.max_projects,
    sp.max_videos_per_month,
    sp.max_storage_gb,
    us.status = 'active' AND us.current_period_end > NOW()
  FROM public.user_subscriptions us
  JOIN public.subscription_plans sp ON us.plan_id = sp.id
  WHERE us.user_id = p_user_id
    AND us.status = 'active'
  ORDER BY us.created_at DESC
  LIMIT 1;
END;
$$ LANGUAGE plpgsql STABLE;

CREATE FUNCTION public.check_user_limit(
  p_user_id UUID,
  p_limit_type VARCHAR(50),
  p_requested_amount NUMERIC DEFAULT 1
) RETURNS BOOLEAN AS $$
DECLARE
  user_limit NUMERIC;
  current_usage NUMERIC;
  -- What is counted in one unit of the limit: storage is compared in bytes, which are exact.
  counted_per_unit NUMERIC := CASE p_limit_type WHEN 'storage_gb' THEN 1073741824 ELSE 1 END;
BEGIN
  IF p_limit_type IS NULL
     OR p_limit_type NOT IN ('projects', 'videos_per_month', 'storage_gb') THEN
    RETURN FALSE;
  END IF;

  SELECT
    coalesce(
      setting.most,
      CASE p_limit_type
        WHEN 'projects' THEN plan.max_projects
        WHEN 'videos_per_month' THEN plan.max_videos_per_month
        WHEN 'storage_gb' THEN plan.max_storage_gb
      END
    )
  INTO user_limit
  FROM public.subscription_plans plan
  LEFT JOIN (
    SELECT (value ->> p_limit_type)::numeric AS most
    FROM public.system_settings
    WHERE key = 'free_plan_limits' AND jsonb_typeof(value -> p_limit_type) = 'number'
  ) setting ON plan.id = 'free'
  WHERE plan.id = coalesce(
    (SELECT f.plan_id FROM public.get_user_subscription_features(p_user_id) f WHERE f.is_active),
    'free'
  );

  IF NOT FOUND THEN
    RETURN FALSE;
  END IF;
  IF user_limit IS NULL OR user_limit = -1 THEN
    RETURN TRUE;
  END IF;

  CASE p_limit_type
    WHEN 'projects' THEN
      SELECT COUNT(*) INTO current_usage
      FROM public.video_projects
      WHERE user_id = p_user_id AND status != 'deleted';

    WHEN 'videos_per_month' THEN
      SELECT COUNT(*) INTO current_usage
      FROM public.generation_jobs gj
      JOIN public.video_projects vp ON gj.project_id = vp.id
      WHERE vp.user_id = p_user_id
        AND gj.job_type = 'video'
        AND gj.status = 'completed'
        AND gj.completed_at >= date_trunc('month', NOW(), 'UTC');

    WHEN 'storage_gb' THEN
      SELECT COALESCE(SUM(file_size_bytes), 0) INTO current_usage
      FROM public.media_files
      WHERE user_id = p_user_id;
  END CASE;

  RETURN current_usage + round(p_requested_amount * counted_per_unit)
         <= user_limit * counted_per_unit;
END;
$$ LANGUAGE plpgsql STABLE;

CREATE FUNCTION public.validate_file_upload() RETURNS TRIGGER AS $$
BEGIN
  IF NOT public.check_user_limit(NEW.user_id, 'storage_gb', NEW.file_size_bytes / 1073741824.0) THEN
    RAISE EXCEPTION 'Storage limit exceeded for user subscription plan';
  END IF;
  RETURN NEW;
END;
$$ LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

CREATE TRIGGER validate_media_file_upload
  BEFORE INSERT ON public.media_files
  FOR EACH ROW EXECUTE FUNCTION public.validate_file_upload();

CREATE FUNCTION public.validate_project_creation() RETURNS TRIGGER AS $$
BEGIN
  IF NOT public.check_user_limit(NEW.user_id, 'projects', 1) THEN
    RAISE EXCEPTION 'Project limit exceeded for user subscription plan';
  END IF;
  RETURN NEW;
END;
$$ LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

CREATE TRIGGER validate_project_creation_limit
  BEFORE INSERT ON public.video_projects
  FOR EACH ROW EXECUTE FUNCTION public.validate_project_creation();

-- ------------------------------------------------------------------ analytics

CREATE MATERIALIZED VIEW public.user_analytics_summary AS
SELECT
  u.id AS user_id,
  u.display_name,
  u.language,
  u.created_at AS user_created_at,

  us.plan_id AS current_plan,
  us.status AS subscription_status,

  COALESCE(projects.total, 0) AS total_projects,
  COALESCE(projects.completed, 0) AS completed_projects,

  COALESCE(generations.total, 0) AS total_generations,
  COALESCE(generations.successful, 0) AS successful_generations,

  COALESCE(files.bytes, 0) AS total_storage_bytes,
  COALESCE(files.total, 0) AS total_files,

  u.last_activity_at,
  projects.last_created AS last_project_created,
  generations.last_completed AS last_generation_completed,

  COALESCE(generations.successful::FLOAT / generations.total::FLOAT, 0) AS success_rate

FROM public.users u
LEFT JOIN public.user_subscriptions us ON u.id = us.user_id AND us.status = 'active'
LEFT JOIN (
  SELECT
    user_id,
    COUNT(*) AS total,
    COUNT(*) FILTER (WHERE status = 'completed') AS completed,
    MAX(created_at) AS last_created
  FROM public.video_projects
  GROUP BY user_id
) projects ON projects.user_id = u.id
LEFT JOIN (
  SELECT
    vp.user_id,
    COUNT(*) AS total,
    COUNT(*) FILTER (WHERE gj.status = 'completed') AS successful,
    MAX(gj.completed_at) AS last_completed
  FROM public.generation_jobs gj
  JOIN public.video_projects vp ON vp.id = gj.project_id
  GROUP BY vp.user_id
) generations ON generations.user_id = u.id
LEFT JOIN (
  SELECT user_id, COUNT(*) AS total, SUM(file_size_bytes) AS bytes
  FROM public.media_files
  GROUP BY user_id
) files ON files.user_id = u.id;

CREATE UNIQUE INDEX idx_user_analytics_summary_user ON public.user_analytics_summary(user_id);
CREATE INDEX idx_user_analytics_summary_plan ON public.user_analytics_summary(current_plan);
CREATE INDEX idx_user_analytics_summary_activity
  ON public.user_analytics_summary(last_activity_at DESC NULLS LAST);

CREATE MATERIALIZED VIEW public.generation_performance_metrics AS
SELECT
  DATE(gj.created_at) AS date,
  gj.generation_service,
  gj.job_type,

  COUNT(*) AS total_jobs,
  COUNT(CASE WHEN status = 'completed' THEN 1 END) AS successful_jobs,
  COUNT(CASE WHEN status = 'failed' THEN 1 END) AS failed_jobs,

  AVG(CASE WHEN status = 'completed' THEN actual_duration_seconds END) AS avg_duration_seconds,
  PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY actual_duration_seconds) AS median_duration_seconds,
  PERCENTILE_CONT(0.95) WITHIN GROUP (ORDER BY actual_duration_seconds) AS p95_duration_seconds,

  SUM(compute_cost_cents) AS total_cost_cents,
  AVG(compute_cost_cents) AS avg_cost_cents,

  AVG(retry_count) AS avg_retry_count

FROM public.generation_jobs gj
WHERE gj.created_at >= CURRENT_DATE - INTERVAL '90 days'
GROUP BY DATE(gj.created_at), gj.generation_service, gj.job_type;

CREATE UNIQUE INDEX idx_generation_performance_metrics_unique
  ON public.generation_performance_metrics(date, generation_service, job_type);

-- ------------------------------------------------------------------ partitions

CREATE FUNCTION public.create_monthly_partition(table_name TEXT, partition_date DATE)
RETURNS VOID AS $$
DECLARE
  parent REGCLASS := to_regclass(format('public.%I', table_name));
  start_date DATE := date_trunc('month', partition_date);
  partition_name TEXT := table_name || '_' || to_char(start_date, 'YYYY_MM');
BEGIN
  IF NOT EXISTS (SELECT FROM pg_partitioned_table WHERE partrelid = parent) THEN
    RAISE EXCEPTION 'public.% is not a partitioned table', table_name
      USING ERRCODE = 'wrong_object_type';
  END IF;

  -- Two callers at once: the second waits, then finds the month made.
  PERFORM pg_advisory_xact_lock('pg_partitioned_table'::regclass::oid::int, parent::oid::int);
  IF to_regclass(format('public.%I', partition_name)) IS NOT NULL THEN
    RETURN;
  END IF;

  EXECUTE format('CREATE TABLE public.%I (LIKE %s INCLUDING ALL)', partition_name, parent);
  IF (SELECT relrowsecurity FROM pg_class WHERE oid = parent) THEN
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
ALTER TABLE public.user_subscriptions ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.media_files ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.video_projects ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.project_media ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.generation_jobs ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.usage_records ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.audit_logs ENABLE ROW LEVEL SECURITY;

CREATE POLICY "Users can view own data" ON public.users
  FOR SELECT USING (auth.uid() = id);

CREATE POLICY "Users can update own profile" ON public.users
  FOR UPDATE USING (auth.uid() = id);

CREATE POLICY "Users can manage own projects" ON public.video_projects
  FOR ALL USING (auth.uid() = user_id);

CREATE POLICY "Users can manage project media" ON public.project_media
  FOR ALL USING (
    EXISTS (
      SELECT 1 FROM public.video_projects
      WHERE id = project_media.project_id
        AND user_id = auth.uid()
    )
  );

CREATE POLICY "Users can manage own media" ON public.media_files
  FOR ALL USING (auth.uid() = user_id);

DO $$
DECLARE
  secured REGCLASS;
BEGIN
  FOR secured IN
    SELECT oid FROM pg_class
    WHERE relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'public.users'::regclass)
      AND relrowsecurity AND NOT relispartition
  LOOP
    EXECUTE format(
      'CREATE POLICY "Service role full access" ON %s
         FOR ALL USING (auth.jwt() ->> ''role'' = ''service_role'')',
      secured
    );
  END LOOP;
END $$;

-- ------------------------------------------------------------------ this month and the next two

SELECT public.create_monthly_partition(parent, (today + make_interval(months => ahead))::date)
FROM (VALUES ('usage_records'), ('audit_logs')) AS parents(parent),
     generate_series(0, 2) AS ahead,
     CAST(date_trunc('month', now() AT TIME ZONE 'UTC') AS date) AS today;
