"""A finished run as one file to hand in: what it is, what it was made of, and how to check it."""
