"""What consoles, openssl and certification authorities take and give: public keys, certificates, requests."""
