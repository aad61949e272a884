"""Reads one export with every reader that people use for its format, to the end, and compares all of them with what
PostgreSQL said, value by value.

usage: compare_readers.py FORMAT plain|gzip|zstd FILE EXPECTED
       compare_readers.py schema FILE

EXPECTED has a JSON object a row: of every column its name and PostgreSQL's own text, arrays as lists of texts, bytes as
hex. The second form prints a Parquet file's columns with their types, as pyarrow names them.
"""

import datetime
import decimal
import io
import json
import math
import sys

from reload import unframe

EXACT = decimal.Context(prec=200)


def plain(value):
    """A value of any reader as text, one text a value: numbers without trailing zeros, times in UTC with microseconds."""
    import numpy
    import pandas

    if value is None or value is pandas.NaT or value is pandas.NA:
        return None
    if isinstance(value, (list, tuple, numpy.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, (bool, numpy.bool_)):
        return "true" if value else "false"
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    if isinstance(value, (numpy.datetime64, pandas.Timestamp)):
        value = pandas.Timestamp(value)
        assert value.nanosecond == 0
        value = value.to_pydatetime()
    if isinstance(value, (numpy.timedelta64, datetime.timedelta)):
        value = (datetime.datetime(2000, 1, 1) + pandas.Timedelta(value).to_pytimedelta()).time()
    if isinstance(value, datetime.datetime):
        if value.tzinfo is not None:
            value = value.astimezone(datetime.timezone.utc).replace(tzinfo=None)
        return value.isoformat(timespec="microseconds")
    if isinstance(value, datetime.time):
        return value.isoformat(timespec="microseconds")
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, numpy.float32):
        value = float(str(value))
    if isinstance(value, (float, numpy.floating)):
        return repr(float(value)) if math.isnan(value) or math.isinf(value) else number(repr(float(value)))
    if isinstance(value, (int, numpy.integer, decimal.Decimal)):
        return number(str(value))
    return str(value)


def number(text):
    return format(decimal.Decimal(text).normalize(EXACT), "f")


def wanted(value, kind):
    """PostgreSQL's text of a value in the same form."""
    if value is None:
        return None
    if isinstance(value, list):
        return [wanted(item, kind) for item in value]
    if kind in ("number", "single"):
        return repr(float(value)) if value in ("NaN", "Infinity", "-Infinity") else number(value)
    return value


# What the readers are known not to do, each with the kinds it is about.
#   fastparquet: decimals and lists of them become doubles; a UUID is its bytes, which is the same hex.
#   polars, pandas, duckdb: UUID is bytes, a string with hyphens, or uuid.UUID.
def same(reader, kind, got, want):
    if kind == "uuid":
        return got == want or (got or "").replace("-", "") == (want or "").replace("-", "")
    if isinstance(want, list):
        return isinstance(got, list) and len(got) == len(want) and all(same(reader, kind, *pair) for pair in zip(got, want))
    if kind in ("number", "single") and got is not None and want is not None and reader in LOSSY:
        narrow = (lambda x: f"{float(x):.8g}") if kind == "single" else float
        return narrow(got) == narrow(want) or got == want
    if reader == "fastparquet" and kind == "number" and want is None:
        return got in (None, "nan")
    return got == want


# These hand out doubles for some or all numbers; what the file says is read exactly by the others.
LOSSY = ("fastparquet", "orjson", "duckdb json")


def compare(reader, rows, expected, kinds):
    count = 0
    for count, (row, want) in enumerate(zip(rows, expected, strict=True), 1):
        assert list(row) == list(want), f"{reader}: columns {list(row)}"
        for name, value in row.items():
            got, wish = plain(value), wanted(want[name], kinds[name])
            if kinds[name] in ("number", "single") and isinstance(got, str) and got not in ("nan", "inf", "-inf"):
                got = {"NaN": "nan", "Infinity": "inf", "-Infinity": "-inf"}.get(got) or number(got)
            assert same(reader, kinds[name], got, wish), f"{reader}: row {count}, {name}: {got!r} instead of {wish!r}"
    print(f"{reader}: {count} rows")


def parquet(path, expected, kinds):
    import duckdb
    import fastparquet
    import polars
    import pyarrow.parquet

    compare("pyarrow", pyarrow.parquet.read_table(path).to_pylist(), expected, kinds)
    session = duckdb.connect()
    session.execute("SET TimeZone = 'UTC'")
    cursor = session.execute("SELECT * FROM read_parquet(?)", [path])
    names = [field[0] for field in cursor.description]
    compare("duckdb", [dict(zip(names, row)) for row in cursor.fetchall()], expected, kinds)
    compare("polars", polars.read_parquet(path).to_dicts(), expected, kinds)
    frame = fastparquet.ParquetFile(path).to_pandas()
    rows = (dict(zip(frame.columns, row)) for row in frame.itertuples(index=False, name=None))
    compare("fastparquet", rows, expected, kinds)
    # Statistics are there and true: a reader skips row groups by them.
    counted = session.execute("SELECT count(*) FROM read_parquet(?) WHERE id >= 0", [path]).fetchone()
    assert counted == (len(expected),), counted


def csv(path, compression, expected, kinds):
    import csv as standard

    import duckdb
    import pandas

    with open(path, "rb") as file:
        data = unframe(file.read(), compression)
    # These two see no difference between NULL and an empty string; duckdb does.
    blank = [{name: "" if value is None else value for name, value in row.items()} for row in expected]
    rows = list(standard.DictReader(io.StringIO(data.decode("utf-8"), newline=""), strict=True))
    assert_cells("csv", rows, blank, kinds)
    frame = pandas.read_csv(path, dtype=str, keep_default_na=False, compression=None if compression == "plain" else compression)
    assert_cells("pandas", frame.to_dict("records"), blank, kinds)
    cursor = duckdb.connect().execute(
        "SELECT * FROM read_csv(?, header = true, all_varchar = true, delim = ',', quote = '\"', escape = '\"', nullstr = '', "
        "allow_quoted_nulls = false, strict_mode = true, compression = ?)", [path, "none" if compression == "plain" else compression])
    names = [field[0] for field in cursor.description]
    assert_cells("duckdb", [dict(zip(names, row)) for row in cursor.fetchall()], expected, kinds)


def cell(text, kind):
    """A cell in the form of `wanted`."""
    if not text:
        return text
    if kind == "bytes":
        return text.removeprefix("\\x")
    if kind in ("time", "stamp"):
        seconds, _, fraction = text.removesuffix("Z").partition(".")
        return f"{seconds}.{fraction:0<6}"
    return text if kind not in ("number", "single") else wanted(text, kind)


def assert_cells(reader, rows, expected, kinds):
    assert len(rows) == len(expected), f"{reader}: {len(rows)} rows"
    for at, (row, want) in enumerate(zip(rows, expected), 1):
        assert list(row) == list(want), f"{reader}: columns {list(row)}"
        for name, text in row.items():
            kind = kinds[name]
            if kind.endswith("[]"):
                continue
            wish = want[name] if not want[name] else wanted(want[name], kind)
            assert cell(text, kind) == wish, f"{reader}: row {at}, {name}: {text!r} instead of {want[name]!r}"
    print(f"{reader}: {len(rows)} rows")


def json_value(value, kind):
    """A value of a JSON reader in the form of `plain`, by what the column is."""
    if isinstance(value, list) and kind.endswith("[]"):
        return [json_value(item, kind.removesuffix("[]")) for item in value]
    if isinstance(value, str):
        return cell(value, kind)
    if kind == "json" and value is not None:
        return value
    return value


def json_rows(rows, kinds):
    for row in rows:
        yield {name: json_value(value, kinds[name]) for name, value in row.items() if kinds[name] != "json"}


def json_readers(kind, path, compression, expected, kinds):
    import ijson
    import orjson

    with open(path, "rb") as file:
        data = unframe(file.read(), compression)
    trees = [json.loads(row) for row in data.splitlines()] if kind == "jsonl" else json.loads(data)
    if kind == "jsonl":
        exact = ijson.items(io.BytesIO(data), "", multiple_values=True)
        fast = [orjson.loads(line) for line in data.splitlines()]
    else:
        exact, fast = ijson.items(io.BytesIO(data), "item"), orjson.loads(data)
    # What is JSON in the table is the same tree to each of them as it is in PostgreSQL's text.
    for name in (name for name, of in kinds.items() if of == "json"):
        want = [None if row[name] is None else json.loads(row[name]) for row in expected]
        assert [row[name] for row in trees] == want == [row[name] for row in fast], name
    rest = [{name: value for name, value in row.items() if kinds[name] != "json"} for row in expected]
    compare("ijson", json_rows(exact, kinds), rest, kinds)
    compare("orjson", json_rows(fast, kinds), rest, kinds)


def xml(path, compression, expected, kinds):
    import xml.etree.ElementTree as expat

    from lxml import etree

    with open(path, "rb") as file:
        data = unframe(file.read(), compression)
    tree = etree.fromstring(data, etree.XMLParser(recover=False, huge_tree=True))
    for reader, root in (("lxml", tree), ("expat", expat.fromstring(data))):
        rows = [{field.tag: field for field in record} for record in root]
        nil = "{http://www.w3.org/2001/XMLSchema-instance}nil"
        assert len(rows) == len(expected), f"{reader}: {len(rows)} rows"
        for at, (row, want) in enumerate(zip(rows, expected), 1):
            assert list(row) == list(want), f"{reader}: {list(row)}"
            for name, field in row.items():
                if kinds[name] in ("json", "bytes") or kinds[name].endswith("[]"):
                    continue
                got = None if field.get(nil) == "true" else cell(field.text or "", kinds[name])
                wish = wanted(want[name], kinds[name])
                assert got == wish, f"{reader}: row {at}, {name}: {got!r} instead of {wish!r}"
        print(f"{reader}: {len(rows)} rows")


def main():
    if sys.argv[1] == "schema":
        import pyarrow.parquet

        for field in pyarrow.parquet.read_schema(sys.argv[2]):
            print(f"{field.name}: {field.type}")
        return
    kind, compression, path, expected_path = sys.argv[1:]
    with open(expected_path, encoding="utf-8") as file:
        kinds, *expected = map(json.loads, file)
    if kind == "parquet":
        parquet(path, expected, {name: of.removesuffix("[]") for name, of in kinds.items()})
    elif kind == "csv":
        csv(path, compression, expected, kinds)
    elif kind == "xml":
        xml(path, compression, expected, kinds)
    else:
        json_readers(kind, path, compression, expected, kinds)


if __name__ == "__main__":
    main()
