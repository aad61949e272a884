"""Reads one export with every reader that people use for its format, to the end, and compares all of them with what
PostgreSQL said, value by value.

usage: compare_readers.py FORMAT plain|gzip|zstd FILE EXPECTED
       compare_readers.py schema FILE

EXPECTED has a JSON object a row: of every column its name and PostgreSQL's own text, arrays as lists of texts, bytes as
hex. The second form prints a Parquet file's columns with their types, as pyarrow names them.
"""

import base64
import datetime
import decimal
import gc
import io
import json
import math
import struct
import sys

from reload import NIL, unframe

NUMBERS = ("number", "single", "double")
# These make doubles of decimals, fastparquet by a multiplication that costs a digit; the others are exact.
LOSSY = ("fastparquet", "orjson")


def plain(value):
    """What a reader gave that is no number, as text: times in UTC with microseconds, bytes as hex."""
    import numpy
    import pandas

    if isinstance(value, (bool, numpy.bool_)):
        return "true" if value else "false"
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    if isinstance(value, (numpy.datetime64, pandas.Timestamp)):
        value = pandas.Timestamp(value)
        assert value.nanosecond == 0, value
        value = value.to_pydatetime()
    if isinstance(value, (numpy.timedelta64, datetime.timedelta)):
        value = (datetime.datetime(2000, 1, 1) + pandas.Timedelta(value).to_pytimedelta()).time()
    if isinstance(value, datetime.datetime):
        if value.tzinfo is not None:
            value = value.astimezone(datetime.timezone.utc).replace(tzinfo=None)
        return value.isoformat(timespec="microseconds")
    if isinstance(value, datetime.time):
        return value.isoformat(timespec="microseconds")
    return value.isoformat() if isinstance(value, datetime.date) else str(value)


def is_null(value):
    import pandas

    return value is None or value is pandas.NaT or value is pandas.NA


def same_number(reader, kind, got, want):
    """`got` is a number of Python or numpy, or the digits in a text file; `want` is PostgreSQL's text."""
    if kind == "single":
        return struct.pack("f", float(got)) == struct.pack("f", float(want))
    if kind == "double":
        return struct.pack("d", float(got)) == struct.pack("d", float(want))
    if reader in LOSSY and isinstance(got, float):
        return math.isclose(got, float(want), rel_tol=1e-14)
    return decimal.Decimal(str(got)) == decimal.Decimal(want)


def same(reader, kind, got, want):
    import numpy

    if isinstance(got, numpy.ndarray):
        got = list(got)
    if is_null(got) or want is None:
        # fastparquet has one value for NULL and NaN in a column of doubles; the tables here have no NaN.
        nan = reader == "fastparquet" and isinstance(got, float) and math.isnan(got)
        return want is None and (is_null(got) or nan and kind.removesuffix("[]") in NUMBERS)
    if kind.endswith("[]"):
        each = kind.removesuffix("[]")
        return isinstance(got, list) and len(got) == len(want) and all(same(reader, each, *pair) for pair in zip(got, want))
    if kind in NUMBERS:
        number = isinstance(got, (int, float, decimal.Decimal, numpy.number)) and not isinstance(got, bool)
        return number and same_number(reader, kind, got, want)
    if kind == "day":
        # A date, or midnight for readers without a type for dates.
        return plain(got) in (want, f"{want}T00:00:00.000000")
    if kind == "uuid":
        # Its bytes (which fastparquet holds as numpy does, without the zeros at their end), its text, or Python's own type.
        got = got.ljust(16, b"\0") if reader == "fastparquet" else got
        return plain(got).replace("-", "") == want.replace("-", "")
    return plain(got) == want


def compare(reader, rows, expected, kinds):
    count = 0
    for count, (row, want) in enumerate(zip(rows, expected, strict=True), 1):
        assert list(row) == list(want), f"{reader}: columns {list(row)}"
        for name, value in row.items():
            assert same(reader, kinds[name], value, want[name]), f"{reader}: row {count}, {name}: {value!r} instead of {want[name]!r}"
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
    compare_cells("csv", rows, blank, kinds)
    frame = pandas.read_csv(path, dtype=str, keep_default_na=False, compression=None if compression == "plain" else compression)
    compare_cells("pandas", frame.to_dict("records"), blank, kinds)
    cursor = duckdb.connect().execute(
        "SELECT * FROM read_csv(?, header = true, all_varchar = true, delim = ',', quote = '\"', escape = '\"', nullstr = '', "
        "allow_quoted_nulls = false, strict_mode = true, compression = ?)", [path, "none" if compression == "plain" else compression])
    names = [field[0] for field in cursor.description]
    compare_cells("duckdb", [dict(zip(names, row)) for row in cursor.fetchall()], expected, kinds)


def micros(text):
    """Our shortest fraction of a second with all six digits again."""
    seconds, _, fraction = text.removesuffix("Z").partition(".")
    return f"{seconds}.{fraction:0<6}"


def same_cell(kind, text, want):
    """Whether a cell or an element of text is PostgreSQL's value. `None` is NULL, for readers that know it."""
    if not text or not want:
        return text == want
    if kind in NUMBERS:
        return same_number("text", kind, text, want)
    if kind in ("time", "stamp"):
        return micros(text) == want
    return (text.removeprefix("\\x") if kind == "bytes" else text) == want


def compare_cells(reader, rows, expected, kinds):
    assert len(rows) == len(expected), f"{reader}: {len(rows)} rows"
    for at, (row, want) in enumerate(zip(rows, expected), 1):
        assert list(row) == list(want), f"{reader}: columns {list(row)}"
        for name, text in row.items():
            assert same_cell(kinds[name], text, want[name]), f"{reader}: row {at}, {name}: {text!r} instead of {want[name]!r}"
    print(f"{reader}: {len(rows)} rows")


def json_value(value, kind):
    """A value of a JSON reader in the form of what a reader of types gives."""
    if isinstance(value, list):
        return [json_value(item, kind.removesuffix("[]")) for item in value]
    if isinstance(value, str) and kind in ("time", "stamp"):
        return micros(value)
    return value.removeprefix("\\x") if isinstance(value, str) and kind == "bytes" else value


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
        rows = []
        for record in root:
            fields = {field.tag: None if field.get(NIL) == "true" else field for field in record}
            rows.append({name: None if field is None else xml_text(field, kinds[name]) for name, field in fields.items()})
        compare_cells(reader, rows, [{name: None if value is None else "tree" if kinds[name] == "json" else value
                                      for name, value in row.items()} for row in expected], kinds)


def xml_text(field, kind):
    if kind == "json":
        return "tree"  # compared by read_export.py and reload.py, element by element
    text = field.text or ""
    return base64.b64decode(text, validate=True).hex() if kind == "bytes" else text


def main():
    # Hundreds of thousands of small objects that all stay: collecting cycles would take half of the time.
    gc.disable()
    if sys.argv[1] == "schema":
        import pyarrow.parquet

        for field in pyarrow.parquet.read_schema(sys.argv[2]):
            print(f"{field.name}: {field.type}")
        return
    kind, compression, path, expected_path = sys.argv[1:]
    with open(expected_path, encoding="utf-8") as file:
        kinds, *expected = map(json.loads, file)
    if kind == "parquet":
        parquet(path, expected, kinds)
    elif kind == "csv":
        csv(path, compression, expected, kinds)
    elif kind == "xml":
        xml(path, compression, expected, kinds)
    else:
        json_readers(kind, path, compression, expected, kinds)


if __name__ == "__main__":
    main()
