"""Virtual SMTP servers and their credentials."""
