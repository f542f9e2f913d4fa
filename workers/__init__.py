"""The workers: they claim jobs, run the handlers and store the results."""
