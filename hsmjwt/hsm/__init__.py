"""Talks to PKCS#11 tokens: finds keys, logs in without harm, signs."""
