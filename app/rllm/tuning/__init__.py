"""Which options are fastest for a model on this machine: measured, in turns, and kept in its profile."""
