#!/usr/bin/env bash
# The same as sign.sh by somebody who counts processes: of the programs only base64 and pkcs11-tool are started.
#   bash tight.sh MODULE TOKEN-LABEL KEY-ID PIN-FILE ISSUER AUDIENCE
set -euo pipefail

segment() {
  local text
  text=$(base64 -w0)
  text=${text%%=*}
  text=${text//+/-}
  printf '%s' "${text//\//_}"
}

module=$1 token=$2 key_id=$3 pin=$(<"$4") iss=$5 aud=$6
printf -v now '%(%s)T' -1
jti=$(</proc/sys/kernel/random/uuid)
header=$(printf '{"typ":"JWT","alg":"RS256"}' | segment)
claims=$(printf '{"iss":"%s","sub":"%s","aud":"%s","exp":%d,"iat":%d,"jti":"%s"}' \
  "$iss" "$iss" "$aud" $((now + 300)) "$now" "$jti" | segment)
signature=$(printf '%s' "$header.$claims" |
  pkcs11-tool --module "$module" --token-label "$token" --login --pin "$pin" \
    --sign --mechanism SHA256-RSA-PKCS --id "$key_id" 2>/dev/null | segment)
printf '%s\n' "$header.$claims.$signature"
