"""Small generators of what once crashed, hung, cost too much or gave a wrong answer: one file a kind."""
