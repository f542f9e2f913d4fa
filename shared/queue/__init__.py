"""Jobs as a queue: the table, the order of users, the messages to workers, and time estimates."""
