"""Figures on pages: each is computed from a record by a key that stands beside it, and never typed."""
