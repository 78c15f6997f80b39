"""Message log: SQLite (embedded)."""
