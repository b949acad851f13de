"""gRPC plumbing that every service shares."""
