"""The message log: messages, deliveries, events and their statistics, as relays told them."""
