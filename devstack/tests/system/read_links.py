"""Fetches a file by its link with the readers and the programs that people use, and says how many rows each has found.

Arguments: format, compression ("-": none), URL, expected rows, an empty folder. Prints JSON: a number of rows for each reader.
"""

import csv
import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import urllib.request

import pandas
import polars
import pyarrow.ipc
import pyarrow.parquet

kind, compression, url, folder = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[5]
expected = int(sys.argv[4])


def fetched(name, *command):
    """The bytes that a program has written to its file, by default that of its -o or -O."""
    path = os.path.join(folder, name)
    subprocess.run([*command], check=True, cwd=folder, stdout=subprocess.DEVNULL)
    with open(path, "rb") as file:
        return file.read()


def rows_of(data):
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    if kind == "parquet":
        return pyarrow.parquet.read_table(io.BytesIO(data)).num_rows
    if kind == "arrow":
        return pyarrow.ipc.open_stream(data).read_all().num_rows
    if kind == "csv":
        # A value may have line breaks.
        return sum(1 for _ in csv.reader(io.StringIO(data.decode(), newline=""))) - 1
    return data.count(b"\n")


def resumed():
    """`wget -c` goes on with what an earlier try of the same program has left."""
    whole = fetched("whole", "wget", "-q", "-O", "whole", url)
    with open(os.path.join(folder, "wget"), "wb") as file:
        file.write(whole[: len(whole) // 2])
    data = fetched("wget", "wget", "-q", "-c", "-O", "wget", url)
    assert data == whole, "wget -c has put together another file"
    return data


found = {
    "urllib": rows_of(urllib.request.urlopen(url).read()),
    "curl -fL": rows_of(fetched("curl", "curl", "-fsSL", "-o", "curl", url)),
    "wget -c": rows_of(resumed()),
}
if shutil.which("aria2c"):
    found["aria2c -x4"] = rows_of(
        fetched("aria2", "aria2c", "-q", "-x4", "-s4", "-k1M", "-d", folder, "-o", "aria2", url)
    )
if kind == "parquet":
    found["polars"] = polars.read_parquet(url).height
    found["polars, lazily"] = polars.scan_parquet(url).select(polars.len()).collect().item()
    found["pandas"] = len(pandas.read_parquet(url))
    found["pyarrow"] = pyarrow.parquet.read_table(io.BytesIO(urllib.request.urlopen(url).read())).num_rows
elif kind == "csv":
    found["polars"] = polars.read_csv(url).height
    found["pandas"] = len(pandas.read_csv(url, compression="infer"))
elif kind == "jsonl":
    found["pandas"] = len(pandas.read_json(url, lines=True))
assert set(found.values()) == {expected}, found
print(json.dumps(found), flush=True)
# The threads of two readers in one process abort it now and then while it ends.
os._exit(0)
