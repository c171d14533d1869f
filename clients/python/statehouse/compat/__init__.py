"""Stand-ins for what other systems offer."""
