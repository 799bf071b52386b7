"""How many users a machine holds at a target: a forecast from a model's header and two measured loads."""
