"""A text asked for by a template: its variables are checked and put in, and the text is queued.

Nothing is paid here: the platform's `finish.sql` inserts the generation, which is a job of its own.

A placeholder is `{{name}}` or `{name}`. The values are put in once, as they are: nothing in a value
is a placeholder, and a placeholder is a name, never an expression. `{{name}}` must be one of the
template's variables; `{name}` that isn't one is left as it stands, since prompts may hold braces.

`prompt_templates.variables` is a list of names, or of
`{"name": …, "required": true, "default": "…", "description": "…"}` with at least the name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from uuid import UUID

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictStr,
    TypeAdapter,
    ValidationError,
)

from jobs.contract import Context, Job, Outcome, Succeeded
from jobs.payload import Payload, invalid, takes
from jobs.registry import kind

PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}|\{(\w+)\}")
SHOWN = 5
"""Names in a message, at most."""

Temperature = Annotated[float, Field(ge=0, le=9.99, allow_inf_nan=False)]
"""As its column takes it; what the model takes is for the generation to find out."""
Tokens = Annotated[int, Field(gt=0, lt=2**31)]


class Variable(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    name: Annotated[StrictStr, Field(pattern=r"^\w+$")]
    required: StrictBool = True
    default: StrictStr | None = None


def _of_a_name(given: Any) -> Any:
    return {"name": given} if isinstance(given, str) else given


VARIABLES = TypeAdapter(list[Annotated[Variable, BeforeValidator(_of_a_name)]])


class Parameters(Payload):
    temperature: Temperature | None = None
    max_tokens: Tokens | None = None


class TemplatePayload(Parameters):
    template_id: UUID
    user_id: UUID
    variables: dict[str, Any] = Field(default_factory=dict)
    project_id: UUID | None = None
    chapter_id: UUID | None = None
    model_id: UUID | None = None


class Template(BaseModel):
    """A row of prompt_templates, which only its author may get wrong."""

    id: UUID
    user_prompt_template: str
    system_prompt: str | None = None
    variables: Any = None
    default_parameters: Any = None


class TemplateInput(Payload):
    payload: TemplatePayload
    template: Template | None = None
    model_id: UUID | None = None
    user_status: str | None = None
    project_id: UUID | None = None
    chapter_id: UUID | None = None


@kind("background:generate_from_template", timeout=30)
@takes(TemplateInput)
async def generate_from_template(_job: Job, _ctx: Context, given: TemplateInput) -> Outcome:
    """Fill in a prompt template, and queue the text it asks for."""
    problem = _missing(given)
    if problem or given.template is None:
        return invalid(problem or "payload.template_id: there is no such template")
    template, asked = given.template, given.payload
    try:
        variables = VARIABLES.validate_python(template.variables or [])
        usual = Parameters.model_validate(template.default_parameters or {})
    except ValidationError as error:
        return invalid(f"prompt_templates: {_first(error)}", "template")
    values, problem = fill(variables, asked.variables)
    problem = problem or _undeclared(template, values)
    if problem:
        return invalid(problem, "variables")
    prompt = render(template.user_prompt_template, values)
    if not prompt.strip():
        return invalid("prompt_templates.user_prompt_template: nothing is left of it", "template")
    system = render(template.system_prompt, values) if template.system_prompt else None
    return Succeeded(
        data={
            "template_id": str(template.id),
            "user_id": str(asked.user_id),
            "project_id": _text(given.project_id),
            "chapter_id": _text(given.chapter_id),
            "model_id": _text(given.model_id),
            "prompt": prompt,
            "system_prompt": system,
            "temperature": _either(asked.temperature, usual.temperature, 0.7),
            "max_tokens": _either(asked.max_tokens, usual.max_tokens),
        }
    )


def _missing(given: TemplateInput) -> str | None:
    """What the payload names and the platform hasn't, or won't have used."""
    asked = given.payload
    if given.user_status is None:
        return f"payload.user_id: there is no user {asked.user_id}"
    if given.user_status != "active":
        return f"payload.user_id: the user is {given.user_status}, not active"
    if given.template is None:
        return f"payload.template_id: this user has no template {asked.template_id}"
    if given.model_id is None:
        if asked.model_id is not None:
            return f"payload.model_id: there is no model {asked.model_id}"
        return "payload.model_id: the template has no model of its own, so one has to be given"
    if asked.chapter_id is not None and given.chapter_id is None:
        return f"payload.chapter_id: there is no chapter {asked.chapter_id}"
    if asked.project_id is not None and given.project_id != asked.project_id:
        if given.chapter_id is not None:
            return f"payload.chapter_id: it is no chapter of project {asked.project_id}"
        return f"payload.project_id: there is no project {asked.project_id}"
    return None


# --------------------------------------------------------------------------- variables


def fill(
    variables: Sequence[Variable], given: Mapping[str, Any]
) -> tuple[dict[str, str], str | None]:
    """A text for each variable; or what is wrong with those that were given."""
    known = {variable.name for variable in variables}
    if unknown := [name for name in given if name not in known]:
        names = ", ".join(sorted(known)) or "none"
        return {}, f"payload.variables: the template has no {_listed(unknown)}; it has {names}"
    if odd := [name for name, value in given.items() if not isinstance(value, str)]:
        return {}, f"payload.variables: {_listed(odd)} must be text"
    lacking = [v.name for v in variables if v.required and v.default is None]
    if missing := [name for name in lacking if name not in given]:
        return {}, f"payload.variables: {_listed(missing)} must be given"
    return {v.name: given.get(v.name, v.default or "") for v in variables}, None


def _undeclared(template: Template, values: Mapping[str, str]) -> str | None:
    written = template.user_prompt_template + (template.system_prompt or "")
    names = {found[1] for found in PLACEHOLDER.finditer(written) if found[1]}
    if unknown := sorted(names - values.keys()):
        return f"prompt_templates.variables: {_listed(unknown)} is in the template and not in them"
    return None


def render(template: str, values: Mapping[str, str]) -> str:
    return PLACEHOLDER.sub(lambda found: values.get(found[1] or found[2], found[0]), template)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(name[:60] for name in names[:SHOWN]) + more


def _first(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(map(str, problem['loc'])) or 'variables'}: {problem['msg']}"


def _text(key: UUID | None) -> str | None:
    return None if key is None else str(key)


def _either(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
