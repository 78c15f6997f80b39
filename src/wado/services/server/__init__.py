"""The web server: DICOMweb, the viewer, health and metrics, on HTTP/1.1 of our own (ADR 0010)."""
