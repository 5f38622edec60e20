"""Text to speech by the official SDK."""

import hashlib
import json
import sys

from elevenlabs.client import ElevenLabs
from elevenlabs.core.api_error import ApiError

given = json.load(sys.stdin)
client = ElevenLabs(base_url=given["url"], api_key=given["key"])
try:
    with client.text_to_speech.with_raw_response.convert(
        given["voice"],
        text=given["text"],
        model_id=given["model"],
        output_format=given["format"],
        voice_settings=given["settings"],
        request_options={"max_retries": 0},
    ) as answer:
        sound, headers = b"".join(answer.data), answer.headers
except ApiError as error:
    print(json.dumps({"status": error.status_code, "body": error.body}))
    sys.exit()
print(
    json.dumps(
        {
            "start": sound[:3].hex(),
            "size": len(sound),
            "sha256": hashlib.sha256(sound).hexdigest(),
            "characters": headers["character-cost"],
            "id": headers["request-id"],
            "content_type": headers["content-type"],
        }
    )
)
