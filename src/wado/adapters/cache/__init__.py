"""Cache: memory of the process (embedded)."""
