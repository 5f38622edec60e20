"""Messages by the official SDK."""

import json
import sys

from anthropic import Anthropic, APIStatusError

given = json.load(sys.stdin)
client = Anthropic(base_url=given["url"], api_key=given["key"], max_retries=0)
try:
    made = client.messages.create(
        model=given["model"],
        max_tokens=given["max_tokens"],
        system=given["system"],
        messages=[{"role": "user", "content": given["prompt"]}],
    )
except APIStatusError as error:
    print(
        json.dumps(
            {
                "class": type(error).__name__,
                "status": error.status_code,
                "type": error.type,
                "message": error.api_message,
                "request_id": error.request_id,
            }
        )
    )
    sys.exit()
details = made.stop_details
print(
    json.dumps(
        {
            "text": "".join(block.text for block in made.content if block.type == "text"),
            "stop_reason": made.stop_reason,
            "explanation": details and details.explanation,
            "category": details and details.category,
            "model": made.model,
            "input_tokens": made.usage.input_tokens
            + made.usage.cache_creation_input_tokens
            + made.usage.cache_read_input_tokens,
            "output_tokens": made.usage.output_tokens,
        }
    )
)
