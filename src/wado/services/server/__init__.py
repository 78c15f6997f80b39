"""The web server: DICOMweb, the viewer, health and metrics; Starlette on granian (ADR 0006)."""
