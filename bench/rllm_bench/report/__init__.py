"""Pages, tables and pictures out of figures. Nothing is parsed back."""
