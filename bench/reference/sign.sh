#!/usr/bin/env bash
# The script that many have: signs an assertion with pkcs11-tool, base64 and printf.
#   bash sign.sh MODULE TOKEN-LABEL KEY-ID PIN-FILE ISSUER AUDIENCE
set -euo pipefail

module=$1
token=$2
key_id=$3 # pkcs11-tool 0.23 takes the first private key, whatever --label says
pin=$(cat "$4")
iss=$5
aud=$6

base64url() { base64 -w0 | tr '+/' '-_' | tr -d '='; }

now=$(date +%s)
jti=$(cat /proc/sys/kernel/random/uuid)
header=$(printf '{"typ":"JWT","alg":"RS256"}' | base64url)
claims=$(
  printf '{"iss":"%s","sub":"%s","aud":"%s","exp":%d,"iat":%d,"jti":"%s"}' \
    "$iss" "$iss" "$aud" $((now + 300)) "$now" "$jti" | base64url
)
signature=$(
  printf '%s' "$header.$claims" |
    pkcs11-tool --module "$module" --token-label "$token" --login --pin "$pin" \
      --sign --mechanism SHA256-RSA-PKCS --id "$key_id" 2>/dev/null | base64url
)
printf '%s\n' "$header.$claims.$signature"
