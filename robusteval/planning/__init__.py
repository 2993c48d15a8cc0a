"""From a suite file to cells and a plan: what is done, pending, failed, blocked."""
