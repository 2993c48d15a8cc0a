"""The Python front door: evaluate a model, run a suite, attack, corrupt, compare. `import robusteval` re-exports it."""
