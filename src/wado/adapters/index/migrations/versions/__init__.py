"""Revisions of the index, oldest first."""
