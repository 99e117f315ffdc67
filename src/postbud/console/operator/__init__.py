"""The staff's pages: relays and their queues, accounts and limits, domains to be judged, audit, announcements."""
