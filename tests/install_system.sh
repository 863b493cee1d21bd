#!/usr/bin/env bash
# Installs what some tests need beside Python packages, where that can be done (as root, with apt): Slurm's daemons (13 MB)
# and Chromium. Elsewhere those tests skip by name. It never fails: a machine without a network runs all other tests.
set -u
export PATH=$PATH:/usr/sbin:/sbin DEBIAN_FRONTEND=noninteractive
there() { for program in "$@"; do command -v "$program" >/dev/null || return 1; done; }
packages=""
there slurmctld slurmd sbatch munged || packages="slurmctld slurmd slurm-client munge"
there chromium || there google-chrome || packages="$packages chromium"
[ -z "$packages" ] && exit 0
if [ "$(id -u)" != 0 ] || ! there apt-get; then
  echo "some tests will be skipped; as root on Debian: apt-get install $packages"
  exit 0
fi
# nothing may start by itself: the tests run daemons of their own, on loopback
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
  trap 'rm -f "$policy"' EXIT
fi
install() { apt-get install --yes --quiet=2 --no-install-recommends $packages >/dev/null 2>&1; }
install || { apt-get update --quiet=2 >/dev/null 2>&1; install; } || echo "some tests will be skipped: apt-get install $packages failed"
exit 0
