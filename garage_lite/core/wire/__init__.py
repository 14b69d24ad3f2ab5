"""The peer protocol as arithmetic on bytes: addresses, handshake, frames, messages. No sockets."""
