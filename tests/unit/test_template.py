"""A prompt template filled in: what is refused, and what becomes of its placeholders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unittest.mock import sentinel
from uuid import UUID

import pytest

from jobs.contract import Failed, Job, Succeeded
from jobs.registry import load

USER, TEMPLATE, MODEL, PROJECT, CHAPTER, OTHER = (str(UUID(int=n)) for n in range(1, 7))
WRITTEN: dict[str, Any] = {
    "id": TEMPLATE,
    "user_prompt_template": "About {{subject}}.",
    "system_prompt": None,
    "variables": ["subject"],
    "default_parameters": {},
}
GIVEN: dict[str, Any] = {"template_id": TEMPLATE, "user_id": USER, "variables": {"subject": "tea"}}
FOUND: dict[str, Any] = {
    "user_status": "active",
    "model_id": MODEL,
    "project_id": None,
    "chapter_id": None,
}


async def outcome(
    payload: Mapping[str, Any] = {},
    template: Mapping[str, Any] | None = {},
    **found: Any,
) -> Succeeded | Failed:
    given = {
        "payload": {**GIVEN, **payload},
        "template": None if template is None else {**WRITTEN, **template},
        **FOUND,
        **found,
    }
    kind = load().get("background:generate_from_template")
    assert kind is not None
    work = Job("background_jobs", "42", kind.name, kind.name, 1, 0, 3, None, given)
    said = await kind.handler(work, sentinel.nothing_is_asked_of_it)
    assert isinstance(said, Succeeded | Failed)
    return said


async def made(
    payload: Mapping[str, Any] = {}, template: Mapping[str, Any] = {}, **found: Any
) -> Mapping[str, Any]:
    said = await outcome(payload, template, **found)
    assert isinstance(said, Succeeded), said
    return said.data


async def refused(
    payload: Mapping[str, Any] = {}, template: Mapping[str, Any] | None = {}, **found: Any
) -> str:
    said = await outcome(payload, template, **found)
    assert isinstance(said, Failed), said
    return said.failure.message


async def test_what_a_generation_is_made_of() -> None:
    assert await made() == {
        "template_id": TEMPLATE,
        "user_id": USER,
        "project_id": None,
        "chapter_id": None,
        "model_id": MODEL,
        "prompt": "About tea.",
        "system_prompt": None,
        "temperature": 0.7,
        "max_tokens": None,
    }


async def test_parameters_are_the_jobs_else_the_templates() -> None:
    usual = {"default_parameters": {"temperature": 0.2, "maxTokens": 900, "top_p": 1}}
    data = await made({"MaxTokens": 50}, usual)
    assert (data["temperature"], data["max_tokens"]) == (0.2, 50)
    data = await made({"temperature": 0}, usual)
    assert (data["temperature"], data["max_tokens"]) == (0.0, 900)


# --------------------------------------------------------------------------- placeholders


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        ("{{a}} {{ a }} {a}", "x x x"),
        ('{"a": "{{a}}", "b": {b}}', '{"a": "x", "b": {b}}'),  # braces that name no variable
        ("{a.__class__} {a!r} {a[0]} {0} {}", "{a.__class__} {a!r} {a[0]} {0} {}"),
        ("{{{a}}}", "{x}"),
        ("%(a)s $a ${a}", "%(a)s $a $x"),
    ],
)
async def test_a_placeholder_is_a_name_and_nothing_more(template: str, prompt: str) -> None:
    data = await made(
        {"variables": {"a": "x"}}, {"user_prompt_template": template, "variables": ["a"]}
    )
    assert data["prompt"] == prompt


async def test_nothing_in_a_value_is_a_placeholder() -> None:
    given = {"a": "{{b}} {b} \\1 {a.__class__}", "b": "secret"}
    template = {"user_prompt_template": "{{a}}", "variables": ["a", "b"]}
    assert (await made({"variables": given}, template))["prompt"] == given["a"]


async def test_the_system_prompt_is_filled_in_too() -> None:
    data = await made(template={"system_prompt": "You know {{subject}}."})
    assert data["system_prompt"] == "You know tea."


async def test_variables_in_both_forms() -> None:
    declared = [
        "subject",
        {"name": "tone", "default": "plain", "description": "how it sounds", "type": "text"},
        {"name": "end", "required": False},
    ]
    template = {"user_prompt_template": "{{subject}}, {{tone}}{{end}}", "variables": declared}
    assert (await made(template=template))["prompt"] == "tea, plain"
    given = {"subject": "ice", "tone": "cold", "end": "!"}
    assert (await made({"variables": given}, template))["prompt"] == "ice, cold!"


@pytest.mark.parametrize("nothing", [None, [], {}])
async def test_a_template_may_have_no_variables(nothing: Any) -> None:
    template = {"user_prompt_template": "A haiku.", "variables": nothing}
    assert (await made({"variables": {}}, template))["prompt"] == "A haiku."


# --------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "payload.variables: subject must be given"),
        ({"Subject": "tea"}, "payload.variables: the template has no Subject; it has subject"),
        ({"subject": "a", "x": "b"}, "payload.variables: the template has no x; it has subject"),
        ({"subject": 7}, "payload.variables: subject must be text"),
        ({"subject": None}, "payload.variables: subject must be text"),
        ({"subject": {"a": "b"}}, "payload.variables: subject must be text"),
        (["tea"], "payload.variables: "),
        ("tea", "payload.variables: "),
    ],
)
async def test_variables_that_do_not_fit_are_named(variables: Any, message: str) -> None:
    assert (await refused({"variables": variables})).startswith(message)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"variables": [{"required": True}]}, "prompt_templates: 0.name: "),
        ({"variables": ["a b"]}, "prompt_templates: 0.name: "),
        ({"variables": ["subject", 3]}, "prompt_templates: 1: "),
        ({"variables": "subject"}, "prompt_templates: "),
        ({"variables": [{"name": "subject", "default": 3}]}, "prompt_templates: 0.default: "),
        ({"default_parameters": {"temperature": "hot"}}, "prompt_templates: temperature: "),
        (
            {"user_prompt_template": "{{subject}} {{tone}}"},
            "prompt_templates.variables: tone is in the template and not in them",
        ),
        ({"system_prompt": "{{tone}}"}, "prompt_templates.variables: tone is in"),
        ({"user_prompt_template": " "}, "prompt_templates.user_prompt_template: nothing"),
    ],
)
async def test_a_template_that_can_not_work_fails_the_job(
    changed: dict[str, Any], message: str
) -> None:
    assert (await refused(template=changed)).startswith(message)


@pytest.mark.parametrize(
    ("payload", "found", "message"),
    [
        ({"template_id": "7"}, {}, "payload.template_id: "),
        ({"user_id": None}, {}, "payload.user_id: "),
        ({}, {"user_status": None}, f"payload.user_id: there is no user {USER}"),
        ({}, {"user_status": "suspended"}, "payload.user_id: the user is suspended, not active"),
        ({}, {"user_status": "deleted"}, "payload.user_id: the user is deleted, not active"),
        ({}, {"model_id": None}, "payload.model_id: the template has no model of its own"),
        ({"modelId": OTHER}, {"model_id": None}, f"payload.model_id: there is no model {OTHER}"),
        ({"chapter_id": CHAPTER}, {}, f"payload.chapter_id: there is no chapter {CHAPTER}"),
        ({"project_id": PROJECT}, {}, f"payload.project_id: there is no project {PROJECT}"),
        (
            {"project_id": PROJECT, "chapter_id": CHAPTER},
            {"project_id": OTHER, "chapter_id": CHAPTER},
            f"payload.chapter_id: it is no chapter of project {PROJECT}",
        ),
        ({"max_tokens": 0}, {}, "payload.max_tokens: "),
        ({"temperature": 10}, {}, "payload.temperature: "),
    ],
)
async def test_what_is_not_there_is_named(
    payload: dict[str, Any], found: dict[str, Any], message: str
) -> None:
    assert (await refused(payload, **found)).startswith(message)


async def test_a_template_the_user_may_not_use_is_not_told_from_none() -> None:
    assert await refused(template=None) == (
        f"payload.template_id: this user has no template {TEMPLATE}"
    )


async def test_a_chapter_brings_its_project() -> None:
    data = await made({"chapter_id": CHAPTER}, chapter_id=CHAPTER, project_id=PROJECT)
    assert (data["chapter_id"], data["project_id"]) == (CHAPTER, PROJECT)
