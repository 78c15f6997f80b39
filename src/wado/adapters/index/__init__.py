"""Index: SQLite (embedded)."""
