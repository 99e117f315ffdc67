"""Webhooks: what happens to an account's mail, told to its own programs by signed HTTP posts (Standard Webhooks)."""
