"""Tasks, tables, problems and splits."""
