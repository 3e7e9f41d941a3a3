"""Scripts that make what is committed: tables of facts, drawings."""
