"""Background responses by the official SDK: made, polled, and cancelled on demand."""

import json
import sys

from openai import APIStatusError, OpenAI

given = json.load(sys.stdin)
client = OpenAI(base_url=given["url"], api_key=given["key"], max_retries=0)
try:
    made = client.responses.create(
        model=given["model"],
        input=given["prompt"],
        instructions=given["system"],
        background=True,
    )
    statuses = [made.status]
    for _ in range(given["polls"]):
        made = client.responses.retrieve(made.id)
        statuses.append(made.status)
    if given["cancel"]:
        made = client.responses.cancel(made.id)
        statuses.append(made.status)
except APIStatusError as error:
    print(json.dumps({"status": error.status_code, "code": error.code, "message": error.message}))
    sys.exit()
parts = [part for item in made.output if item.type == "message" for part in item.content]
used = made.usage
print(
    json.dumps(
        {
            "statuses": statuses,
            "items": [item.type for item in made.output],
            "text": made.output_text,
            "refusal": "".join(part.refusal for part in parts if part.type == "refusal"),
            "error": made.error and {"code": made.error.code, "message": made.error.message},
            "reason": made.incomplete_details and made.incomplete_details.reason,
            "model": made.model,
            "input_tokens": used.input_tokens if used else 0,
            "cached_tokens": used.input_tokens_details.cached_tokens if used else 0,
            "output_tokens": used.output_tokens if used else 0,
            "reasoning_tokens": used.output_tokens_details.reasoning_tokens if used else 0,
        }
    )
)
