"""Shows it all at a shell."""
