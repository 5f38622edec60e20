INSERT INTO depot.diary (said_at, who, action, errand, before)
SELECT action.at, action.who, action.action, action.row_key::bigint, action.detail -> 'before'
FROM action;
