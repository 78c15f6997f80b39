"""Warehouse: DuckDB (embedded)."""
