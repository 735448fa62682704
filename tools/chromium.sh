#!/bin/sh
# Install Chromium and its driver for tests/test_browser.py, where this is Debian or like it and we
# are root. Elsewhere, or if that fails, nothing happens: the test is then skipped and says why.

if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then exit 0; fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then exit 0; fi
echo "Installing Chromium for the test in a real browser."
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver; } >/dev/null; then
	echo "Chromium could not be installed; its test will be skipped." >&2
fi
exit 0
