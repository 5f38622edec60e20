-- What an operator did, in the platform's own audit_logs. No customer did it, so user_id is null; who
-- it was stands in the metadata. Of a job the columns that such an act may change are kept, as they
-- were and as they are now; of anything else what the action itself says.
INSERT INTO public.audit_logs (
  user_id, action, resource_type, resource_id, changes, metadata, success, error_message, created_at
)
SELECT
  NULL,
  trim('_' FROM regexp_replace(lower(action.action), '[^a-z]+', '_', 'g')),
  CASE
    WHEN action.row_key IS NOT NULL THEN 'generation_job'
    WHEN action.source IS NOT NULL THEN 'generation_queue'
    ELSE 'generation_lane'
  END,
  CASE WHEN action.row_key IS NOT NULL THEN action.row_key::uuid END,
  jsonb_build_object(
    'before', coalesce(job.before, action.detail -> 'before'),
    'after', coalesce(job.after, action.detail - ARRAY['before', 'row'])
  ),
  jsonb_strip_nulls(jsonb_build_object(
    'who', action.who,
    'subject', action.subject,
    'verdict', action.detail ->> 'verdict',
    'how', action.detail ->> 'how',
    'given', action.detail -> 'given',
    'reason', action.detail ->> 'reason',
    'rowmill_action', action.id
  )),
  done.so,
  CASE WHEN NOT done.so THEN 'nothing was done: ' || (action.detail ->> 'verdict') END,
  action.at
FROM action
CROSS JOIN LATERAL (
  -- A job that is running, or over already, can't be retried; one that is over can't be cancelled, one
  -- that isn't can't be made anew.
  SELECT action.action NOT IN ('retry', 'requeue', 'cancel', 'priority') OR action.detail ->> 'verdict'
    IN ('requeued', 'released', 'hastened', 'cancelled', 'moved', 'noted') IS NOT FALSE AS so
) AS done
LEFT JOIN LATERAL (
  SELECT
    jsonb_object_agg(now.name, action.detail -> 'row' -> now.name)
      FILTER (WHERE action.detail ? 'row') AS before,
    jsonb_object_agg(now.name, now.value) AS after
  FROM public.generation_jobs AS stored
  CROSS JOIN LATERAL jsonb_each(to_jsonb(stored)) AS now(name, value)
  WHERE stored.id = action.row_key::uuid
    AND now.name IN (
      'status', 'priority', 'progress_percentage', 'retry_count', 'error_message',
      'queued_at', 'started_at', 'completed_at', 'failed_at'
    )
) AS job ON true;
