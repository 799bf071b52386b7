"""What chat templates find: no way to Python, and what transformers gives them. Bounds: test_rendering."""

from __future__ import annotations

from typing import Any

import pytest
from jinja2 import TemplateError

from rllm.api.text.sandbox import SandboxedTemplate, TemplateRefused, TemplateTooLong


def render(source: str, **variables: Any) -> str:
    return SandboxedTemplate(source).render(variables, max_chars=1000)


@pytest.mark.parametrize(
    "escape",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''['__class__'].mro() }}",
        "{{ (''|attr('__class__')).mro() }}",
        "{{ '{0.__class__.__mro__}'.format('') }}",
        "{{ '{x.__class__.__mro__}'.format_map({'x': ''}) }}",
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
    assert render("{{ '%s:%03d' | format('a', 7) }}{{ '%d' % 5 }}{{ 2 ** 3 }}") == "a:00758"


def test_a_template_can_refuse() -> None:
    with pytest.raises(TemplateRefused, match="roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}")


def test_a_text_has_an_end() -> None:
    with pytest.raises(TemplateTooLong, match="1000 characters"):
        render("{% for i in range(99999) %}0123456789{% endfor %}")
