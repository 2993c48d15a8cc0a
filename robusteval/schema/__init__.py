"""What things are: frozen models, exact numbers, digests, names and errors. No torch, no pandas."""
