#!/usr/bin/env bash
# Runs every test. Installs what they need from Debian's packages where it is missing, saying what.
# Arguments go to `cargo test`: ./test.sh outage
set -euo pipefail
cd "$(dirname "$0")"

# command -> Debian package that brings it
declare -A needs=(
  [mosquitto]=mosquitto
  [mosquitto_sub]=mosquitto-clients
  [mosquitto_passwd]=mosquitto
  [nats-server]=nats-server
  [rabbitmq-server]=rabbitmq-server
  [stdbuf]=coreutils
  [cc]=gcc
  [chromium]=chromium
)

missing=()
for program in "${!needs[@]}"; do
  PATH="$PATH:/usr/sbin" command -v "$program" >/dev/null || missing+=("${needs[$program]}")
done
# A library for Debian's Python, so there is no command to look for.
/usr/bin/python3 -c 'import paho.mqtt.client' 2>/dev/null || missing+=(python3-paho-mqtt)
if [ ${#missing[@]} -gt 0 ]; then
  mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
  echo "test.sh: installing Debian packages that the tests need: ${missing[*]}"
  [ "$(id -u)" = 0 ] || { echo "test.sh: run as root, or: sudo apt-get install ${missing[*]}"; exit 1; }
  export DEBIAN_FRONTEND=noninteractive
  # Packages start no services of their own while they are being installed: the tests start theirs.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod +x "$policy"
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
export PATH="$PATH:/usr/sbin"

cargo test --workspace --locked "$@"
