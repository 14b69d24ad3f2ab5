"""Other nodes: connections, calls, and who this node is among them. Only importer of sockets."""
