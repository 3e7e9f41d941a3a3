"""Networks of every kind, small ones that are made here: how often `none` and `mixed` are right is counted on them."""
