#!/usr/bin/env bash
# Installs SoftHSM2 where it is absent:          bash softhsm/install.sh
# and further Debian packages along with it:     bash softhsm/install.sh softhsm2 python3-venv
# It runs apt-get by itself on Debian 12 only, the one system it was tried on. Elsewhere it prints the command that
# would install SoftHSM2 there, and stops with exit code 1. script/setup.sh takes these functions from here.

say() { printf 'hsmjwt set-up: %s\n' "$*" >&2; }

# Print where SoftHSM2's module is, among the places that hsmjwt itself looks at.
softhsm_module() {
  local folder module
  for folder in /usr/lib/x86_64-linux-gnu /usr/lib/aarch64-linux-gnu /usr/lib64 /usr/lib /usr/local/lib /opt/homebrew/lib; do
    for module in "$folder/softhsm/libsofthsm2.so" "$folder/pkcs11/libsofthsm2.so"; do
      if [ -r "$module" ]; then
        printf '%s\n' "$module"
        return 0
      fi
    done
  done
  return 1
}

# Print "ID VERSION FAMILY…" of this system, such as "debian 12 " or "ubuntu 24.04 debian".
system() {
  if [ -r /etc/os-release ]; then
    (
      unset ID VERSION_ID ID_LIKE
      . /etc/os-release
      printf '%s %s %s\n' "${ID:-unknown}" "${VERSION_ID:-none}" "${ID_LIKE:-}"
    )
  elif [ "$(uname -s)" = Darwin ]; then
    printf 'macos none \n'
  else
    printf 'unknown none \n'
  fi
}

# Print the one command that installs the packages $2… (by Debian's names) on the system $1; fail where none is known.
install_command() {
  local on=" $1 " packages sudo='sudo '
  shift
  packages=" $* "
  [ "$(id -u)" != 0 ] || sudo=
  case "$on" in
    *" debian "* | *" ubuntu "*)
      printf '%sapt-get update && %sapt-get install -y --no-install-recommends%s\n' "$sudo" "$sudo" "${packages% }"
      return
      ;;
  esac
  # Elsewhere SoftHSM2 is called softhsm, and venv is a part of Python.
  packages=${packages/ softhsm2 / softhsm }
  packages=${packages/ python3-venv / }
  packages=${packages% }
  case "$on" in
    *" fedora "* | *" rhel "* | *" centos "*) printf '%sdnf install -y%s\n' "$sudo" "$packages" ;;
    *" alpine "*) printf '%sapk add%s\n' "$sudo" "$packages" ;;
    *" arch "*) printf '%spacman -S --needed%s\n' "$sudo" "$packages" ;;
    *" suse "* | *" opensuse "*) printf '%szypper install%s\n' "$sudo" "$packages" ;;
    *" macos "*) printf 'brew install%s\n' "$packages" ;;
    *) return 1 ;;
  esac
}

# Run apt-get as root and keep what it says in $said.
apt_get() {
  local sudo=()
  [ "$(id -u)" = 0 ] || sudo=(sudo)
  said=$(${sudo[@]+"${sudo[@]}"} env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 "$@" 2>&1)
}

# Install the Debian packages $@, or print the one command that would.
install_packages() {
  local on command said install=(install -y --no-install-recommends "$@")
  on=$(system)
  if ! command=$(install_command "$on" "$@"); then
    say "absent: $*; install them in this system's own way (SoftHSM2 2.6 or later), then run this again"
    return 1
  fi
  case "$on" in
    "debian 12 "*) ;;
    *)
      say "absent: $*; only Debian 12 was tried, so here nothing is installed by itself; run this, then this script again:"
      printf '  %s\n' "$command" >&2
      return 1
      ;;
  esac
  if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
    say "absent: $*; there is no sudo here, so run this as root, then this script again:"
    printf '  %s\n' "${command//sudo /}" >&2
    return 1
  fi
  if [ "$(id -u)" = 0 ]; then
    say "absent: $*; installing with apt-get"
  else
    say "absent: $*; installing with sudo apt-get, which may ask for your password"
  fi
  # A fresh machine has no package lists, and old lists name files that are gone: only then are they renewed.
  apt_get "${install[@]}" || { say "renewing the package lists: apt-get update" && apt_get update && apt_get "${install[@]}"; } || {
    printf '%s\n' "$said" >&2
    say "apt-get failed, as it says above"
    return 1
  }
}

# Executed, neither sourced by script/setup.sh nor by a test.
if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  set -eu
  [ $# -gt 0 ] || set -- softhsm2
  if [ "$*" = softhsm2 ] && module=$(softhsm_module); then
    say "SoftHSM2 is here: $module"
  else
    install_packages "$@"
  fi
fi
