"""Downloads over one connection, slowly, and the rest at once when told: download.py URL FILE GO

Reads 8 MB/s until the file GO exists, but keeps the last tenth until then, so
that the download spans whatever happens meanwhile, on a slow machine too.
"""

import os
import sys
import time
import urllib.request

url, target, go = sys.argv[1:]
CHUNK, PERIOD = 80_000, 0.01
with urllib.request.urlopen(url, timeout=30) as answer, open(target, "wb") as output:
    total = int(answer.headers["Content-Length"])
    while not os.path.exists(go):
        if output.tell() < total * 9 // 10:
            output.write(answer.read(CHUNK))
        time.sleep(PERIOD)
    while chunk := answer.read(1 << 20):
        output.write(chunk)
