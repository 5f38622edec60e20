"""Images by the official SDK."""

import base64
import json
import sys

from openai import APIStatusError, OpenAI

given = json.load(sys.stdin)
client = OpenAI(base_url=given["url"], api_key=given["key"], max_retries=0)
try:
    answer = client.images.with_raw_response.generate(**given["asked"])
except APIStatusError as error:
    print(json.dumps({"status": error.status_code, "code": error.code, "message": error.message}))
    sys.exit()
made = answer.parse()
print(
    json.dumps(
        {
            "sizes": [len(base64.b64decode(item.b64_json)) for item in made.data],
            "size": made.size,
            "quality": made.quality,
            "output_format": made.output_format,
            "input_tokens": made.usage.input_tokens,
            "output_tokens": made.usage.output_tokens,
            "image_tokens": made.usage.output_tokens_details.image_tokens,
            "id": answer.headers["x-request-id"],
        }
    )
)
