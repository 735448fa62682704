"""Take slides/demo.png and slides/demo.zh.png, what slides/demo.html shows as it opens in English
and in Chinese: a slide's fallback.

Started by `make demo` after the page is built; without Chromium the pictures stay as they are.
"""

import base64
import shutil
import tempfile

from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

from tools.files import replacing
from tools.pictures import slim_png

from .build import PAGE

PICTURES = {"": PAGE.with_suffix(".png"), "#zh": PAGE.with_suffix(".zh.png")}  # by the address' end
SIZE = {"width": 1280, "height": 720, "deviceScaleFactor": 1.5, "mobile": False}
DRAWN = "return !!workers && !state.wanted.length && !workers.some(worker => worker.busy)"


def picture(end):
    """The PNG's bytes of the page at an address with this `end`, when the whole curve is drawn;
    `RuntimeError` if there is no Chromium."""
    browsers = [path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))]
    driver = shutil.which("chromedriver")
    if not (browsers and driver):
        raise RuntimeError("no Chromium: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browsers[0]
    with tempfile.TemporaryDirectory() as profile:
        for option in ("--headless=new", "--no-sandbox", "--disable-gpu"):
            options.add_argument(option)
        options.add_argument(f"--user-data-dir={profile}")
        browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
        try:
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", SIZE)
            browser.get(PAGE.as_uri() + end)
            WebDriverWait(browser, 60).until(lambda b: b.execute_script(DRAWN))
            shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        finally:
            browser.quit()
    return slim_png(base64.b64decode(shot["data"]))


def main():
    """Write the pictures."""
    for end, path in PICTURES.items():
        try:
            content = picture(end)
        except RuntimeError as error:
            print(f"{path.name} stays as it is: {error}")
            continue
        with replacing(path) as temporary:
            temporary.write_bytes(content)
        print(f"{path.name}: {len(content) / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
