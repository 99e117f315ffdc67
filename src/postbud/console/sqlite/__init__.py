"""SQLite as the embedded console database."""
