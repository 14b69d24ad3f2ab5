"""Real S3 clients, as people use them, against a real node. What goes in is what comes out."""
