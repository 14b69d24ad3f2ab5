"""What was acknowledged is still there, whatever happened to the process."""
