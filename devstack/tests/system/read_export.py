"""Reads an export to its end with independent readers and compares every row with what PostgreSQL said.

usage: read_export.py FORMAT plain|gzip FILE EXPECTED

EXPECTED has a JSON object a line: id, created_at (UTC, six decimals), name, value, metadata, all as text.
Exits with 1 and says where they differ. What a reader cannot read to the end raises.
"""

import csv
import datetime
import decimal
import gc
import gzip
import io
import json
import subprocess
import sys
import zlib

NIL = "{http://www.w3.org/2001/XMLSchema-instance}nil"


def micros(text):
    """Our shortest fraction with all six digits again: 2026-01-02T03:04:05.12Z -> 2026-01-02T03:04:05.120000"""
    assert text.endswith("Z"), text
    seconds, _, fraction = text[:-1].partition(".")
    assert fraction == "" or (len(fraction) <= 6 and not fraction.endswith("0")), text
    return f"{seconds}.{fraction:0<6}"


def exact(text):
    """JSON with its numbers as they are written and its keys in their order."""
    return json.loads(text, parse_float=lambda n: ("number", n), parse_int=lambda n: ("number", n),
                      object_pairs_hook=lambda pairs: ("object", pairs))


def unframe(data, compressed):
    if not compressed:
        return data
    # One member and nothing behind it: some readers stop after the first.
    member = zlib.decompressobj(wbits=31)
    text = member.decompress(data) + member.flush()
    assert member.eof and member.unused_data == b"", "not a single gzip member"
    assert gzip.decompress(data) == text
    return text


def read_csv(data):
    # RFC 4180 quotes what needs it; strict refuses anything else.
    rows = list(csv.reader(io.StringIO(data.decode("utf-8"), newline=""), strict=True))
    assert rows[0] == ["id", "created_at", "name", "value", "metadata"], rows[0]
    for id_, created_at, name, value, metadata in rows[1:]:
        yield {"id": id_, "created_at": micros(created_at), "name": name, "value": value, "metadata": metadata}


def read_json_row(row):
    assert row[0] == "object", row
    fields = dict(row[1])
    assert list(fields) == ["id", "created_at", "name", "value", "metadata"], list(fields)
    assert fields["id"][0] == fields["value"][0] == "number"
    return {"id": fields["id"][1], "created_at": micros(fields["created_at"]), "name": fields["name"],
            "value": fields["value"][1], "metadata": fields["metadata"]}


def read_json(data):
    jq = subprocess.run(["jq", "length"], input=data, capture_output=True, check=True)
    rows = exact(data.decode("utf-8"))
    assert int(jq.stdout) == len(rows)
    # A row a line, between the brackets.
    assert data.count(b"\n") == len(rows) + 2, data.count(b"\n")
    for row in rows:
        yield read_json_row(row)


def read_jsonl(data):
    assert data == b"" or data.endswith(b"\n")
    for line in data.decode("utf-8").split("\n")[:-1]:
        yield read_json_row(exact(line))


def json_of_xml(element, like):
    """The element as the JSON `like` says it should be: XML does not tell a number from a string."""
    if like is None:
        assert element.get(NIL) == "true"
        return None
    assert element.get(NIL) is None
    if isinstance(like, bool):
        return {"true": True, "false": False}[element.text]
    if isinstance(like, list):
        assert [child.tag for child in element] == ["item"] * len(like)
        return [json_of_xml(child, item) for child, item in zip(element, like, strict=True)]
    if isinstance(like, str):
        return element.text or ""
    if like[0] == "object":
        assert [child.tag for child in element] == [key for key, _ in like[1]]
        return ("object", [(key, json_of_xml(child, item)) for child, (key, item) in zip(element, like[1], strict=True)])
    assert like[0] == "number", like
    return ("number", element.text)


def read_xml(data, expected):
    from lxml import etree

    subprocess.run(["xmllint", "--noout", "--huge", "-"], input=data, check=True)
    root = etree.fromstring(data, etree.XMLParser(huge_tree=True, resolve_entities=False))
    assert root.tag == "records"
    for record, row in zip(root, expected, strict=True):
        assert record.tag == "record"
        fields = {field.tag: field for field in record}
        assert list(fields) == ["id", "created_at", "name", "value", "metadata"], list(fields)
        yield {"id": fields["id"].text, "created_at": micros(fields["created_at"].text),
               "name": fields["name"].text or "", "value": fields["value"].text,
               "metadata": json_of_xml(fields["metadata"], row["metadata"])}


def read_parquet(path):
    import pyarrow
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(path)
    types = {field.name: field.type for field in file.schema_arrow}
    assert types == {"id": pyarrow.int64(), "created_at": pyarrow.timestamp("us", tz="UTC"), "name": pyarrow.string(),
                     "value": pyarrow.decimal128(18, 4), "metadata": pyarrow.string()}, types
    for group in range(file.metadata.num_row_groups):
        for row in file.read_row_group(group).to_pylist():
            at = row["created_at"].astimezone(datetime.timezone.utc)
            assert isinstance(row["value"], decimal.Decimal)
            yield {"id": str(row["id"]), "created_at": at.strftime("%Y-%m-%dT%H:%M:%S.%f"), "name": row["name"],
                   "value": format(row["value"], "f"), "metadata": row["metadata"]}


def read_arrow(path):
    import polars
    import pyarrow
    import pyarrow.ipc

    with open(path, "rb") as file:
        table = pyarrow.ipc.open_stream(file).read_all()
    types = {field.name: field.type for field in table.schema}
    assert types == {"id": pyarrow.int64(), "created_at": pyarrow.timestamp("us", tz="UTC"), "name": pyarrow.string(),
                     "value": pyarrow.decimal128(18, 4), "metadata": pyarrow.string()}, types
    frame = polars.read_ipc_stream(path)
    assert frame.height == table.num_rows and frame["id"].to_list() == table["id"].to_pylist()
    for row in table.to_pylist():
        at = row["created_at"].astimezone(datetime.timezone.utc)
        yield {"id": str(row["id"]), "created_at": at.strftime("%Y-%m-%dT%H:%M:%S.%f"), "name": row["name"],
               "value": format(row["value"], "f"), "metadata": row["metadata"]}


def with_exact_metadata(row):
    return {**row, "metadata": exact(row["metadata"])}


def main():
    # Hundreds of thousands of small objects that all stay: collecting cycles would take half of the time.
    gc.disable()
    kind, framing, path, expected_path = sys.argv[1:]
    with open(expected_path, encoding="utf-8", newline="\n") as lines:
        expected = [json.loads(line) for line in lines]
    # CSV, Parquet and Arrow have the text of a JSON value, which is compared as it is where it is PostgreSQL's own.
    text = kind in ("csv", "parquet", "arrow")
    if not text:
        expected = [with_exact_metadata(row) for row in expected]
    with open(path, "rb") as file:
        data = unframe(file.read(), framing == "gzip")
    readers = {"csv": lambda: read_csv(data), "json": lambda: read_json(data), "jsonl": lambda: read_jsonl(data),
               "xml": lambda: read_xml(data, expected), "parquet": lambda: read_parquet(path),
               "arrow": lambda: read_arrow(path)}
    count = 0
    for number, (got, wanted) in enumerate(zip(readers[kind](), expected, strict=True), 1):
        if got != wanted and not (text and with_exact_metadata(got) == with_exact_metadata(wanted)):
            print(f"row {number} differs:\n  file     {got}\n  database {wanted}")
            return 1
        count += 1
    print(f"{count} rows are equal")
    return 0


if __name__ == "__main__":
    sys.exit(main())
