"""`just load [SECONDS] [PEAK]`: Locust and vegeta against a gateway with filters, and thresholds.

The run has two halves of SECONDS / 2 each: Locust sends the traffic of `scenario.py`, then vegeta
sends GETs at a constant rate. Both together are 1.5 times PEAK (requests per second) in each half.
An hour at 1.5 times the peak is what a release needs: `just load 3600 PEAK`.

Thresholds: P50 4 ms and P99 12 ms at the client, at most 1% unexpected answers, less than 1% failed
calls of each filter, no call above its memory limit, no dropped log line, memory that grows by less
than 1% in 10 minutes (from runs of 20 minutes on), descriptors back to where they were. Exits with
1 if one is missed. With `--figures`, only prints them: on a busy machine latency says nothing.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = ROOT / "target/tools"
WITGATE = os.environ.get("WITGATE", ROOT / "target/release/witgate")  # as in the end-to-end tests
GUESTS = ROOT / "guests/dist"
P50_MS, P99_MS = 4.0, 12.0
FAILED_SHARE = 0.01
GROWTH_PERCENT = 1.0
GROWTH_SECONDS_MIN = 1200
REQUESTS_PER_USER = 5  # `constant_pacing` of the scenario

ENDPOINT = """
listeners: [{{address: "127.0.0.1:0"}}]
admin: off
workers: 1
log: {{format: json, level: error, access: off}}
state: {{directory: {folder}/state-{name}}}
upstreams: {{echo: {{builtin: echo}}}}
routes: [{{upstream: echo}}]
"""

GATEWAY = """
listeners: [{{address: "127.0.0.1:0"}}]
admin: {{address: "127.0.0.1:0"}}
log: {{format: json, level: warn, access: {{to: {{file: {folder}/access.log}}, sample: 0.01}}}}
state: {{directory: {root}/target/e2e-state}}
timeouts: {{filters: 3s}}
filters:
  api-key: {{source: {guests}/typescript/api-key.wasm, timeout: 1s, config: {{key: s3cret}}}}
  redact: {{source: {guests}/python/redact.wasm, timeout: 2s}}
  headers: {{source: {guests}/rust/security-headers.wasm, timeout: 1s}}
upstreams: {{shop: {{endpoints: [{endpoints}], timeout: 10s}}}}
routes:
  - {{name: items, match: {{path: /items}}, filters: [headers], upstream: shop}}
  - {{name: account, match: {{path: /account}}, filters: [api-key, redact], upstream: shop}}
"""


class Process:
    """A running gateway, with its addresses by listener."""

    def __init__(self, folder, name, config):
        path = pathlib.Path(folder) / f"{name}.yaml"
        path.write_text(config)
        log = open(pathlib.Path(folder) / f"{name}.log", "w")
        self.child = subprocess.Popen(
            [WITGATE, "run", "--config", path], stdout=subprocess.PIPE, stderr=log, text=True)
        self.addresses = {}
        for line in self.child.stdout:
            line = json.loads(line)
            if line["message"] == "ready":
                return
            self.addresses[line["listener"]] = line["url"].split("://")[1]
        raise SystemExit(f"{name} did not start:\n{(pathlib.Path(folder) / f'{name}.log').read_text()}")

    def metrics(self):
        """The values by series."""
        with urllib.request.urlopen(f"http://{self.addresses['admin']}/metrics", timeout=10) as response:
            lines = response.read().decode().splitlines()
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if not line.startswith("#")}

    def resident(self):
        status = pathlib.Path(f"/proc/{self.child.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024

    def descriptors(self):
        return len(list(pathlib.Path(f"/proc/{self.child.pid}/fd").iterdir()))

    def end(self):
        self.child.terminate()
        self.child.wait(timeout=60)


def watch(gateway, stop, samples):
    """Notes the resident memory every second."""
    began = time.monotonic()
    while not stop.wait(1.0):
        samples.append((time.monotonic() - began, gateway.resident()))


def growth(samples, seconds):
    """The slope of a line through the samples after a quarter of the run, in % of 10 minutes."""
    points = [point for point in samples if point[0] > seconds / 4]
    x = sum(at for at, _ in points) / len(points)
    y = sum(size for _, size in points) / len(points)
    slope = sum((at - x) * (size - y) for at, size in points) / sum((at - x) ** 2 for at, _ in points)
    return slope * 600 / y * 100


def run_locust(url, rate, seconds):
    users = max(1, round(rate / REQUESTS_PER_USER))
    command = [TOOLS / "load/bin/locust", "-f", ROOT / "tests/load/scenario.py", "--headless", "--json", "--host", url,
               "--users", str(users), "--spawn-rate", str(max(1, users // 5)), "--run-time", f"{seconds}s",
               "--exit-code-on-error", "0", "--loglevel", "ERROR"]
    entries = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    times = {}
    for entry in entries:
        for milliseconds, count in entry["response_times"].items():
            times[float(milliseconds)] = times.get(float(milliseconds), 0) + count
    total = sum(entry["num_requests"] for entry in entries)
    failed = sum(entry["num_failures"] for entry in entries)
    return {"requests": total, "failed": failed, "p50": quantile(times, 0.5), "p99": quantile(times, 0.99),
            "rate": total / seconds}


def quantile(times, share):
    """Of a table from values to their number."""
    left = share * sum(times.values())
    for value in sorted(times):
        left -= times[value]
        if left <= 0:
            return value
    return float("nan")


def run_vegeta(url, rate, seconds):
    targets = "".join(f"GET {url}/items/{index}\n\n" for index in range(1000))
    attack = subprocess.run([TOOLS / "vegeta", "attack", "-rate", str(rate), "-duration", f"{seconds}s"],
                            input=targets.encode(), check=True, capture_output=True)
    report = subprocess.run([TOOLS / "vegeta", "report", "-type", "json"], input=attack.stdout, check=True,
                            capture_output=True)
    report = json.loads(report.stdout)
    return {"requests": report["requests"], "failed": round(report["requests"] * (1 - report["success"])),
            "p50": report["latencies"]["50th"] / 1e6, "p99": report["latencies"]["99th"] / 1e6,
            "rate": report["rate"]}


def filter_values(metrics, name):
    """The sums of a metric by filter."""
    sums = {}
    for series, value in metrics.items():
        found = re.match(name + r'\{filter="([^"]+)"', series)
        if found:
            sums[found[1]] = sums.get(found[1], 0) + value
    return sums


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seconds", nargs="?", type=int, default=120)
    parser.add_argument("peak", nargs="?", type=int, default=200, help="requests per second")
    parser.add_argument("--figures", action="store_true", help="print figures, and do not check latency")
    options = parser.parse_args()
    half, rate = max(5, options.seconds // 2), round(options.peak * 1.5)
    misses = []

    def check(what, value, limit, text, counts=True):
        is_met = value <= limit
        print(f"{'ok  ' if is_met else 'MISS' if counts else 'info'}  {what}: {text}")
        if not is_met and counts:
            misses.append(what)

    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())

        def start(name, config, **values):
            process = Process(folder, name, config.format(folder=folder, name=name, **values))
            stack.callback(process.end)
            return process

        endpoints = [start(name, ENDPOINT) for name in ("endpoint-a", "endpoint-b")]
        urls = ", ".join(f'"http://{endpoint.addresses["main"]}"' for endpoint in endpoints)
        gateway = start("gateway", GATEWAY, root=ROOT, guests=GUESTS, endpoints=urls)
        url, stop, samples = f"http://{gateway.addresses['main']}", threading.Event(), []
        descriptors = gateway.descriptors()
        watcher = threading.Thread(target=watch, args=(gateway, stop, samples))
        watcher.start()
        try:
            for name, run in (("locust", run_locust), ("vegeta", run_vegeta)):
                seen = run(url, rate, half)
                print(f"{name}: {seen['requests']} requests in {half} s, {seen['rate']:.0f}/s")
                latency = not options.figures
                check(f"{name} P50", seen["p50"], P50_MS, f"{seen['p50']:.1f} ms, at most {P50_MS} ms", latency)
                check(f"{name} P99", seen["p99"], P99_MS, f"{seen['p99']:.1f} ms, at most {P99_MS} ms", latency)
                share = seen["failed"] / max(1, seen["requests"])
                check(f"{name} unexpected answers", share, FAILED_SHARE, f"{seen['failed']}, at most {FAILED_SHARE:.0%}")
            metrics = gateway.metrics()
            calls, errors = filter_values(metrics, "witgate_filter_calls_total"), {}
            for name, count in filter_values(metrics, "witgate_filter_errors_total").items():
                errors[name] = count / max(1, calls.get(name, 0))
            for name, share in sorted(errors.items()):
                check(f"plugin_error_rate of {name}", share, FAILED_SHARE, f"{share:.2%} of {calls.get(name, 0):.0f} calls")
            oom = sum(value for series, value in metrics.items() if re.match(r'witgate_filter_errors_total.*kind="memory"', series))
            check("plugin_oom_total", oom, 0, f"{oom:.0f}")
            dropped = sum(value for series, value in metrics.items() if re.search("lines_dropped_total", series))
            check("log lines dropped", dropped, 0, f"{dropped:.0f}")
        finally:
            stop.set()
            watcher.join()
        slope = growth(samples, 2 * half)
        is_long = options.seconds >= GROWTH_SECONDS_MIN
        check("memory", slope, GROWTH_PERCENT, f"{samples[-1][1] / 2**20:.1f} MiB, {slope:+.2f}% in 10 minutes", is_long)
        # Idle connections to the endpoints stay open: at most 64 for each thread and endpoint.
        deadline = time.monotonic() + 60
        while gateway.descriptors() > descriptors + 256 and time.monotonic() < deadline:
            time.sleep(0.5)
        check("descriptors", gateway.descriptors(), descriptors + 256, f"{descriptors}, then {gateway.descriptors()}")
    if misses:
        sys.exit("missed: " + ", ".join(misses))


if __name__ == "__main__":
    main()
