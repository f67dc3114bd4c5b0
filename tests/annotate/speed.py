"""From a key to the next picture, in chromium: `python -m tests.annotate.speed`.

Measured in the page, from the key's time stamp to the drawn canvas, with a pause between keys as a
quick annotator makes one. Pictures are made ones of 400 x 300 pixels.
"""

import argparse
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

from tests.annotate.hand_made import made_store
from tests.annotate.light_server import LightServer

PAUSE_MILLISECONDS = 400
NOTE_TIMES = """() => {
  window.times = [];
  let pressed = null;
  document.addEventListener('keydown', (event) => { pressed = event.timeStamp; }, true);
  new MutationObserver(() => {
    if (pressed !== null) window.times.push(performance.now() - pressed);
    pressed = null;
  }).observe(document.querySelector('canvas'), { attributeFilter: ['data-query'] });
}"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--keys", type=int, default=200)
    keys = parser.parse_args().keys
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "answers.sqlite"
        made_store(path, images=keys // 8 + 1, each=12).close()
        server = LightServer(path)
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(server.links["ada"])
            page.wait_for_url("**/")
            page.wait_for_selector("canvas[data-query^=q]")
            page.evaluate(NOTE_TIMES)
            for _ in range(keys):
                page.keyboard.press("s")
                page.wait_for_timeout(PAUSE_MILLISECONDS)
            times = page.evaluate("window.times")
        finally:
            server.kill()
    p50, p95 = np.percentile(times, [50, 95])
    print(f"load of the machine {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    print(f"{len(times)} keys: p50 {p50:.1f} ms, p95 {p95:.1f} ms (idle: at most 30 and 100 ms)")


if __name__ == "__main__":
    main()
