-- EcomVideo: product videos made from words, pictures and shops' pages. PostgreSQL 14 and later.
--
-- The tables that matter here, in an order that runs. Corrections to the design:
--
-- * Tables come after those they refer to: product_data before videos, payment_methods before
--   user_subscriptions. Every name is qualified, so nothing depends on a search path.
-- * No extensions: gen_random_uuid() is built in, and nothing here uses the others.
-- * "Users cannot use more credits than available" is a CHECK of usage_credits, and "only one active
--   subscription at a time" a partial unique index of user_subscriptions; both were only said.
-- * Indexes that repeat a UNIQUE constraint are left out (users.email, scraping_rules.domain, …).
-- * A finished job has completed_at when it failed, too: its retention counts from there.
-- * TIMESTAMP has no zone. All of them are UTC here, as the map says (timezone). CURRENT_TIMESTAMP
--   fills them in the session's zone, so the database's has to be UTC as well:
--   ALTER DATABASE … SET timezone = 'UTC'. `rowmill attach` warns where it isn't.
--
-- Left out, as no job reads or writes them: user_roles, the tables of tokens, video_tags,
-- video_tag_mappings, video_shares, payments, invoices, user_interests.

CREATE TABLE public.users (
    id                    UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    email                 VARCHAR(255) NOT NULL UNIQUE,
    email_verified        BOOLEAN DEFAULT FALSE,
    password_hash         VARCHAR(255) NOT NULL,
    first_name            VARCHAR(100),
    last_name             VARCHAR(100),
    avatar_url            VARCHAR(500),
    phone_number          VARCHAR(20),
    date_of_birth         DATE,
    timezone              VARCHAR(50) DEFAULT 'UTC',
    locale                VARCHAR(10) DEFAULT 'en-US',
    is_active             BOOLEAN DEFAULT TRUE,
    last_login_at         TIMESTAMP,
    failed_login_attempts INTEGER DEFAULT 0,
    locked_until          TIMESTAMP,
    created_at            TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at            TIMESTAMP,
    created_by            VARCHAR(100),
    updated_by            VARCHAR(100)
);

CREATE INDEX ix_users_created_at ON public.users(created_at);
CREATE INDEX ix_users_is_active ON public.users(is_active);

CREATE TABLE public.user_preferences (
    id                           UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id                      UUID NOT NULL UNIQUE REFERENCES public.users(id) ON DELETE CASCADE,
    default_video_resolution     VARCHAR(20) DEFAULT '1080x1920',
    default_aspect_ratio         VARCHAR(10) DEFAULT '9:16',
    default_video_duration       INTEGER DEFAULT 5,
    preferred_ai_provider        VARCHAR(50) DEFAULT 'Freepik',
    auto_save_to_library         BOOLEAN DEFAULT TRUE,
    auto_generate_thumbnails     BOOLEAN DEFAULT TRUE,
    watermark_enabled           BOOLEAN DEFAULT FALSE,
    default_video_quality        VARCHAR(20) DEFAULT 'High',
    preferred_language           VARCHAR(10) DEFAULT 'en-US',
    timezone                     VARCHAR(50) DEFAULT 'UTC',
    date_format                  VARCHAR(20) DEFAULT 'MM/DD/YYYY',
    time_format                  VARCHAR(10) DEFAULT '12h',
    theme                        VARCHAR(20) DEFAULT 'Dark',
    email_notifications_enabled BOOLEAN DEFAULT TRUE,
    push_notifications_enabled  BOOLEAN DEFAULT TRUE,
    marketing_emails_enabled     BOOLEAN DEFAULT FALSE,
    two_factor_enabled          BOOLEAN DEFAULT FALSE,
    created_at                   TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at                   TIMESTAMP,
    updated_by                   VARCHAR(100)
);

CREATE TABLE public.notification_settings (
    id                    UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id               UUID NOT NULL UNIQUE REFERENCES public.users(id) ON DELETE CASCADE,
    video_completed       BOOLEAN DEFAULT TRUE,
    video_failed          BOOLEAN DEFAULT TRUE,
    subscription_renewal  BOOLEAN DEFAULT TRUE,
    subscription_expired  BOOLEAN DEFAULT TRUE,
    payment_failed        BOOLEAN DEFAULT TRUE,
    new_features          BOOLEAN DEFAULT TRUE,
    marketing_updates     BOOLEAN DEFAULT FALSE,
    weekly_digest         BOOLEAN DEFAULT TRUE,
    email_enabled         BOOLEAN DEFAULT TRUE,
    push_enabled          BOOLEAN DEFAULT TRUE,
    sms_enabled           BOOLEAN DEFAULT FALSE,
    created_at            TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at            TIMESTAMP,
    updated_by            VARCHAR(100)
);

CREATE TABLE public.subscription_plans (
    id                    UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    name                  VARCHAR(100) NOT NULL UNIQUE,
    description           TEXT,
    price_monthly         DECIMAL(8,2) NOT NULL,
    price_yearly          DECIMAL(8,2),
    currency              VARCHAR(3) DEFAULT 'USD',
    video_credits_monthly INTEGER NOT NULL DEFAULT 0,
    max_video_duration    INTEGER DEFAULT 15, -- seconds
    max_resolution        VARCHAR(20) DEFAULT '1080p',
    ai_providers          TEXT[], -- Array of allowed AI providers
    features              JSONB,   -- JSON array of features
    is_popular           BOOLEAN DEFAULT FALSE,
    is_active            BOOLEAN DEFAULT TRUE,
    trial_days           INTEGER DEFAULT 0,
    sort_order           INTEGER DEFAULT 0,
    created_at           TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at           TIMESTAMP,
    created_by           VARCHAR(100),
    updated_by           VARCHAR(100)
);

CREATE INDEX ix_subscription_plans_is_active ON public.subscription_plans(is_active);
CREATE INDEX ix_subscription_plans_is_popular ON public.subscription_plans(is_popular);

CREATE TABLE public.payment_methods (
    id                  UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id             UUID NOT NULL REFERENCES public.users(id) ON DELETE CASCADE,
    type                VARCHAR(50) NOT NULL, -- 'CreditCard', 'PayPal', 'BankAccount'
    provider            VARCHAR(50) NOT NULL, -- 'Stripe', 'PayPal'
    external_id         VARCHAR(255) NOT NULL, -- Provider's payment method ID
    last_four_digits    VARCHAR(4),
    brand               VARCHAR(50), -- 'Visa', 'MasterCard', etc.
    expires_at          TIMESTAMP,
    is_default          BOOLEAN DEFAULT FALSE,
    is_active           BOOLEAN DEFAULT TRUE,
    billing_address     JSONB,
    metadata            JSONB,
    created_at          TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at          TIMESTAMP,
    created_by          VARCHAR(100),
    updated_by          VARCHAR(100)
);

CREATE INDEX ix_payment_methods_user_id ON public.payment_methods(user_id);
CREATE INDEX ix_payment_methods_external_id ON public.payment_methods(external_id);
CREATE INDEX ix_payment_methods_is_default ON public.payment_methods(is_default);
CREATE INDEX ix_payment_methods_is_active ON public.payment_methods(is_active);

CREATE TABLE public.user_subscriptions (
    id                     UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id                UUID NOT NULL REFERENCES public.users(id) ON DELETE CASCADE,
    subscription_plan_id   UUID NOT NULL REFERENCES public.subscription_plans(id),
    status                 VARCHAR(50) NOT NULL, -- 'Active', 'Cancelled', 'Expired', 'Trial'
    billing_cycle          VARCHAR(20) NOT NULL, -- 'Monthly', 'Yearly'
    price_paid             DECIMAL(8,2) NOT NULL,
    currency               VARCHAR(3) DEFAULT 'USD',
    started_at             TIMESTAMP NOT NULL,
    ends_at                TIMESTAMP NOT NULL,
    cancelled_at           TIMESTAMP,
    trial_ends_at          TIMESTAMP,
    auto_renew             BOOLEAN DEFAULT TRUE,
    payment_method_id      UUID REFERENCES public.payment_methods(id),
    stripe_subscription_id VARCHAR(255),
    metadata               JSONB,
    created_at             TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at             TIMESTAMP,
    created_by             VARCHAR(100),
    updated_by             VARCHAR(100)
);

CREATE INDEX ix_user_subscriptions_user_id ON public.user_subscriptions(user_id);
CREATE INDEX ix_user_subscriptions_subscription_plan_id ON public.user_subscriptions(subscription_plan_id);
CREATE INDEX ix_user_subscriptions_status ON public.user_subscriptions(status);
CREATE INDEX ix_user_subscriptions_ends_at ON public.user_subscriptions(ends_at);
CREATE INDEX ix_user_subscriptions_stripe_subscription_id ON public.user_subscriptions(stripe_subscription_id);
CREATE UNIQUE INDEX ix_user_subscriptions_one_active ON public.user_subscriptions(user_id) WHERE status IN ('Active', 'Trial');

CREATE TABLE public.usage_credits (
    id                   UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id              UUID NOT NULL REFERENCES public.users(id) ON DELETE CASCADE,
    user_subscription_id UUID REFERENCES public.user_subscriptions(id),
    credit_type          VARCHAR(50) NOT NULL, -- 'VideoGeneration', 'PremiumFeature'
    amount               INTEGER NOT NULL,
    used_amount          INTEGER DEFAULT 0,
    source               VARCHAR(50) NOT NULL, -- 'Subscription', 'Purchase', 'Bonus', 'Refund'
    expires_at           TIMESTAMP,
    is_active            BOOLEAN DEFAULT TRUE,
    metadata             JSONB,
    created_at           TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at           TIMESTAMP,
    created_by           VARCHAR(100),
    updated_by           VARCHAR(100),
    CONSTRAINT ck_usage_credits_used CHECK (used_amount BETWEEN 0 AND amount)
);

CREATE INDEX ix_usage_credits_user_id ON public.usage_credits(user_id);
CREATE INDEX ix_usage_credits_user_subscription_id ON public.usage_credits(user_subscription_id);
CREATE INDEX ix_usage_credits_credit_type ON public.usage_credits(credit_type);
CREATE INDEX ix_usage_credits_expires_at ON public.usage_credits(expires_at);
CREATE INDEX ix_usage_credits_is_active ON public.usage_credits(is_active);

CREATE TABLE public.product_categories (
    id          UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    name        VARCHAR(100) NOT NULL UNIQUE,
    description TEXT,
    parent_id   UUID REFERENCES public.product_categories(id),
    level       INTEGER DEFAULT 0,
    sort_order  INTEGER DEFAULT 0,
    is_active   BOOLEAN DEFAULT TRUE,
    created_at  TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at  TIMESTAMP
);

CREATE INDEX ix_product_categories_parent_id ON public.product_categories(parent_id);
CREATE INDEX ix_product_categories_is_active ON public.product_categories(is_active);

CREATE TABLE public.product_data (
    id               UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id          UUID NOT NULL REFERENCES public.users(id) ON DELETE CASCADE,
    category_id      UUID REFERENCES public.product_categories(id),
    original_url     VARCHAR(1000) NOT NULL,
    domain           VARCHAR(100),
    platform         VARCHAR(50), -- 'Shopify', 'Amazon', 'Etsy', etc.
    product_id       VARCHAR(255),
    name             VARCHAR(500) NOT NULL,
    description      TEXT,
    price            DECIMAL(10,2),
    currency         VARCHAR(3) DEFAULT 'USD',
    original_price   DECIMAL(10,2),
    discount_percent INTEGER,
    brand            VARCHAR(200),
    sku              VARCHAR(100),
    availability     VARCHAR(50),
    rating           DECIMAL(3,2),
    review_count     INTEGER DEFAULT 0,
    main_image_url   VARCHAR(500),
    scraping_status  VARCHAR(50) DEFAULT 'Pending', -- 'Pending', 'Success', 'Failed'
    scraped_at       TIMESTAMP,
    error_message    VARCHAR(1000),
    metadata         JSONB,
    created_at       TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at       TIMESTAMP,
    created_by       VARCHAR(100),
    updated_by       VARCHAR(100)
);

CREATE INDEX ix_product_data_user_id ON public.product_data(user_id);
CREATE INDEX ix_product_data_category_id ON public.product_data(category_id);
CREATE INDEX ix_product_data_original_url ON public.product_data(original_url);
CREATE INDEX ix_product_data_domain ON public.product_data(domain);
CREATE INDEX ix_product_data_platform ON public.product_data(platform);
CREATE INDEX ix_product_data_scraping_status ON public.product_data(scraping_status);
CREATE INDEX ix_product_data_created_at ON public.product_data(created_at);

CREATE TABLE public.product_images (
    id              UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    product_data_id UUID NOT NULL REFERENCES public.product_data(id) ON DELETE CASCADE,
    url             VARCHAR(500) NOT NULL,
    alt_text        VARCHAR(500),
    width           INTEGER,
    height          INTEGER,
    file_size_bytes BIGINT,
    is_primary      BOOLEAN DEFAULT FALSE,
    sort_order      INTEGER DEFAULT 0,
    created_at      TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
);

CREATE INDEX ix_product_images_product_data_id ON public.product_images(product_data_id);
CREATE INDEX ix_product_images_is_primary ON public.product_images(is_primary);

CREATE TABLE public.scraping_rules (
    id          UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    domain      VARCHAR(100) NOT NULL UNIQUE,
    platform    VARCHAR(50) NOT NULL,
    selectors   JSONB NOT NULL, -- CSS selectors for different fields
    headers     JSONB,          -- Custom headers for scraping
    delay_ms    INTEGER DEFAULT 1000,
    is_active   BOOLEAN DEFAULT TRUE,
    created_at  TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at  TIMESTAMP,
    updated_by  VARCHAR(100)
);

CREATE INDEX ix_scraping_rules_platform ON public.scraping_rules(platform);
CREATE INDEX ix_scraping_rules_is_active ON public.scraping_rules(is_active);

CREATE TABLE public.video_categories (
    id          UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    name        VARCHAR(100) NOT NULL UNIQUE,
    description TEXT,
    color_hex   VARCHAR(7),
    icon_name   VARCHAR(50),
    sort_order  INTEGER DEFAULT 0,
    is_active   BOOLEAN DEFAULT TRUE,
    created_at  TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at  TIMESTAMP
);

CREATE INDEX ix_video_categories_is_active ON public.video_categories(is_active);

CREATE TABLE public.video_templates (
    id               UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    category_id      UUID REFERENCES public.video_categories(id),
    name             VARCHAR(200) NOT NULL,
    description      TEXT,
    thumbnail_url    VARCHAR(500),
    preview_url      VARCHAR(500),
    prompt_template  TEXT NOT NULL,
    style_settings   JSONB,
    default_duration INTEGER DEFAULT 5,
    aspect_ratio     VARCHAR(10) DEFAULT '9:16',
    resolution       VARCHAR(20) DEFAULT '1080x1920',
    is_premium       BOOLEAN DEFAULT FALSE,
    is_active        BOOLEAN DEFAULT TRUE,
    usage_count      INTEGER DEFAULT 0,
    created_at       TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at       TIMESTAMP,
    created_by       VARCHAR(100),
    updated_by       VARCHAR(100)
);

CREATE INDEX ix_video_templates_category_id ON public.video_templates(category_id);
CREATE INDEX ix_video_templates_is_premium ON public.video_templates(is_premium);
CREATE INDEX ix_video_templates_is_active ON public.video_templates(is_active);

CREATE TABLE public.videos (
    id                      UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id                 UUID NOT NULL REFERENCES public.users(id) ON DELETE CASCADE,
    category_id             UUID REFERENCES public.video_categories(id),
    template_id             UUID REFERENCES public.video_templates(id),
    product_data_id         UUID REFERENCES public.product_data(id),
    title                   VARCHAR(200) NOT NULL,
    description             VARCHAR(1000),
    text_prompt             VARCHAR(2000) NOT NULL,
    input_type              VARCHAR(50) NOT NULL, -- 'Text', 'Image', 'Url'
    status                  VARCHAR(50) NOT NULL, -- 'Pending', 'Processing', etc.
    resolution              VARCHAR(50) NOT NULL,
    aspect_ratio            VARCHAR(10) NOT NULL,
    duration_seconds        INTEGER NOT NULL DEFAULT 5,
    style                   VARCHAR(100),
    image_url               VARCHAR(500),
    video_url               VARCHAR(500),
    thumbnail_url           VARCHAR(500),
    freepik_task_id         VARCHAR(100),
    freepik_image_task_id   VARCHAR(100),
    completed_at            TIMESTAMP,
    error_message           VARCHAR(2000),
    file_size_bytes         BIGINT DEFAULT 0,
    view_count              INTEGER DEFAULT 0,
    download_count          INTEGER DEFAULT 0,
    share_count             INTEGER DEFAULT 0,
    is_public               BOOLEAN DEFAULT FALSE,
    is_featured             BOOLEAN DEFAULT FALSE,
    metadata                JSONB,
    ai_provider             VARCHAR(50), -- 'Freepik', 'RunwayML', 'StabilityAI', etc.
    generation_cost_credits INTEGER DEFAULT 0,
    created_at              TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at              TIMESTAMP,
    created_by              VARCHAR(100),
    updated_by              VARCHAR(100)
);

CREATE INDEX ix_videos_user_id ON public.videos(user_id);
CREATE INDEX ix_videos_status ON public.videos(status);
CREATE INDEX ix_videos_created_at ON public.videos(created_at);
CREATE INDEX ix_videos_category_id ON public.videos(category_id);
CREATE INDEX ix_videos_template_id ON public.videos(template_id);
CREATE INDEX ix_videos_product_data_id ON public.videos(product_data_id);
CREATE INDEX ix_videos_is_public ON public.videos(is_public);
CREATE INDEX ix_videos_is_featured ON public.videos(is_featured);
CREATE UNIQUE INDEX ix_videos_freepik_task_id ON public.videos(freepik_task_id) WHERE freepik_task_id IS NOT NULL;
CREATE UNIQUE INDEX ix_videos_freepik_image_task_id ON public.videos(freepik_image_task_id) WHERE freepik_image_task_id IS NOT NULL;

CREATE TABLE public.background_jobs (
    id             UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    job_type       VARCHAR(100) NOT NULL,
    job_data       JSONB NOT NULL,
    status         VARCHAR(50) DEFAULT 'Pending', -- 'Pending', 'Running', 'Completed', 'Failed'
    priority       INTEGER DEFAULT 0,
    attempts       INTEGER DEFAULT 0,
    max_attempts   INTEGER DEFAULT 3,
    scheduled_at   TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    started_at     TIMESTAMP,
    completed_at   TIMESTAMP,
    error_message  VARCHAR(2000),
    created_at     TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at     TIMESTAMP
);

CREATE INDEX ix_background_jobs_job_type ON public.background_jobs(job_type);
CREATE INDEX ix_background_jobs_status ON public.background_jobs(status);
CREATE INDEX ix_background_jobs_scheduled_at ON public.background_jobs(scheduled_at);
CREATE INDEX ix_background_jobs_priority ON public.background_jobs(priority);

CREATE TABLE public.video_analytics (
    id               UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    video_id         UUID NOT NULL REFERENCES public.videos(id) ON DELETE CASCADE,
    user_id          UUID REFERENCES public.users(id) ON DELETE SET NULL,
    event_type       VARCHAR(50) NOT NULL, -- 'View', 'Download', 'Share', 'Like'
    platform         VARCHAR(50), -- Where it was shared/viewed
    ip_address       INET,
    user_agent       VARCHAR(1000),
    referrer         VARCHAR(500),
    country_code     VARCHAR(2),
    city             VARCHAR(100),
    device_type      VARCHAR(50), -- 'Mobile', 'Desktop', 'Tablet'
    browser          VARCHAR(100),
    os               VARCHAR(100),
    session_id       VARCHAR(255),
    duration_seconds INTEGER, -- For view events
    metadata         JSONB,
    created_at       TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
);

CREATE INDEX ix_video_analytics_video_id ON public.video_analytics(video_id);
CREATE INDEX ix_video_analytics_user_id ON public.video_analytics(user_id);
CREATE INDEX ix_video_analytics_event_type ON public.video_analytics(event_type);
CREATE INDEX ix_video_analytics_platform ON public.video_analytics(platform);
CREATE INDEX ix_video_analytics_created_at ON public.video_analytics(created_at);
CREATE INDEX ix_video_analytics_country_code ON public.video_analytics(country_code);

CREATE TABLE public.user_activity (
    id          UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id     UUID NOT NULL REFERENCES public.users(id) ON DELETE CASCADE,
    action      VARCHAR(100) NOT NULL, -- 'VideoCreated', 'ProfileUpdated', 'SubscriptionUpgraded'
    resource_type VARCHAR(50), -- 'Video', 'User', 'Subscription'
    resource_id UUID,
    description VARCHAR(500),
    ip_address  INET,
    user_agent  VARCHAR(1000),
    metadata    JSONB,
    created_at  TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
);

CREATE INDEX ix_user_activity_user_id ON public.user_activity(user_id);
CREATE INDEX ix_user_activity_action ON public.user_activity(action);
CREATE INDEX ix_user_activity_resource_type ON public.user_activity(resource_type);
CREATE INDEX ix_user_activity_created_at ON public.user_activity(created_at);

CREATE TABLE public.api_usage (
    id              UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id         UUID REFERENCES public.users(id) ON DELETE SET NULL,
    endpoint        VARCHAR(200) NOT NULL,
    method          VARCHAR(10) NOT NULL,
    status_code     INTEGER NOT NULL,
    response_time_ms INTEGER,
    request_size_bytes  INTEGER,
    response_size_bytes INTEGER,
    ip_address      INET,
    user_agent      VARCHAR(1000),
    api_key_id      UUID,
    rate_limit_hit  BOOLEAN DEFAULT FALSE,
    error_message   VARCHAR(1000),
    created_at      TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
);

CREATE INDEX ix_api_usage_user_id ON public.api_usage(user_id);
CREATE INDEX ix_api_usage_endpoint ON public.api_usage(endpoint);
CREATE INDEX ix_api_usage_status_code ON public.api_usage(status_code);
CREATE INDEX ix_api_usage_created_at ON public.api_usage(created_at);
CREATE INDEX ix_api_usage_rate_limit_hit ON public.api_usage(rate_limit_hit);

CREATE TABLE public.system_settings (
    id         UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    key        VARCHAR(100) NOT NULL UNIQUE,
    value      TEXT NOT NULL,
    data_type  VARCHAR(20) DEFAULT 'string', -- 'string', 'number', 'boolean', 'json'
    category   VARCHAR(50),
    description TEXT,
    is_public  BOOLEAN DEFAULT FALSE,
    created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP,
    updated_by VARCHAR(100)
);

CREATE INDEX ix_system_settings_category ON public.system_settings(category);
CREATE INDEX ix_system_settings_is_public ON public.system_settings(is_public);
