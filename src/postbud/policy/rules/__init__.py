"""One file a rule: sees `Facts`, gives a finding or None, has its clause, its line in the docs and its own test."""
