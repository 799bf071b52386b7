"""How much one constraint may ask for. Beyond these a compilation takes longer than a request may, or more
memory: measured with llguidance 1.9.1, see tests/constraint/test_hostile.py."""

from __future__ import annotations

from llguidance import LLParserLimits

MOST_SOURCE = 256 * 1024
"""Bytes of a schema, pattern, grammar or list of choices."""
MOST_DEPTH = 64
"""Schemas within schemas."""
MOST_NODES = 5_000
"""Schemas in one schema, references counted once."""
MOST_VALUES = 10_000
"""Values of all `enum`s, or choices."""
MOST_PROPERTIES = 1_000
"""Of one object."""
MOST_OPTIONAL = 64
"""Optional properties beside `minProperties` or `maxProperties`: each is a branch."""
MOST_BRANCHES = 500
"""Of one `oneOf`: each pair is compared."""
MOST_LENGTH = 1_000_000
"""Of a string, an array or an object, where a schema gives one."""
MOST_FACTOR = 5_000
"""Of `multipleOf`, written without its decimal point: each remainder is a state."""
MOST_EXACT = 2**53
"""Beyond it numbers are rounded on the way."""
MOST_ROUNDS = 50
"""Over the definitions of a schema, to find whether they can end."""
MOST_PATTERN = 4_096
MOST_RULES = 1_000
"""Lines with a rule in a grammar."""

COMPILE_S = 0.8
"""Seconds of a processor that one compilation may take."""
STACK_BYTES = 256 * 2**20
"""Of the thread that compiles, reserved and not used: llguidance recurses along chains of references."""
LOCATE_S = 0.2
"""For compiling parts of a refused schema on their own, to find the one at fault."""

PARSER = LLParserLimits(
    initial_lexer_fuel=300_000,
    step_lexer_fuel=200_000,
    step_max_items=50_000,
    max_lexer_states=100_000,
    max_grammar_size=50_000,
    verbose_errors=False,
)
"""All but the first and the last hold for every token of an answer as well."""
