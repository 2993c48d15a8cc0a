"""Records and artefacts by content, on disk or in a bucket, who is at work on them, and where results come from."""
