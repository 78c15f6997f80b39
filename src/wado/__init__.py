"""wado: a distributed DICOMweb archive."""
