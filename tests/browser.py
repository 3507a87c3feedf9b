"""Headless Chromium by the WebDriver protocol: pages without a network, at any width, light or dark."""

import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request

DRIVER, BROWSER = shutil.which("chromedriver"), shutil.which("chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]
TAB = {"key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}


class Chromium:
    """One window; leave it by `with`."""

    def __enter__(self):
        self.profile = tempfile.mkdtemp(prefix="chromium-")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.driver = subprocess.Popen([DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.root, self.session = f"http://127.0.0.1:{port}", ""
        self._ready()
        options = {"binary": BROWSER, "args": [*FLAGS, f"--user-data-dir={self.profile}"]}
        requested = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        self.session = self._send("POST", "/session", {"capabilities": {"alwaysMatch": requested}})["sessionId"]
        return self

    def __exit__(self, *exception):
        self._send("DELETE", f"/session/{self.session}")
        self.driver.terminate()
        self.driver.wait(30)
        shutil.rmtree(self.profile, ignore_errors=True)

    def open(self, url, *, width=1280, height=900, dark=False):
        """Load a page; what was logged before is forgotten."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        scheme += [{"name": "prefers-reduced-motion", "value": "reduce"}]
        self.devtools("Emulation.setDeviceMetricsOverride", **size)
        self.devtools("Emulation.setEmulatedMedia", features=scheme)
        self.logged("browser"), self.logged("performance")
        self._post("url", url=url)

    def run(self, script, *arguments):
        """The value that a script returns."""
        return self._post("execute/sync", script=script, args=list(arguments))

    def press_tab(self):
        """Move the focus as a keyboard does."""
        for kind in ("keyDown", "keyUp"):
            self.devtools("Input.dispatchKeyEvent", type=kind, **TAB)

    def errors(self):
        """What the console says since the page was opened, but for notes."""
        return [line["message"] for line in self.logged("browser") if line["level"] in ("SEVERE", "WARNING")]

    def requests(self):
        """What the page asked for since it was opened."""
        events = [json.loads(line["message"])["message"] for line in self.logged("performance")]
        sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [request["request"]["url"] for request in sent]

    def logged(self, kind):
        """The lines of a log, once."""
        return self._post("se/log", type=kind)

    def devtools(self, command, **parameters):
        """One command of the DevTools protocol."""
        return self._post("goog/cdp/execute", cmd=command, params=parameters)

    def _post(self, command, **parameters):
        return self._send("POST", f"/session/{self.session}/{command}", parameters)

    def _send(self, method, path, content=None):
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self.root + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.load(answer)["value"]

    def _ready(self):
        for _ in range(200):
            try:
                if self._send("GET", "/status")["ready"]:
                    return
            except OSError:
                time.sleep(0.1)
        raise TimeoutError("chromedriver does not answer")
