"""Fixtures that several test files share: a SoftHSM2 token of one's own, and hsmjwt as its user runs it."""
