#!/usr/bin/env bash
# Judge a change to boards in git: entries are only ever added, every entry is recomputed, and the site builds.
# Usage: check-boards.sh [FOLDER OF BOARDS] [BRANCH THE CHANGE GOES TO]
set -euo pipefail
boards=${1:-leaderboards}
base=${2:-origin/main}

changed=$(git diff --name-status --no-renames --diff-filter=a "$(git merge-base "$base" HEAD)" HEAD -- \
  "$boards/*/entries/*" "$boards/*/ids/*")
if [ -n "$changed" ]; then
  echo "entries are never changed or removed; add a new one that supersedes the old:" >&2
  echo "$changed" >&2
  exit 6
fi

robusteval board check --boards "$boards"
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
robusteval board build --boards "$boards" --out "$site"
robusteval board build --boards "$boards" --out "$site" --check
