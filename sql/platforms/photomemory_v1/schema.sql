-- PhotoMemory AI, first version: the platform's tables in a form PostgreSQL 14 to 18 runs.
--
-- Load it into a database without these tables, as its owner or a superuser. It holds no BEGIN or
-- COMMIT and nothing that cannot run in a transaction, so one failure leaves nothing behind.
--
-- Corrections to the platform's own design, and why:
--
--  1. usage_records.amount was DECIMAL(10,2), which ends below 100 million: the storage record of
--     any file of 100 MB or more failed, and with it the whole result. It is NUMERIC(20,2).
--  2. track_storage_usage read NEW.user_id of photos, which have no such column, so that every
--     upload and every deletion of a photo failed. Photos have a function of their own, which
--     finds the owner through the project.
--  3. When a project is deleted, its photos are deleted after it, and their trigger finds no owner
--     any more: the owner's total kept their bytes for ever. The project takes them along.
--  4. The total didn't follow a media item whose size or owner was changed. It does.
--  5. ALTER VIEW … ENABLE ROW LEVEL SECURITY and a policy on a view don't exist. Both are left out:
--     a view shows all rows to whoever may read it, so end users must not be granted it.
--  6. user_dashboard_stats joined photos and videos of a project with each other: the sum of bytes
--     was multiplied by the number of videos. Each is counted on its own.
--  7. user_analytics_daily: days were those of whatever session refreshed it. They are UTC's. Its
--     index is unique, without which REFRESH … CONCURRENTLY refuses.
--  8. generated_videos had no index for the two questions that every start and result ask: what a
--     service lately took (generation_service, completed_at), and whether a project has a newer
--     video (project_id, created_at). With a million rows each would read them all.
--  9. "Apply to all tables with updated_at" and "to all tables": written out for updated_at, a loop
--     for the service account. current_setting(…)::json fails once a session has had claims and
--     has none any more (the setting is '' then, which is no JSON); auth.jwt() is asked instead.
-- 10. idx_photos_project_order and idx_active_subscriptions repeated another index under a second
--     name. The last three tables' row-level security was switched on twice.
-- 11. Functions name the schema of all they use, so they also run for a session with another
--     search_path.
-- 12. auth.users, auth.uid() and auth.jwt() are Supabase's. Stand-ins are made where they are
--     missing, and what exists is left alone.
-- 13. payment_methods and invoices were drawn but never described. They are left out.

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

CREATE TYPE public.project_status AS ENUM (
  'draft', 'processing', 'completed', 'failed', 'cancelled'
);
CREATE TYPE public.video_style AS ENUM ('classic', 'modern', 'cinematic', 'vintage');
CREATE TYPE public.generation_status AS ENUM (
  'queued', 'processing', 'completed', 'failed', 'cancelled'
);
CREATE TYPE public.subscription_status AS ENUM ('active', 'past_due', 'cancelled', 'unpaid');
CREATE TYPE public.resource_type AS ENUM ('video_generation', 'storage_bytes', 'project_creation');

-- ------------------------------------------------------------------ users, projects, photos

CREATE TABLE public.users (
  id UUID PRIMARY KEY REFERENCES auth.users(id) ON DELETE CASCADE,
  email VARCHAR(255) UNIQUE NOT NULL,
  display_name VARCHAR(100) NOT NULL,
  avatar_url TEXT,
  language VARCHAR(5) DEFAULT 'en' NOT NULL,
  timezone VARCHAR(50) DEFAULT 'UTC' NOT NULL,
  subscription_plan VARCHAR(20) DEFAULT 'free' NOT NULL,
  total_storage_bytes BIGINT DEFAULT 0 NOT NULL,
  created_at TIMESTAMPTZ DEFAULT NOW() NOT NULL,
  updated_at TIMESTAMPTZ DEFAULT NOW() NOT NULL,

  CONSTRAINT valid_language CHECK (language IN ('en', 'ko', 'ja', 'zh', 'es', 'fr', 'de')),
  CONSTRAINT valid_subscription CHECK (subscription_plan IN ('free', 'pro', 'enterprise'))
);

CREATE INDEX idx_users_email ON public.users(email);
CREATE INDEX idx_users_subscription ON public.users(subscription_plan);

CREATE FUNCTION public.validate_i18n_json(i18n_data JSONB) RETURNS BOOLEAN AS $$
BEGIN
  IF jsonb_typeof(i18n_data) != 'object' THEN
    RETURN FALSE;
  END IF;
  RETURN NOT EXISTS (
    SELECT 1 FROM jsonb_each(i18n_data) WHERE jsonb_typeof(value) != 'string'
  );
END;
$$ LANGUAGE plpgsql IMMUTABLE;

CREATE TABLE public.video_projects (
  id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  user_id UUID NOT NULL REFERENCES public.users(id) ON DELETE CASCADE,
  title_i18n JSONB NOT NULL DEFAULT '{}',
  description_i18n JSONB NOT NULL DEFAULT '{}',
  style public.video_style NOT NULL DEFAULT 'classic',
  duration_minutes INTEGER NOT NULL DEFAULT 1,
  status public.project_status NOT NULL DEFAULT 'draft',
  photo_count INTEGER NOT NULL DEFAULT 0,
  ai_prompt TEXT,
  metadata JSONB DEFAULT '{}',
  created_at TIMESTAMPTZ DEFAULT NOW() NOT NULL,
  updated_at TIMESTAMPTZ DEFAULT NOW() NOT NULL,

  CONSTRAINT valid_duration CHECK (duration_minutes BETWEEN 1 AND 30),
  CONSTRAINT valid_photo_count CHECK (photo_count >= 0 AND photo_count <= 20),
  CONSTRAINT valid_title_i18n CHECK (jsonb_typeof(title_i18n) = 'object'),
  CONSTRAINT valid_description_i18n CHECK (jsonb_typeof(description_i18n) = 'object'),
  CONSTRAINT valid_title_i18n_format CHECK (public.validate_i18n_json(title_i18n))
);

CREATE INDEX idx_projects_user_id ON public.video_projects(user_id);
CREATE INDEX idx_projects_status ON public.video_projects(status);
CREATE INDEX idx_projects_created_at ON public.video_projects(created_at DESC);
CREATE INDEX idx_projects_user_status_created
  ON public.video_projects(user_id, status, created_at DESC);

CREATE TABLE public.photos (
  id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  project_id UUID NOT NULL REFERENCES public.video_projects(id) ON DELETE CASCADE,
  file_url TEXT NOT NULL,
  thumbnail_url TEXT,
  original_filename VARCHAR(255),
  file_size_bytes BIGINT NOT NULL,
  mime_type VARCHAR(50) NOT NULL,
  width INTEGER,
  height INTEGER,
  upload_order INTEGER NOT NULL DEFAULT 0,
  metadata JSONB DEFAULT '{}',
  created_at TIMESTAMPTZ DEFAULT NOW() NOT NULL,
  updated_at TIMESTAMPTZ DEFAULT NOW() NOT NULL,

  CONSTRAINT valid_file_size CHECK (file_size_bytes > 0 AND file_size_bytes <= 10485760),
  CONSTRAINT valid_mime_type CHECK (mime_type IN ('image/jpeg', 'image/png', 'image/webp')),
  CONSTRAINT valid_dimensions CHECK (
    (width IS NULL AND height IS NULL) OR (width > 0 AND height > 0)
  )
);

CREATE INDEX idx_photos_project_id ON public.photos(project_id);
CREATE INDEX idx_photos_upload_order ON public.photos(project_id, upload_order);

-- ------------------------------------------------------------------ videos: the jobs

CREATE TABLE public.generated_videos (
  id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  project_id UUID NOT NULL REFERENCES public.video_projects(id) ON DELETE CASCADE,
  file_url TEXT,
  thumbnail_url TEXT,
  duration_seconds INTEGER,
  file_size_bytes BIGINT,
  status public.generation_status NOT NULL DEFAULT 'queued',
  ai_prompt TEXT NOT NULL,
  generation_service VARCHAR(50) NOT NULL,
  external_generation_id VARCHAR(255),
  error_message TEXT,
  progress_percentage INTEGER DEFAULT 0,
  estimated_completion_at TIMESTAMPTZ,
  started_at TIMESTAMPTZ,
  completed_at TIMESTAMPTZ,
  created_at TIMESTAMPTZ DEFAULT NOW() NOT NULL,
  updated_at TIMESTAMPTZ DEFAULT NOW() NOT NULL,

  CONSTRAINT valid_progress CHECK (progress_percentage >= 0 AND progress_percentage <= 100),
  CONSTRAINT valid_duration CHECK (duration_seconds IS NULL OR duration_seconds > 0),
  CONSTRAINT valid_file_size CHECK (file_size_bytes IS NULL OR file_size_bytes > 0),
  CONSTRAINT status_consistency CHECK (
    (status = 'completed' AND file_url IS NOT NULL AND completed_at IS NOT NULL) OR
    (status != 'completed')
  )
);

CREATE INDEX idx_generated_videos_project_id
  ON public.generated_videos(project_id, created_at DESC);
CREATE INDEX idx_generated_videos_status ON public.generated_videos(status);
CREATE INDEX idx_generated_videos_external_id ON public.generated_videos(external_generation_id);
CREATE INDEX idx_generated_videos_recent
  ON public.generated_videos(generation_service, completed_at DESC) WHERE status = 'completed';
CREATE INDEX idx_processing_videos ON public.generated_videos(created_at)
  WHERE status IN ('queued', 'processing');

-- ------------------------------------------------------------------ subscriptions, usage, media

CREATE TABLE public.subscriptions (
  id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  user_id UUID NOT NULL REFERENCES public.users(id) ON DELETE CASCADE,
  plan_id VARCHAR(50) NOT NULL,
  status public.subscription_status NOT NULL DEFAULT 'active',
  stripe_subscription_id VARCHAR(255) UNIQUE,
  stripe_customer_id VARCHAR(255),
  current_period_start TIMESTAMPTZ NOT NULL,
  current_period_end TIMESTAMPTZ NOT NULL,
  cancel_at_period_end BOOLEAN DEFAULT FALSE,
  cancelled_at TIMESTAMPTZ,
  created_at TIMESTAMPTZ DEFAULT NOW() NOT NULL,
  updated_at TIMESTAMPTZ DEFAULT NOW() NOT NULL,

  CONSTRAINT valid_plan CHECK (plan_id IN ('free', 'pro', 'enterprise')),
  CONSTRAINT valid_period CHECK (current_period_end > current_period_start),
  CONSTRAINT stripe_id_required CHECK (
    (plan_id = 'free') OR
    (plan_id != 'free' AND stripe_subscription_id IS NOT NULL)
  )
);

CREATE UNIQUE INDEX idx_subscriptions_user_active ON public.subscriptions(user_id)
  WHERE status = 'active';
CREATE INDEX idx_subscriptions_stripe ON public.subscriptions(stripe_subscription_id);

CREATE TABLE public.usage_records (
  id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  user_id UUID NOT NULL REFERENCES public.users(id) ON DELETE CASCADE,
  resource_type public.resource_type NOT NULL,
  amount NUMERIC(20,2) NOT NULL,
  unit VARCHAR(20) NOT NULL,
  billing_month DATE NOT NULL,
  metadata JSONB DEFAULT '{}',
  recorded_at TIMESTAMPTZ DEFAULT NOW() NOT NULL,

  CONSTRAINT positive_amount CHECK (amount >= 0),
  CONSTRAINT valid_unit CHECK (unit IN ('count', 'bytes', 'seconds'))
);

CREATE INDEX idx_usage_user_month ON public.usage_records(user_id, billing_month);
CREATE INDEX idx_usage_type_month ON public.usage_records(resource_type, billing_month);
CREATE INDEX idx_usage_user_type_month
  ON public.usage_records(user_id, resource_type, billing_month);

CREATE TABLE public.media_items (
  id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
  user_id UUID NOT NULL REFERENCES public.users(id) ON DELETE CASCADE,
  file_url TEXT NOT NULL,
  thumbnail_url TEXT,
  original_filename VARCHAR(255) NOT NULL,
  file_type VARCHAR(50) NOT NULL,
  file_size_bytes BIGINT NOT NULL,
  mime_type VARCHAR(50) NOT NULL,
  width INTEGER,
  height INTEGER,
  metadata JSONB DEFAULT '{}',
  created_at TIMESTAMPTZ DEFAULT NOW() NOT NULL,
  updated_at TIMESTAMPTZ DEFAULT NOW() NOT NULL,

  CONSTRAINT valid_file_size CHECK (file_size_bytes > 0),
  CONSTRAINT valid_file_type CHECK (file_type IN ('image', 'video')),
  CONSTRAINT valid_image_mime CHECK (
    file_type != 'image' OR mime_type IN ('image/jpeg', 'image/png', 'image/webp')
  )
);

CREATE INDEX idx_media_user_id ON public.media_items(user_id);
CREATE INDEX idx_media_created_at ON public.media_items(created_at DESC);
CREATE INDEX idx_media_type ON public.media_items(file_type);

-- ------------------------------------------------------------------ triggers: updated_at

CREATE FUNCTION public.update_updated_at_column() RETURNS TRIGGER AS $$
BEGIN
  NEW.updated_at = NOW();
  RETURN NEW;
END;
$$ LANGUAGE plpgsql;

CREATE TRIGGER update_users_updated_at BEFORE UPDATE ON public.users
  FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();
CREATE TRIGGER update_projects_updated_at BEFORE UPDATE ON public.video_projects
  FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();
CREATE TRIGGER update_photos_updated_at BEFORE UPDATE ON public.photos
  FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();
CREATE TRIGGER update_generated_videos_updated_at BEFORE UPDATE ON public.generated_videos
  FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();
CREATE TRIGGER update_subscriptions_updated_at BEFORE UPDATE ON public.subscriptions
  FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();
CREATE TRIGGER update_media_updated_at BEFORE UPDATE ON public.media_items
  FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();

-- ------------------------------------------------------------------ triggers: photos and storage

CREATE FUNCTION public.update_project_photo_count() RETURNS TRIGGER AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    UPDATE public.video_projects
    SET photo_count = (SELECT COUNT(*) FROM public.photos WHERE project_id = NEW.project_id)
    WHERE id = NEW.project_id;
  ELSE
    UPDATE public.video_projects
    SET photo_count = (SELECT COUNT(*) FROM public.photos WHERE project_id = OLD.project_id)
    WHERE id = OLD.project_id;
  END IF;
  RETURN NULL;
END;
$$ LANGUAGE plpgsql;

CREATE TRIGGER trigger_update_photo_count
  AFTER INSERT OR DELETE ON public.photos
  FOR EACH ROW EXECUTE FUNCTION public.update_project_photo_count();

CREATE FUNCTION public.track_storage_usage() RETURNS TRIGGER AS $$
BEGIN
  IF TG_OP IN ('UPDATE', 'DELETE') THEN
    UPDATE public.users
    SET total_storage_bytes = total_storage_bytes - OLD.file_size_bytes
    WHERE id = OLD.user_id;
  END IF;
  IF TG_OP IN ('INSERT', 'UPDATE') THEN
    UPDATE public.users
    SET total_storage_bytes = total_storage_bytes + NEW.file_size_bytes
    WHERE id = NEW.user_id;
  END IF;
  RETURN NULL;
END;
$$ LANGUAGE plpgsql;

CREATE TRIGGER trigger_track_media_storage
  AFTER INSERT OR DELETE OR UPDATE OF file_size_bytes, user_id ON public.media_items
  FOR EACH ROW EXECUTE FUNCTION public.track_storage_usage();

CREATE FUNCTION public.track_photo_storage() RETURNS TRIGGER AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    UPDATE public.users AS owner
    SET total_storage_bytes = total_storage_bytes + NEW.file_size_bytes
    FROM public.video_projects AS project
    WHERE project.id = NEW.project_id AND owner.id = project.user_id;
  ELSE
    UPDATE public.users AS owner
    SET total_storage_bytes = total_storage_bytes - OLD.file_size_bytes
    FROM public.video_projects AS project
    WHERE project.id = OLD.project_id AND owner.id = project.user_id;
  END IF;
  RETURN NULL;
END;
$$ LANGUAGE plpgsql;

CREATE TRIGGER trigger_track_photo_storage
  AFTER INSERT OR DELETE ON public.photos
  FOR EACH ROW EXECUTE FUNCTION public.track_photo_storage();

CREATE FUNCTION public.track_project_storage() RETURNS TRIGGER AS $$
BEGIN
  UPDATE public.users
  SET total_storage_bytes = total_storage_bytes - (
    SELECT COALESCE(SUM(file_size_bytes), 0) FROM public.photos WHERE project_id = OLD.id
  )
  WHERE id = OLD.user_id;
  RETURN OLD;
END;
$$ LANGUAGE plpgsql;

CREATE TRIGGER trigger_track_project_storage
  BEFORE DELETE ON public.video_projects
  FOR EACH ROW EXECUTE FUNCTION public.track_project_storage();

-- ------------------------------------------------------------------ views

CREATE VIEW public.user_dashboard_stats AS
SELECT
  u.id,
  u.display_name,
  u.subscription_plan,
  u.total_storage_bytes,
  COALESCE(projects.total, 0) AS project_count,
  COALESCE(projects.completed, 0) AS completed_projects,
  COALESCE(videos.total, 0) AS generated_videos,
  COALESCE(photos.bytes, 0) AS photos_storage_bytes
FROM public.users u
LEFT JOIN (
  SELECT user_id, COUNT(*) AS total, COUNT(*) FILTER (WHERE status = 'completed') AS completed
  FROM public.video_projects
  GROUP BY user_id
) projects ON projects.user_id = u.id
LEFT JOIN (
  SELECT p.user_id, COUNT(*) AS total
  FROM public.generated_videos gv
  JOIN public.video_projects p ON p.id = gv.project_id
  WHERE gv.status = 'completed'
  GROUP BY p.user_id
) videos ON videos.user_id = u.id
LEFT JOIN (
  SELECT p.user_id, SUM(ph.file_size_bytes) AS bytes
  FROM public.photos ph
  JOIN public.video_projects p ON p.id = ph.project_id
  GROUP BY p.user_id
) photos ON photos.user_id = u.id;

CREATE VIEW public.monthly_usage_summary AS
SELECT
  user_id,
  billing_month,
  SUM(CASE WHEN resource_type = 'video_generation' THEN amount ELSE 0 END) AS videos_generated,
  SUM(CASE WHEN resource_type = 'storage_bytes' THEN amount ELSE 0 END) AS storage_used_bytes,
  SUM(CASE WHEN resource_type = 'project_creation' THEN amount ELSE 0 END) AS projects_created
FROM public.usage_records
GROUP BY user_id, billing_month;

CREATE MATERIALIZED VIEW public.user_analytics_daily AS
SELECT
  date_trunc('day', created_at, 'UTC') AS date,
  COUNT(*) AS new_users,
  COUNT(*) FILTER (WHERE subscription_plan != 'free') AS paid_users
FROM public.users
GROUP BY date_trunc('day', created_at, 'UTC');

CREATE UNIQUE INDEX idx_user_analytics_date ON public.user_analytics_daily(date);

-- ------------------------------------------------------------------ row-level security

ALTER TABLE public.users ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.video_projects ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.photos ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.generated_videos ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.subscriptions ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.usage_records ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.media_items ENABLE ROW LEVEL SECURITY;

CREATE POLICY "Users can view own profile" ON public.users
  FOR SELECT USING (auth.uid() = id);
CREATE POLICY "Users can update own profile" ON public.users
  FOR UPDATE USING (auth.uid() = id);
CREATE POLICY "Users can manage own projects" ON public.video_projects
  USING (auth.uid() = user_id);
CREATE POLICY "Users can manage photos of own projects" ON public.photos
  USING (
    EXISTS (
      SELECT 1 FROM public.video_projects
      WHERE id = photos.project_id AND user_id = auth.uid()
    )
  );
CREATE POLICY "Users can view generated videos of own projects" ON public.generated_videos
  USING (
    EXISTS (
      SELECT 1 FROM public.video_projects
      WHERE id = generated_videos.project_id AND user_id = auth.uid()
    )
  );
CREATE POLICY "Users can view own subscription" ON public.subscriptions
  USING (auth.uid() = user_id);
CREATE POLICY "Users can view own usage" ON public.usage_records
  USING (auth.uid() = user_id);
CREATE POLICY "Users can manage own media" ON public.media_items
  USING (auth.uid() = user_id);

DO $$
DECLARE
  secured REGCLASS;
BEGIN
  FOREACH secured IN ARRAY ARRAY[
    'public.users', 'public.video_projects', 'public.photos', 'public.generated_videos',
    'public.subscriptions', 'public.usage_records', 'public.media_items'
  ]::REGCLASS[]
  LOOP
    EXECUTE format(
      'CREATE POLICY "Service account full access" ON %s
         FOR ALL USING (auth.jwt() ->> ''role'' = ''service_role'')',
      secured
    );
  END LOOP;
END $$;
