"""Intervals, paired tests and Pareto fronts. No torch."""
