"""A provider of our own that speaks the vendors' protocols, makes real small media, and bills.

The demo, the tests, the bench and the chaos runs all use it over real HTTP. "Nothing is paid
twice" is read off *its* bill, never off our own ledger.

    async with Sandbox() as sandbox:   # or: python -m jobs.sandbox --port 0 --bill bill.jsonl
        sandbox.url                    # the vendors' base URLs begin with it, see below
        sandbox.bill.charges, sandbox.bill.duplicates()
        sandbox.faults.add("429", times=2)    # or words in a prompt: [fault:429*2]

Base URLs, as the adapters want them:

    anthropic         {url}/anthropic/v1
    elevenlabs        {url}/elevenlabs/v1
    freepik           {url}/freepik/v1/ai
    gemini            {url}/gemini/v1beta
    openai            {url}/openai/v1
    openai_responses  {url}/openai/v1
    replicate         {url}/replicate/v1
    runway            {url}/runway/v1
    stability         {url}/stability/v2beta

A charge is ascribed to a job by a mark in its prompt or input: `[job:generation_jobs/<key>]`.
The faults are listed in `jobs.sandbox.faults`, the prices in `jobs.sandbox.prices`.
"""

from jobs.sandbox.server import Sandbox

__all__ = ["Sandbox"]
