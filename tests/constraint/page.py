"""docs/structured-output.md, made from what is enforced: `python -m tests.constraint.page > …`."""

from __future__ import annotations

from rllm.backends.constraint import limits
from rllm.backends.constraint.schema import COMBINED, FORMATS, PLAIN, REFUSED
from tests.constraint.maskbench import Outcome, outcome

_HEAD = """\
# Structured output: what is enforced

<!-- Made from tests/constraint: python -m tests.constraint.page > docs/structured-output.md -->

`/v1/chat/completions` and `/v1/completions` take OpenAI's `response_format` (`json_object`, `json_schema`,
`structural_tag`), vLLM's `structured_outputs` and `guided_*`, and llama-server's `json_schema` and `grammar`, streamed
or not, with `n`, `stop`, `logit_bias`, log probabilities and every way of drawing. With log probabilities each token
is a step of its own; otherwise text that is forced is computed together.

An answer that must match a schema, a pattern or a grammar matches it: tokens that do not fit are not drawn.
**What cannot be enforced is refused**, with status 400, the place in the schema and the reason, before anything
is computed. There is no answer with status 200 that was not held to what was asked.

An answer that `max_tokens` cuts off is not complete, and its `finish_reason` is `length`: look at it before you
parse. So is one that a stop string ends. Nothing else ends an answer early but an error. `min_tokens` and biases give
way where they leave nothing that is allowed.

## JSON schemas

Enforced: {enforced}.

Refused by name: {refused}, and `uniqueItems`, where a list may have more than one item.

Titles, descriptions, defaults and keywords that no draft has are ignored, as validators do. `strict` makes no
difference: every schema is held to.

| | |
| --- | --- |
| **order of properties** | the order of `properties`; then required ones that are not listed there; then others in any order. `$ref`, `allOf`, `anyOf` and `oneOf` that stand before `properties` come first |
| **names** | as they are, without escapes such as `\\u0061`. Those of `properties` occur once; others may repeat, and then the last one counts for most parsers. `minProperties` is supported up to one more than there are required properties, for the same reason |
| **white space** | one space after each comma and colon, none elsewhere, as Python's `json.dumps` writes it. Where any white space is asked for, up to 40 characters of it between two tokens |
| **whole numbers** | digits only: 1, not 1.0 or 1e0 |
| **numbers** | bounds are exact. Without bounds an exponent may be written, and may be beyond what a parser's numbers hold. Values in a schema up to 2^53 |
| **`multipleOf`** | exact in decimal, up to {factor} without the decimal point. Validators that divide floats, as Python's `jsonschema`, do not take every multiple of 0.01 for one |
| **texts** | any character but control characters; `\\n`, `\\t` and the like are escaped. Lengths are in Unicode characters |
| **`pattern`** | ECMA-262 without lookaround, word boundaries and references to groups; `^` and `$` at its ends only. `\\w` and `\\d` are ASCII, `\\W` and `\\D` are what is neither in ASCII nor in Unicode, `.` is no line break |
| **`format`** | {formats}. Other names are refused, unless the type is not `string`. 29 February is in leap years only. A host name's total length is not looked at |
| **`$ref`** | within the schema (`#/…`), recursive ones too. Not to another document, not to an anchor. A schema that only an endless value matches is refused. What stands beside it counts, but for schemas that name draft 7 or an older one |
| **`oneOf`** | where it is plain that no value matches two branches: other types, or a required property with another constant. Otherwise use `anyOf` |
| **`allOf`** | merged; what contradicts itself is refused |
| **`patternProperties`** | where no name can match two patterns |
| **drafts** | 4 to 2020-12; `$schema` is looked at where they differ |

Limits: {bytes} bytes, {nodes} schemas, {depth} deep, {properties} properties of one object, {values} constants, and
{seconds:g} s of a processor to compile.

## Patterns, choices, grammars, tags

- A pattern matches the whole answer; anchors at its ends change nothing. The dialect is that of `pattern` above.
- Choices: up to {values}, one of which is the answer.
- Grammars: GBNF as llama-server reads it, and Lark as llguidance does. What does not refer to itself is matched
  exactly. Among rules that do, each terminal takes as much text as it can, so an ambiguous grammar allows fewer
  answers than it describes, never others. Not supported in Lark: special tokens, `%json`, `%import`, and attributes
  that draw otherwise (`stop`, `suffix`, `temperature`, `max_tokens`). In GBNF, names of rules that differ only in
  their case or in `-` for `_` are refused.
- Structural tags: `structures` with `triggers`. Around the tags any text is allowed.

"""
_BENCH = """\
## Real schemas

{num_schemas} schemas from code, APIs and tools with {num_instances:,} instances, valid and not (a sample of
[MaskBench](../tests/constraint/README.md)), with SmolLM2's vocabulary:

| | |
| --- | ---: |
| schemas compiled | {num_compiled} ({share:.1%}) |
| refused by name | {num_refused} |
| instances judged rightly | {num_right:,} |
| valid instances refused for the order of their properties alone | {num_by_order} |
| judged wrongly | {num_wrong} |
| compiled by llguidance alone, on the same list | {alone} ({alone_share:.1%}) |

Its authors count 8,909 of all 11,306 schemas of MaskBench (78.8 %) as passed, 2,377 refused and 20 wrong. The sample has
more simple schemas than the whole.

| refused for | schemas |
| --- | ---: |
{reasons}
"""


def page() -> str:
    return _enforced() + _bench(outcome())


def _enforced() -> str:
    return _HEAD.format(
        enforced=_listed((*PLAIN, *COMBINED, "additionalItems")),
        refused=_listed(REFUSED),
        formats=_listed(FORMATS),
        factor=f"{limits.MOST_FACTOR:,}",
        bytes=f"{limits.MOST_SOURCE:,}",
        nodes=f"{limits.MOST_NODES:,}",
        depth=limits.MOST_DEPTH,
        properties=f"{limits.MOST_PROPERTIES:,}",
        values=f"{limits.MOST_VALUES:,}",
        seconds=limits.COMPILE_S,
    )


def _bench(found: Outcome) -> str:
    return _BENCH.format(
        num_schemas=found.num_schemas,
        num_instances=found.num_instances,
        num_compiled=found.num_compiled,
        share=found.share,
        num_refused=len(found.refused),
        num_right=found.num_right,
        num_by_order=len(found.by_order),
        num_wrong=len(found.wrong),
        alone=found.num_compiled_by_llguidance,
        alone_share=found.num_compiled_by_llguidance / found.num_schemas,
        reasons="\n".join(f"| {reason} | {count} |" for reason, count in found.reasons()),
    )


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    print(page(), end="")
