CREATE SCHEMA credits;

CREATE TABLE credits.users (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid()
);

CREATE TABLE credits.renders (
    id      uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL REFERENCES credits.users(id),
    state   text NOT NULL DEFAULT 'new',
    problem text
);

CREATE TABLE credits.usage_credits (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id     uuid NOT NULL REFERENCES credits.users(id) ON DELETE CASCADE,
    credit_type varchar(50) NOT NULL,
    amount      integer NOT NULL,
    used_amount integer DEFAULT 0,
    source      varchar(50) NOT NULL,
    expires_at  timestamp,
    is_active   boolean DEFAULT true,
    CHECK (used_amount BETWEEN 0 AND amount)
);
CREATE INDEX ix_usage_credits_user_id ON credits.usage_credits(user_id);
