"""Content-addressed records and artefacts on disk, and where results come from."""
