-- AI Ebook Generation Platform: the tables that matter to running jobs, in a form PostgreSQL 14 to
-- 18 runs.
--
-- Load it into an empty database, as its owner or a superuser. It holds no BEGIN or COMMIT and
-- nothing that cannot run in a transaction, so one failure leaves nothing behind.
--
-- Corrections to the platform's own design, and why:
--
--  1. The schemas users, content, ai_processing, billing, analytics and system were drawn but
--     never created.
--  2. content.content_embeddings declared its index inside CREATE TABLE, which PostgreSQL does not
--     know. It is a CREATE INDEX of its own: hnsw, because ivfflat takes its lists from the rows
--     it finds, and there are none yet (ivfflat stays where pgvector is older than hnsw).
--  3. Without pgvector that table could not be made, and the whole script failed. It is left out
--     where the extension is not available, or not to the role that loads this file.
--  4. content_embeddings and content_statistics had no unique key, so a repeated job piled up rows,
--     and no index led from a piece of content to its row. Both got one.
--  5. billing.usage_records and analytics.user_events: partitions were created of tables that were
--     not partitioned. They are, by month, and their primary keys contain the partition key.
--  6. The partitions of January 2024 are gone. The current month and the next two are made at the
--     end of this file by system.create_monthly_partition, which was only described. It builds a
--     partition beside and attaches it, because CREATE … PARTITION OF takes an exclusive lock on
--     the parent, behind any open SELECT. ATTACH still locks the tables the foreign keys point to
--     against writes, so it gives up after half a second instead of making every producer queue
--     behind it. It runs with its owner's rights, a pinned search_path, and in UTC (a bound of a
--     timestamptz column written as a date means another moment in another session's time zone).
--     Not for PUBLIC: grant EXECUTE to the role that keeps partitions.
--  7. idx_usage_monthly_summary: date_trunc of a date goes through timestamptz, depends on the
--     session's time zone, and is refused in an index. The date is cast to timestamp first.
--  8. CREATE INDEX CONCURRENTLY cannot run in a transaction, nor on a partitioned table. On an
--     empty table it gains nothing.
--  9. billing.user_subscriptions had no index that leads to a user's subscription.
-- 10. The checks that ALTER TABLE added later stand in their tables, under the same names.
-- 11. Left out, as no job reads or writes them: user_auth_methods (with a UNIQUE … WHERE inside the
--     table, which is not a constraint PostgreSQL has), user_profiles, organization_members,
--     project_collaborators, revenue_shares, project_metrics, feature_flags; and ALTER SYSTEM,
--     which cannot run in a transaction and is an operator's to decide.

CREATE SCHEMA users;
CREATE SCHEMA content;
CREATE SCHEMA ai_processing;
CREATE SCHEMA billing;
CREATE SCHEMA analytics;
CREATE SCHEMA system;

-- ------------------------------------------------------------------ users

CREATE TABLE users.users (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    email VARCHAR(255) NOT NULL UNIQUE,
    username VARCHAR(50) UNIQUE,
    password_hash VARCHAR(255),
    first_name VARCHAR(100),
    last_name VARCHAR(100),
    avatar_url TEXT,
    email_verified BOOLEAN DEFAULT FALSE,
    email_verified_at TIMESTAMP WITH TIME ZONE,

    preferences JSONB DEFAULT '{}',
    timezone VARCHAR(50) DEFAULT 'UTC',
    language VARCHAR(10) DEFAULT 'en',

    status VARCHAR(20) DEFAULT 'active' CHECK (status IN ('active', 'suspended', 'deleted')),
    tier VARCHAR(20) DEFAULT 'free' CHECK (tier IN ('free', 'basic', 'premium', 'enterprise')),

    created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
    last_login_at TIMESTAMP WITH TIME ZONE,

    CONSTRAINT valid_email CHECK (email ~* '^[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}$')
);

CREATE INDEX idx_users_email ON users.users(email);
CREATE INDEX idx_users_username ON users.users(username);
CREATE INDEX idx_users_status ON users.users(status);
CREATE INDEX idx_users_tier ON users.users(tier);
CREATE INDEX idx_users_created_at ON users.users(created_at);
CREATE INDEX idx_users_active_lookup ON users.users(status, tier) WHERE status = 'active';

CREATE TABLE users.user_sessions (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id UUID NOT NULL REFERENCES users.users(id) ON DELETE CASCADE,
    session_token VARCHAR(255) NOT NULL UNIQUE,
    ip_address INET,
    user_agent TEXT,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),

    CHECK (expires_at > created_at)
);

CREATE INDEX idx_sessions_expires_at ON users.user_sessions(expires_at);

CREATE TABLE users.user_organizations (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    name VARCHAR(255) NOT NULL,
    description TEXT,
    owner_id UUID NOT NULL REFERENCES users.users(id),
    settings JSONB DEFAULT '{}',
    created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW()
);

-- ------------------------------------------------------------------ content

CREATE TABLE content.projects (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    title VARCHAR(500) NOT NULL,
    description TEXT,
    genre VARCHAR(100),
    target_audience VARCHAR(100),
    target_word_count INTEGER,

    settings JSONB DEFAULT '{}',
    ai_configuration JSONB DEFAULT '{}',
    style_guide JSONB DEFAULT '{}',

    owner_id UUID NOT NULL REFERENCES users.users(id),
    organization_id UUID REFERENCES users.user_organizations(id),

    status VARCHAR(20) DEFAULT 'draft'
        CHECK (status IN ('draft', 'in_progress', 'completed', 'published', 'archived')),
    visibility VARCHAR(20) DEFAULT 'private'
        CHECK (visibility IN ('private', 'organization', 'public')),

    created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
    completed_at TIMESTAMP WITH TIME ZONE,
    published_at TIMESTAMP WITH TIME ZONE,

    CONSTRAINT check_word_count_positive CHECK (target_word_count > 0)
);

CREATE INDEX idx_projects_owner ON content.projects(owner_id);
CREATE INDEX idx_projects_status ON content.projects(status);
CREATE INDEX idx_projects_genre ON content.projects(genre);
CREATE INDEX idx_projects_created_at ON content.projects(created_at);
CREATE INDEX idx_projects_updated_at ON content.projects(updated_at);

CREATE TABLE content.chapters (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    project_id UUID NOT NULL REFERENCES content.projects(id) ON DELETE CASCADE,
    title VARCHAR(500),
    position INTEGER NOT NULL,

    content TEXT,
    summary TEXT,
    notes TEXT,
    word_count INTEGER DEFAULT 0,
    character_count INTEGER DEFAULT 0,

    ai_generated BOOLEAN DEFAULT FALSE,
    ai_model VARCHAR(100),
    ai_prompt_used TEXT,
    ai_generation_timestamp TIMESTAMP WITH TIME ZONE,

    status VARCHAR(20) DEFAULT 'draft'
        CHECK (status IN ('draft', 'in_progress', 'review', 'completed')),

    created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),

    UNIQUE(project_id, position)
);

CREATE INDEX idx_chapters_project ON content.chapters(project_id);
CREATE INDEX idx_chapters_position ON content.chapters(project_id, position);
CREATE INDEX idx_chapters_status ON content.chapters(status);
CREATE INDEX idx_chapters_updated_at ON content.chapters(updated_at);
CREATE INDEX idx_chapters_content_fts
    ON content.chapters USING GIN(to_tsvector('english', content));
CREATE INDEX idx_chapters_project_active ON content.chapters(project_id)
    WHERE status IN ('draft', 'in_progress');

CREATE TABLE content.content_versions (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    chapter_id UUID NOT NULL REFERENCES content.chapters(id) ON DELETE CASCADE,
    version_number INTEGER NOT NULL,
    content TEXT NOT NULL,
    title VARCHAR(500),

    change_summary TEXT,
    changed_by UUID NOT NULL REFERENCES users.users(id),
    change_type VARCHAR(20) DEFAULT 'manual'
        CHECK (change_type IN ('manual', 'ai_generation', 'ai_revision', 'collaboration')),

    created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
    word_count INTEGER DEFAULT 0,

    UNIQUE(chapter_id, version_number)
);

CREATE INDEX idx_content_versions_chapter
    ON content.content_versions(chapter_id, version_number DESC);

DO $$
DECLARE
    home TEXT;
    method TEXT;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector') THEN
        RAISE NOTICE 'pgvector is not available: content.content_embeddings is left out';
        RETURN;
    END IF;
    BEGIN
        CREATE EXTENSION IF NOT EXISTS vector;
    EXCEPTION WHEN insufficient_privilege THEN
        -- Where pgvector isn't a trusted extension, only a superuser may add it.
        RAISE NOTICE 'pgvector may not be created: content.content_embeddings is left out';
        RETURN;
    END;
    -- It may have been there before, in a schema that is not on the search path.
    SELECT extnamespace::regnamespace::text INTO home FROM pg_extension WHERE extname = 'vector';

    EXECUTE format($table$
        CREATE TABLE content.content_embeddings (
            id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
            content_id UUID NOT NULL,
            content_type VARCHAR(20) NOT NULL
                CHECK (content_type IN ('chapter', 'project', 'summary')),
            embedding %s.vector(1536),
            model VARCHAR(100) NOT NULL,
            created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),

            UNIQUE (content_id, content_type, model)
        )
    $table$, home);

    IF EXISTS (SELECT FROM pg_am WHERE amname = 'hnsw') THEN
        method := 'hnsw (embedding %s.vector_cosine_ops)';
    ELSE
        method := 'ivfflat (embedding %s.vector_cosine_ops) WITH (lists = 100)';
    END IF;
    EXECUTE format(
        'CREATE INDEX idx_content_embeddings_vector ON content.content_embeddings USING ' || method,
        home
    );
END $$;

CREATE TABLE content.content_statistics (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    content_id UUID NOT NULL,
    content_type VARCHAR(20) NOT NULL CHECK (content_type IN ('project', 'chapter')),

    word_count INTEGER DEFAULT 0,
    character_count INTEGER DEFAULT 0,
    sentence_count INTEGER DEFAULT 0,
    paragraph_count INTEGER DEFAULT 0,

    flesch_reading_ease DECIMAL(5,2),
    flesch_kincaid_grade DECIMAL(5,2),

    ai_confidence_score DECIMAL(5,4),
    sentiment_score DECIMAL(5,4),
    topics JSONB DEFAULT '[]',

    calculated_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),

    UNIQUE (content_id, content_type)
);

-- ------------------------------------------------------------------ AI processing

CREATE TABLE ai_processing.ai_providers (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    name VARCHAR(100) NOT NULL UNIQUE,
    api_endpoint VARCHAR(500),
    configuration JSONB DEFAULT '{}',
    cost_per_token DECIMAL(10,8),
    rate_limit_config JSONB DEFAULT '{}',
    status VARCHAR(20) DEFAULT 'active' CHECK (status IN ('active', 'inactive', 'maintenance')),
    created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW()
);

CREATE TABLE ai_processing.ai_models (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    provider_id UUID NOT NULL REFERENCES ai_processing.ai_providers(id),
    name VARCHAR(100) NOT NULL,
    version VARCHAR(50),
    context_window INTEGER,
    max_tokens INTEGER,
    cost_per_input_token DECIMAL(10,8),
    cost_per_output_token DECIMAL(10,8),
    capabilities JSONB DEFAULT '{}',
    status VARCHAR(20) DEFAULT 'active',

    UNIQUE(provider_id, name, version)
);

CREATE TABLE ai_processing.ai_generations (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id UUID NOT NULL REFERENCES users.users(id),
    project_id UUID REFERENCES content.projects(id),
    chapter_id UUID REFERENCES content.chapters(id),

    model_id UUID NOT NULL REFERENCES ai_processing.ai_models(id),
    prompt TEXT NOT NULL,
    system_prompt TEXT,
    temperature DECIMAL(3,2) DEFAULT 0.7,
    max_tokens INTEGER,

    response TEXT,
    tokens_used INTEGER,
    cost DECIMAL(10,6),
    processing_time_ms INTEGER,

    confidence_score DECIMAL(5,4),
    quality_rating INTEGER CHECK (quality_rating BETWEEN 1 AND 5),

    status VARCHAR(20) DEFAULT 'pending'
        CHECK (status IN ('pending', 'processing', 'completed', 'failed', 'cancelled')),
    error_message TEXT,

    created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
    started_at TIMESTAMP WITH TIME ZONE,
    completed_at TIMESTAMP WITH TIME ZONE,

    -- At most 1000 dollars for one generation.
    CONSTRAINT check_reasonable_cost CHECK (cost >= 0 AND cost < 1000)
);

CREATE INDEX idx_ai_generations_user ON ai_processing.ai_generations(user_id);
CREATE INDEX idx_ai_generations_status ON ai_processing.ai_generations(status);
CREATE INDEX idx_ai_generations_created_at ON ai_processing.ai_generations(created_at);
CREATE INDEX idx_ai_gen_cost_summary
    ON ai_processing.ai_generations(user_id, created_at, cost) WHERE status = 'completed';

CREATE TABLE ai_processing.prompt_templates (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    name VARCHAR(255) NOT NULL,
    description TEXT,
    category VARCHAR(100),
    genre VARCHAR(100),

    system_prompt TEXT,
    user_prompt_template TEXT NOT NULL,
    variables JSONB DEFAULT '[]',

    default_model_id UUID REFERENCES ai_processing.ai_models(id),
    default_parameters JSONB DEFAULT '{}',

    usage_count INTEGER DEFAULT 0,
    average_rating DECIMAL(3,2),

    created_by UUID REFERENCES users.users(id),
    created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
    is_public BOOLEAN DEFAULT FALSE
);

-- ------------------------------------------------------------------ billing

CREATE TABLE billing.subscription_plans (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    name VARCHAR(100) NOT NULL,
    description TEXT,
    price DECIMAL(10,2) NOT NULL,
    billing_cycle VARCHAR(20) CHECK (billing_cycle IN ('monthly', 'yearly', 'one-time')),

    features JSONB DEFAULT '{}',
    ai_tokens_included INTEGER DEFAULT 0,
    projects_limit INTEGER DEFAULT 1,
    collaborators_limit INTEGER DEFAULT 0,
    export_formats TEXT[],

    status VARCHAR(20) DEFAULT 'active' CHECK (status IN ('active', 'inactive', 'deprecated')),
    created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW()
);

CREATE TABLE billing.user_subscriptions (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id UUID NOT NULL REFERENCES users.users(id) ON DELETE CASCADE,
    plan_id UUID NOT NULL REFERENCES billing.subscription_plans(id),

    stripe_subscription_id VARCHAR(255) UNIQUE,
    status VARCHAR(20) DEFAULT 'active'
        CHECK (status IN ('active', 'past_due', 'cancelled', 'unpaid', 'incomplete')),

    current_period_start TIMESTAMP WITH TIME ZONE NOT NULL,
    current_period_end TIMESTAMP WITH TIME ZONE NOT NULL,
    trial_end TIMESTAMP WITH TIME ZONE,

    next_billing_date TIMESTAMP WITH TIME ZONE,
    amount DECIMAL(10,2) NOT NULL,
    currency VARCHAR(3) DEFAULT 'USD',

    created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
    cancelled_at TIMESTAMP WITH TIME ZONE,

    CONSTRAINT check_subscription_period CHECK (current_period_end > current_period_start)
);

CREATE INDEX idx_user_subscriptions_user ON billing.user_subscriptions(user_id);

CREATE TABLE billing.usage_records (
    id UUID NOT NULL DEFAULT gen_random_uuid(),
    user_id UUID NOT NULL REFERENCES users.users(id),
    subscription_id UUID REFERENCES billing.user_subscriptions(id),

    resource_type VARCHAR(50) NOT NULL,
    quantity INTEGER NOT NULL,
    unit_cost DECIMAL(10,6),
    total_cost DECIMAL(10,2),

    project_id UUID REFERENCES content.projects(id),
    ai_generation_id UUID REFERENCES ai_processing.ai_generations(id),

    usage_date DATE NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),

    PRIMARY KEY (id, usage_date)
)
PARTITION BY RANGE (usage_date);

CREATE INDEX idx_usage_records_user_date ON billing.usage_records(user_id, usage_date);
CREATE INDEX idx_usage_records_subscription ON billing.usage_records(subscription_id);
CREATE INDEX idx_usage_monthly_summary
    ON billing.usage_records(user_id, date_trunc('month', usage_date::timestamp), resource_type);

-- ------------------------------------------------------------------ analytics

CREATE TABLE analytics.user_events (
    id UUID NOT NULL DEFAULT gen_random_uuid(),
    user_id UUID REFERENCES users.users(id),
    session_id UUID REFERENCES users.user_sessions(id),

    event_type VARCHAR(100) NOT NULL,
    event_category VARCHAR(50),
    event_data JSONB DEFAULT '{}',

    page_url TEXT,
    referrer TEXT,
    user_agent TEXT,
    ip_address INET,

    timestamp TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT NOW(),

    PRIMARY KEY (id, timestamp)
)
PARTITION BY RANGE (timestamp);

CREATE INDEX idx_user_events_user_time ON analytics.user_events(user_id, timestamp);
CREATE INDEX idx_user_events_type ON analytics.user_events(event_type);

-- ------------------------------------------------------------------ system

CREATE TABLE system.app_settings (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    setting_key VARCHAR(255) NOT NULL UNIQUE,
    setting_value JSONB NOT NULL,
    description TEXT,
    category VARCHAR(100),
    is_public BOOLEAN DEFAULT FALSE,
    updated_by UUID REFERENCES users.users(id),
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT NOW()
);

CREATE TABLE system.background_jobs (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    job_type VARCHAR(100) NOT NULL,
    payload JSONB NOT NULL,
    status VARCHAR(20) DEFAULT 'pending'
        CHECK (status IN ('pending', 'processing', 'completed', 'failed', 'cancelled')),
    priority INTEGER DEFAULT 0,

    max_retries INTEGER DEFAULT 3,
    retry_count INTEGER DEFAULT 0,
    error_message TEXT,

    scheduled_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
    started_at TIMESTAMP WITH TIME ZONE,
    completed_at TIMESTAMP WITH TIME ZONE,

    created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW()
);

CREATE INDEX idx_jobs_status_priority
    ON system.background_jobs(status, priority DESC, scheduled_at);

-- ------------------------------------------------------------------ partitions

CREATE FUNCTION system.create_monthly_partition(parent REGCLASS, month DATE)
RETURNS VOID AS $$
DECLARE
    start_date DATE := date_trunc('month', month);
    home TEXT;
    partition_name TEXT;
BEGIN
    SELECT relnamespace::regnamespace::text, relname || to_char(start_date, '"_y"YYYY"m"MM')
    INTO home, partition_name
    FROM pg_class
    WHERE oid = parent AND relkind = 'p' AND NOT relispartition
      AND relnamespace IN ('billing'::regnamespace, 'analytics'::regnamespace);
    IF NOT FOUND THEN
        RAISE EXCEPTION '% is not a partitioned table of this platform', parent
            USING ERRCODE = 'wrong_object_type';
    END IF;

    -- Two callers at once: the second waits, then finds the month made.
    PERFORM pg_advisory_xact_lock('pg_partitioned_table'::regclass::oid::int, parent::oid::int);
    IF to_regclass(format('%s.%I', home, partition_name)) IS NOT NULL THEN
        RETURN;
    END IF;

    EXECUTE format('CREATE TABLE %s.%I (LIKE %s INCLUDING ALL)', home, partition_name, parent);
    EXECUTE format(
        'ALTER TABLE %s ATTACH PARTITION %s.%I FOR VALUES FROM (%L) TO (%L)',
        parent, home, partition_name, start_date, (start_date + INTERVAL '1 month')::date
    );
END;
$$ LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
    SET timezone = 'UTC'
    -- Below the default deadlock_timeout, so that in a cycle it is this call that gives way.
    SET lock_timeout = '500ms';

REVOKE ALL ON FUNCTION system.create_monthly_partition(REGCLASS, DATE) FROM PUBLIC;

SELECT system.create_monthly_partition(parent, (today + make_interval(months => ahead))::date)
FROM (VALUES ('billing.usage_records'::regclass), ('analytics.user_events')) AS parents(parent),
     generate_series(0, 2) AS ahead,
     CAST(date_trunc('month', now() AT TIME ZONE 'UTC') AS date) AS today;
