"""Executing cells: one worker entry point, a runner, and executors."""
