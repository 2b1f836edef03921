"""One file per check; each ends in a function whose decorator is its row in the table."""
