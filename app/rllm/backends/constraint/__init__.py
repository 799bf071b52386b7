"""Answers that match a schema, a pattern or a grammar. The only package that imports llguidance.

A constraint is refused, by name and with the place, rather than enforced in part:

- `schema` reads a JSON schema keyword by keyword, and hands on only what llguidance enforces exactly;
- `patterns` does so for regular expressions, `grammars` for choices, GBNF, Lark and structural tags;
- `compiler` turns what is left into a grammar, within `limits`, and keeps what was compiled lately;
- `matcher` follows one answer token by token;
- `vocabulary` tells llguidance the tokens of a model, once per model.
"""
