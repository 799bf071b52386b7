"""The engine alone, and the memory under it."""
