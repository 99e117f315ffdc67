"""The spool: accepted mail and its events, durable before anybody hears of it. One folder, one worker, one SQLite file."""
