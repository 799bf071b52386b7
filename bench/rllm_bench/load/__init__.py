"""Prompts, the client that sends them, and the loops that decide when."""
