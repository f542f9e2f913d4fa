"""What talks to the outside: database, object store, secrets, picture decoder, logs, and where webhooks may go."""
