-- What was read from a shop's page, by a job of its own or on the way to a video. A payload with only
-- a URL and a user gets a product, or updates the one that this user has of that URL.
-- Texts are clipped to their columns; addresses and numbers that don't fit are left out, and what the
-- page doesn't tell stays as it was.
WITH scraped AS MATERIALIZED (
  SELECT
    job.created_at,
    job.id AS job_id,
    job.video_id,
    product.id AS product_id,
    coalesce(product.user_id, video.user_id, job.user_id) AS user_id,
    coalesce(product.original_url, job.url) AS url,
    result.data -> 'product' AS said
  FROM result
  JOIN (
    SELECT
      named.id,
      named.created_at,
      rowmill.said_id(named.job_data, 'video_id') AS video_id,
      rowmill.said_id(named.job_data, 'product_data_id') AS product_id,
      rowmill.said_id(named.job_data, 'user_id') AS user_id,
      coalesce(
        rowmill.said(named.job_data, 'url'), rowmill.said(named.job_data, 'product_url')
      ) AS url
    FROM public.background_jobs AS named
    WHERE named.id = ANY(rowmill_keys)
    OFFSET 0
  ) AS job ON job.id = result.row_id
  LEFT JOIN LATERAL (
    SELECT one.user_id, one.product_data_id
    FROM public.videos AS one
    WHERE one.id = job.video_id
    LIMIT 1
  ) AS video ON true
  LEFT JOIN LATERAL (
    SELECT known.id, known.user_id, known.original_url
    FROM (
      SELECT one.id, one.user_id, one.original_url, one.created_at
      FROM public.product_data AS one
      WHERE one.id = coalesce(job.product_id, video.product_data_id)
      UNION ALL
      SELECT one.id, one.user_id, one.original_url, one.created_at
      FROM public.product_data AS one
      WHERE one.original_url = job.url
        AND one.user_id = coalesce(video.user_id, job.user_id)
        AND coalesce(job.product_id, video.product_data_id) IS NULL
    ) AS known
    ORDER BY known.created_at DESC, known.id
    LIMIT 1
  ) AS product ON true
  WHERE jsonb_typeof(result.data -> 'product') = 'object'
), fresh AS MATERIALIZED (
  SELECT DISTINCT ON (scraped.user_id, scraped.url)
    gen_random_uuid() AS id, scraped.user_id, scraped.url
  FROM scraped
  WHERE scraped.product_id IS NULL AND length(scraped.url) <= 1000
    AND (SELECT account.id FROM public.users AS account WHERE account.id = scraped.user_id LIMIT 1)
      IS NOT NULL
), placed AS MATERIALIZED (
  SELECT scraped.*, coalesce(scraped.product_id, fresh.id) AS target
  FROM scraped
  LEFT JOIN fresh ON fresh.user_id = scraped.user_id AND fresh.url = scraped.url
), latest AS MATERIALIZED (
  SELECT DISTINCT ON (placed.target) placed.*
  FROM placed
  WHERE placed.target IS NOT NULL
  ORDER BY placed.target, placed.created_at DESC, placed.job_id DESC
), held AS MATERIALIZED (
  SELECT product.id
  FROM public.product_data AS product
  WHERE product.id = ANY(ARRAY(SELECT latest.target FROM latest))
  ORDER BY product.id
  FOR NO KEY UPDATE
), written AS (
  INSERT INTO public.product_data AS product (
    id, user_id, original_url, domain, platform, product_id, name, description, price, currency,
    original_price, discount_percent, brand, sku, availability, rating, review_count, main_image_url,
    scraping_status, scraped_at, metadata, created_at, created_by
  )
  SELECT
    latest.target,
    latest.user_id,
    latest.url,
    left(latest.said ->> 'domain', 100),
    left(latest.said ->> 'platform', 50),
    left(latest.said ->> 'product_id', 255),
    left(coalesce(nullif(latest.said ->> 'name', ''), latest.url), 500),
    latest.said ->> 'description',
    CASE WHEN latest.said ->> 'price' ~ '^\d{1,7}(\.\d+)?$'
      THEN round((latest.said ->> 'price')::numeric, 2) END,
    CASE WHEN latest.said ->> 'currency' ~ '^[A-Za-z]{3}$' THEN upper(latest.said ->> 'currency') END,
    CASE WHEN latest.said ->> 'original_price' ~ '^\d{1,7}(\.\d+)?$'
      THEN round((latest.said ->> 'original_price')::numeric, 2) END,
    CASE WHEN latest.said ->> 'discount_percent' ~ '^\d{1,3}(\.\d+)?$'
      THEN round((latest.said ->> 'discount_percent')::numeric)::integer END,
    left(latest.said ->> 'brand', 200),
    left(latest.said ->> 'sku', 100),
    left(latest.said ->> 'availability', 50),
    CASE WHEN latest.said ->> 'rating' ~ '^\d(\.\d+)?$'
      THEN least(round((latest.said ->> 'rating')::numeric, 2), 9.99) END,
    CASE WHEN latest.said ->> 'review_count' ~ '^\d{1,9}$'
      THEN (latest.said ->> 'review_count')::integer END,
    (
      SELECT address.url
      FROM (
        SELECT 0 AS place, latest.said ->> 'main_image_url' AS url
        UNION ALL
        SELECT listed.place, listed.image ->> 'url'
        FROM jsonb_array_elements(
          CASE jsonb_typeof(latest.said -> 'images') WHEN 'array' THEN latest.said -> 'images' ELSE '[]' END
        ) WITH ORDINALITY AS listed(image, place)
      ) AS address
      WHERE length(address.url) BETWEEN 1 AND 500
      ORDER BY address.place
      LIMIT 1
    ),
    'Success',
    now() AT TIME ZONE 'UTC',
    CASE jsonb_typeof(latest.said -> 'metadata') WHEN 'object' THEN latest.said -> 'metadata' END,
    now() AT TIME ZONE 'UTC',
    'rowmill'
  FROM latest
  LEFT JOIN held ON held.id = latest.target
  ORDER BY latest.target
  ON CONFLICT (id) DO UPDATE SET
    domain = coalesce(excluded.domain, product.domain),
    platform = coalesce(excluded.platform, product.platform),
    product_id = coalesce(excluded.product_id, product.product_id),
    name = CASE excluded.name WHEN left(excluded.original_url, 500) THEN product.name ELSE excluded.name END,
    description = coalesce(excluded.description, product.description),
    price = coalesce(excluded.price, product.price),
    currency = coalesce(excluded.currency, product.currency),
    original_price = coalesce(excluded.original_price, product.original_price),
    discount_percent = coalesce(excluded.discount_percent, product.discount_percent),
    brand = coalesce(excluded.brand, product.brand),
    sku = coalesce(excluded.sku, product.sku),
    availability = coalesce(excluded.availability, product.availability),
    rating = coalesce(excluded.rating, product.rating),
    review_count = coalesce(excluded.review_count, product.review_count),
    main_image_url = coalesce(excluded.main_image_url, product.main_image_url),
    scraping_status = 'Success',
    scraped_at = excluded.scraped_at,
    error_message = NULL,
    metadata = CASE
      WHEN jsonb_typeof(product.metadata) = 'object'
      THEN product.metadata || coalesce(excluded.metadata, '{}')
      ELSE coalesce(excluded.metadata, product.metadata)
    END,
    updated_at = excluded.scraped_at,
    updated_by = 'rowmill'
), image AS MATERIALIZED (
  SELECT
    latest.target,
    listed.image ->> 'url' AS url,
    listed.image ->> 'alt_text' AS alt_text,
    listed.image ->> 'is_primary' = 'true' AS is_primary,
    listed.place
  FROM latest
  CROSS JOIN LATERAL jsonb_array_elements(
    CASE jsonb_typeof(latest.said -> 'images') WHEN 'array' THEN latest.said -> 'images' ELSE '[]' END
  ) WITH ORDINALITY AS listed(image, place)
  WHERE length(listed.image ->> 'url') BETWEEN 1 AND 500
), dropped AS (
  DELETE FROM public.product_images AS former
  WHERE former.product_data_id = ANY(ARRAY(SELECT image.target FROM image))
), pictured AS (
  INSERT INTO public.product_images (product_data_id, url, alt_text, is_primary, sort_order, created_at)
  SELECT
    image.target,
    image.url,
    left(image.alt_text, 500),
    coalesce(image.is_primary, false),
    row_number() OVER (PARTITION BY image.target ORDER BY image.place) - 1,
    now() AT TIME ZONE 'UTC'
  FROM image
), owner AS MATERIALIZED (
  SELECT video.id
  FROM public.videos AS video
  WHERE video.id = ANY(ARRAY(SELECT placed.video_id FROM placed WHERE placed.target IS NOT NULL))
    -- (Written so that it isn't looked up by the index of products: most videos have none.)
    AND (video.product_data_id IS NULL) IS TRUE
  ORDER BY video.id
  FOR NO KEY UPDATE
)
UPDATE public.videos AS video
SET product_data_id = placed.target,
    updated_at = now() AT TIME ZONE 'UTC',
    updated_by = 'rowmill'
FROM placed
JOIN owner ON owner.id = placed.video_id
WHERE video.id = placed.video_id
  AND placed.target IS NOT NULL
  AND video.id = ANY(ARRAY(SELECT owner.id FROM owner));
