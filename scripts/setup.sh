#!/usr/bin/env bash
# Makes a fresh Debian 12 with Node >= 20.19 ready, then builds. Repeated: checks only, well under
# two seconds.
#
#   scripts/setup.sh start|test|bench
#
# Needs the network only for what is missing. System packages are installed by apt when root;
# otherwise the script says exactly what is missing and what will not work, and goes on.
set -euo pipefail
cd "$(dirname "$0")/.."
purpose="${1:-start}"
case "$purpose" in
  start | test | bench) ;;
  *) echo "usage: scripts/setup.sh start|test|bench" >&2; exit 2 ;;
esac
say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: error: %s\n' "$*" >&2; exit 1; }

# Two set-ups in one checkout take turns: the lock is on this very file and ends with the process.
if command -v flock >/dev/null; then exec 9<"scripts/setup.sh" && flock 9; fi

# --- Node
command -v node >/dev/null ||
  fail "Node is not installed; Node >= 20.19 is needed (https://nodejs.org)"
node -e 'const [a, b] = process.versions.node.split(".").map(Number);
  process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)' ||
  fail "Node $(node --version) is too old; Node >= 20.19 is needed"

# --- system packages
# package | how we see that it is there | who needs it | what for. Every purpose builds, so `start`
# is in all.
packages() {
  cat <<'TABLE'
g++|cmd:g++|start|compiles the native module
util-linux|cmd:losetup|start|losetup: the block device of a volume
fuse3|cmd:fusermount3|start|FUSE: the block device where the kernel has neither ublk nor nbd
e2fsprogs|cmd:mkfs.ext4|start|mkfs.ext4 for a file system on the demo device
libnbd-bin|cmd:nbdinfo|start|nbdinfo and nbdcopy: real NBD clients
openssl|cmd:openssl|test|certificates for the TLS tests
xfsprogs|cmd:mkfs.xfs|test|XFS on the device
strace|cmd:strace|test|traces that a FLUSH becomes a device flush
iproute2|cmd:ip|test|hosts as network namespaces for fault tests
nftables|cmd:nft|test|cuts and losses between them
faketime|cmd:faketime|test|clocks that differ by years
nbdkit|cmd:nbdkit|test bench|reference NBD server
qemu-utils|cmd:qemu-nbd|test bench|qemu-img and qemu-nbd: NBD client and peer
fio|cmd:fio|test bench|load and verification through its nbd engine
postgresql|file:/usr/lib/postgresql/*/bin/initdb|test|a real database on the device
TABLE
}
wanted_for() { case " $1 " in *" start "* | *" $purpose "*) return 0 ;; *) return 1 ;; esac; }
present() {
  case "$1" in
    cmd:*) PATH="$PATH:/usr/sbin:/sbin" command -v "${1#cmd:}" >/dev/null ;;
    file:*) compgen -G "${1#file:}" >/dev/null ;;
  esac
}

missing=()
while IFS='|' read -r package probe purposes reason; do
  wanted_for "$purposes" || continue
  present "$probe" && continue
  missing+=("$package")
  say "missing: $package ($reason)"
done < <(packages)

apt_install() {
  local apt=(apt-get -o DPkg::Lock::Timeout=120 -y -q --no-install-recommends)
  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 # RUNLEVEL=1: a packaged service is not started
  if ! "${apt[@]}" --simulate install "$@" >/dev/null 2>&1; then apt-get -q update 9<&-; fi
  "${apt[@]}" install "$@" 9<&- && return 0
  say "apt-get failed; trying once more with fresh package lists"
  apt-get -q update 9<&- && "${apt[@]}" install "$@" 9<&-
}

if [ "${#missing[@]}" -gt 0 ]; then
  if [ "$(id -u)" != 0 ]; then
    say "not root, so these are not installed; as root: apt-get install ${missing[*]}"
    say "what is named above will not work until then"
  elif ! command -v apt-get >/dev/null; then
    say "no apt-get on this system; install with its own package manager: ${missing[*]}"
  else
    say "installing ${missing[*]}"
    apt_install "${missing[@]}" || say "apt-get failed; what is named above will not work"
  fi
fi

# --- npm packages: exactly the lock file's; no dependency runs an install script
if reason="$(node scripts/check-modules.mjs)"; then :; else
  say "npm ci ($reason)"
  npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier
fi

# --- build: each step only when its sources are not those of its last success
# prints NAME SUFFIXES PATHS...: names, times and sizes of the sources, so that a deleted or an
# older file counts, too.
prints() {
  local names=(-false) suffix
  for suffix in $2; do names+=(-o -name "*.$suffix"); done
  shift 2
  echo "$node_abi"
  find "$@" \( -name build -o -name 'build-*' -o -name 'generated*' \) -prune -o \
    -type f \( "${names[@]}" \) -printf '%p %T@ %s\n' | LC_ALL=C sort
}
built() { [ -f "dist/.built-$1" ] && [ "$(cat "dist/.built-$1")" = "$2" ]; }
# build NAME PRINTS: the prints were taken before the build, so an edit during it is seen next time.
build() {
  say "building $1"
  npm run --silent "build:$1"
  mkdir -p dist
  printf '%s\n' "$2" >"dist/.built-$1"
}
node_abi="$(node -p 'process.versions.modules + " " + process.arch')"
typed=(common proto native replica engine csi-driver cli bench test)
proto_now="$(prints proto "proto mjs json" proto scripts package-lock.json)"
native_now="$(prints native "cc h c gyp mjs" native scripts)"
ts_now="$(prints ts "ts json" "${typed[@]}" tsconfig.json package-lock.json)"
if ! built proto "$proto_now" || [ ! -d proto/generated ]; then
  build proto "$proto_now"
  rm -f dist/.built-ts
fi
if ! built native "$native_now" || ! compgen -G 'native/build/*/*.node' >/dev/null; then
  build native "$native_now"
fi
built ts "$ts_now" || build ts "$ts_now"
