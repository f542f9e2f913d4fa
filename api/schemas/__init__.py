"""The schemas of requests and answers, one file for each resource. Requests with unknown fields are refused."""
