"""The console's end of the link: what relays are told, and what they tell."""
