"""Published results as reported entries: every field kept, no number invented, every file that fails named."""
