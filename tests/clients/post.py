"""Sends 8 MB to HOST:PORT PATH, COUNT times, each on a new connection, and prints the statuses.

Python's http.client sends the whole body before it reads.
"""

import http.client
import sys

address, path, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
for _ in range(count):
    connection = http.client.HTTPConnection(address, timeout=20)
    try:
        connection.request("POST", path, body=b"x" * 8_000_000)
        print(connection.getresponse().status)
    except OSError as error:
        print(f"{type(error).__name__}: {error}".replace("\n", " "))
    connection.close()
