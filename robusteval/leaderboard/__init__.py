"""Boards, submissions and the static site. No torch."""
