"""The traffic of `just load`, for Locust: what clients of a shop's API do, with expected answers.

A response that is not the expected one counts as failed, so the share of failures that `run.py`
checks is the share of surprises and not of statuses. This file does not know: the gateway, limits.
"""

import random

from locust import FastHttpUser, constant_pacing, task

KEY = {"x-api-key": "s3cret"}
ORDER = {"item": "book", "count": 2, "note": "x" * 900}


class Visitor(FastHttpUser):
    """Reads, orders, and sometimes does what it must not."""

    wait_time = constant_pacing(0.2)  # five requests per second for each user

    def expect(self, status, method, path, **arguments):
        """Sends a request whose answer must have this status."""
        name = f"{method} {path.split('?')[0].rsplit('/', 1)[0] or path}"
        with self.client.request(method, path, name=name, catch_response=True, **arguments) as response:
            if response.status_code == status:
                response.success()
            else:
                response.failure(f"{response.status_code} instead of {status}")

    @task(60)
    def read(self):
        self.expect(200, "GET", f"/items/{random.randrange(10**6)}?page={random.randrange(50)}")

    @task(20)
    def read_with_key(self):
        self.expect(200, "GET", f"/account/{random.randrange(10**6)}", headers=KEY)

    @task(10)
    def order(self):
        self.expect(200, "POST", "/account/orders", headers=KEY, json=ORDER)

    @task(5)
    def upload(self):
        self.expect(200, "POST", "/items/upload", data=b"x" * 200_000)

    @task(3)
    def wrong_key(self):
        self.expect(401, "GET", f"/account/{random.randrange(10**6)}", headers={"x-api-key": "wrong"})

    @task(2)
    def unknown(self):
        self.expect(404, "GET", "/nowhere/at-all")
