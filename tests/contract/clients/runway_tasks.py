"""A Runway task by the official SDK: made, followed, and deleted where that is asked for."""

import json
import sys

from runwayml import APIStatusError, RunwayML

given = json.load(sys.stdin)
client = RunwayML(base_url=given["url"].removesuffix("/v1"), api_key=given["key"], max_retries=0)
try:
    made = getattr(client, given["endpoint"]).create(**given["body"])
    task = client.tasks.retrieve(made.id)
    seen = [task.status]
    while task.status in ("PENDING", "THROTTLED", "RUNNING"):
        progress = getattr(task, "progress", None)
        task = client.tasks.retrieve(made.id)
        seen.append(task.status)
    if given.get("delete"):
        client.tasks.delete(made.id)
        client.tasks.retrieve(made.id)
except APIStatusError as error:
    print(json.dumps({"status": error.status_code, "body": error.body}))
    sys.exit()
print(
    json.dumps(
        {
            "id": made.id,
            "kind": type(task).__name__,
            "estimated": made.estimated_cost.credits,
            "seen": seen,
            "progress": progress,
            "credits": task.cost.credits,
            "output": getattr(task, "output", []),
            "failure": getattr(task, "failure", None),
            "failure_code": getattr(task, "failure_code", None),
        }
    )
)
