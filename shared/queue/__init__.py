"""Jobs as a queue: the table, who is next, the messages, and how long it takes."""
