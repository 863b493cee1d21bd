#!/usr/bin/env bash
# Installs Slurm's daemons (13 MB) for the cluster tests where that can be done: as root, with apt. Elsewhere those tests
# skip by name. It never fails: a machine without a network still runs all other tests.
set -u
export PATH=$PATH:/usr/sbin:/sbin DEBIAN_FRONTEND=noninteractive
packages="slurmctld slurmd slurm-client munge"
command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v sbatch >/dev/null && command -v munged >/dev/null && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "Slurm's tests will be skipped: as root on Debian, apt-get install $packages"
  exit 0
fi
# nothing may start by itself: the tests run daemons of their own, on loopback
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
  trap 'rm -f "$policy"' EXIT
fi
install() { apt-get install --yes --quiet=2 --no-install-recommends $packages >/dev/null 2>&1; }
install || { apt-get update --quiet=2 >/dev/null 2>&1; install; } || echo "Slurm's tests will be skipped: apt-get install $packages failed"
exit 0
