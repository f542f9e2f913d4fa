"""One file for each resource. A view declares, then delegates."""
