"""Chat templates are files from strangers."""

from __future__ import annotations

from typing import Any

import pytest
from jinja2 import TemplateError

from rllm.api.sandbox import SandboxedTemplate, TemplateRefused, TemplateTooExpensive


def render(source: str, **variables: Any) -> str:
    return SandboxedTemplate(source).render(variables, timeout_s=0.3, max_chars=100_000)


@pytest.mark.parametrize(
    "bomb",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro m() %}{% for i in range(99999) %}{{ m() }}{% endfor %}{% endmacro %}{{ m() }}",
        "{% for i in range(10 ** 10) %}{% endfor %}",
        "{% for i in range(999999999) %}{% endfor %}",
        "{% for i in range(99999) %}0123456789{% endfor %}",
        "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{{ 'a' * 9999999999 }}",
        "{{ 9999999999 * 'a' }}",
        "{{ 'a' | center(999999999) }}",
        "{{ 'a'.ljust(999999999) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '%999999999d' | format(1) }}",
        "{{ '%*d' | format(99999999, 1) }}",
        "{{ '{:999999999}'.format(1) }}",
        "{{ 9 ** 9 ** 9 }}",
    ],
)
def test_bombs_are_defused(bomb: str) -> None:
    with pytest.raises((TemplateTooExpensive, TemplateError, RecursionError, OverflowError)):
        render(bomb)


@pytest.mark.parametrize(
    "escape",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception.__globals__.items() }}",
        "{{ cycler.__init__.__globals__ }}",
        "{% include 'x' %}",
        "{% import 'x' as y %}",
    ],
)
def test_there_is_no_way_out(escape: str) -> None:
    with pytest.raises((TemplateError, TypeError)):
        render(escape, messages=[])


def test_what_templates_use_works() -> None:
    assert render("{{ {'a': '<é>'} | tojson }}{{ [1, 2] | join(',') }}") == '{"a": "<é>"}1,2'
    assert len(render("{{ strftime_now('%Y') }}")) == 4
    assert (
        render("{% for i in [1, 2, 3] %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}{% endfor %}") == "13"
    )
    assert render("{% generation %}x{% endgeneration %}{{ 7 % 4 }}{{ 'a' ~ 1 ~ 'b' }}") == "x3a1b"
    assert render("{{ m.content.split('</think>')[-1].lstrip('\\n') }}", m={"content": "a</think>\nb"}) == "b"
    assert render("{% for x in 'abc' if x != 'b' %}{{ loop.index }}{% else %}none{% endfor %}") == "12"
    assert render("  {%- for m in ms %}\n  {{ m }}\n{%- endfor %}", ms=[1, 2]) == "  1  2"


def test_a_template_can_refuse() -> None:
    with pytest.raises(TemplateRefused, match="roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}")
