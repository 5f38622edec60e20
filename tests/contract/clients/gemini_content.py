"""Generated content by the official SDK."""

import base64
import hashlib
import json
import sys

from google import genai
from google.genai import types
from google.genai.errors import APIError

given = json.load(sys.stdin)
client = genai.Client(api_key=given["key"], http_options=types.HttpOptions(base_url=given["url"]))
parts = [types.Part.from_text(text=given["prompt"])]
if image := given.get("image"):
    parts.append(types.Part.from_bytes(data=base64.b64decode(image), mime_type="image/png"))
try:
    made = client.models.generate_content(
        model=given["model"], contents=parts, config=given.get("config")
    )
except APIError as error:
    print(
        json.dumps(
            {
                "class": type(error).__name__,
                "code": error.code,
                "status": error.status,
                "message": error.message,
            }
        )
    )
    sys.exit()
candidate = made.candidates[0] if made.candidates else None
files = [part.inline_data for part in made.parts or () if part.inline_data]
used = made.usage_metadata
print(
    json.dumps(
        {
            "text": made.text,
            "finish": candidate and candidate.finish_reason.name,
            "blocked": made.prompt_feedback and made.prompt_feedback.block_reason.name,
            "files": [hashlib.sha256(file.data).hexdigest() for file in files],
            "types": [file.mime_type for file in files],
            "sizes": [len(file.data) for file in files],
            "model": made.model_version,
            "id": made.response_id,
            "input_tokens": used.prompt_token_count,
            "output_tokens": (used.candidates_token_count or 0) + (used.thoughts_token_count or 0),
            "thoughts": used.thoughts_token_count,
            "image_tokens": sum(
                detail.token_count
                for detail in used.candidates_tokens_details or ()
                if detail.modality.name == "IMAGE"
            ),
        }
    )
)
