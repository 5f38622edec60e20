"""Chat completions by the official SDK."""

import json
import sys

from openai import APIStatusError, OpenAI

given = json.load(sys.stdin)
client = OpenAI(base_url=given["url"], api_key=given["key"], max_retries=0)
try:
    made = client.chat.completions.create(
        model=given["model"], messages=[{"role": "user", "content": given["prompt"]}]
    )
except APIStatusError as error:
    print(json.dumps({"status": error.status_code, "code": error.code, "message": error.message}))
    sys.exit()
choice = made.choices[0]
print(
    json.dumps(
        {
            "text": choice.message.content,
            "refusal": choice.message.refusal,
            "finish_reason": choice.finish_reason,
            "model": made.model,
            "input_tokens": made.usage.prompt_tokens,
            "output_tokens": made.usage.completion_tokens,
        }
    )
)
