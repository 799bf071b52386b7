"""How a model writes calls and thoughts: found from its chat template, and parsed from its answers."""
