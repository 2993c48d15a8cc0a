"""From records to tables: the 2 x 2, trade-offs, gaps. No torch."""
