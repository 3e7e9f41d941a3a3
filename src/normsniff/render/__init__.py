"""A record for people and for programs, one module an output."""
