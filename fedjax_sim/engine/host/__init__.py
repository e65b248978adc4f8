"""Examples and client memory that stay on the host."""
