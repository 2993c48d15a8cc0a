"""The static site of a folder of boards: no request to anywhere, readable from `file://` and without JavaScript."""
