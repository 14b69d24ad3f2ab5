"""The admin port: operations in JSON, that the command line calls too, and a status page."""
