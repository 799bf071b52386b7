"""One module per family of attacks, each with its ``CASES``. Every module here is found by itself."""
