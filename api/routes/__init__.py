"""One file for each resource. A view declares what it takes and returns, then calls the domain."""
