"""The pytest plug-in and its baselines."""
