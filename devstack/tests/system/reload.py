"""Turns an export back into PostgreSQL's COPY text, by a reader that has nothing in common with the writer.

usage: reload.py FORMAT plain|gzip|zstd FILE COLUMNS LIKE OUT

COLUMNS is a JSON list of {"target", "leaf", "array"}: the column's name in the file, the type of the value (domains
resolved; of an array its items' type) and whether it is an array. LIKE has a JSON object a row with the text of every
json and jsonb column, which XML does not bring back by itself: there a number and a string look the same. The first
column is the row's id.

Anything that a strict reader would not take raises, and so does a value of another kind than its type's.
"""

import base64
import binascii
import gzip
import json
import re
import sys
import threading
import zlib
from json.decoder import scanstring

NIL = "{http://www.w3.org/2001/XMLSchema-instance}nil"
JSON_TYPES = ("json", "jsonb")
NUMBERS = ("smallint", "integer", "bigint", "real", "double precision", "numeric")


class Digits(str):
    """A JSON number as it is written."""


def unframe(data, compression):
    """The text of a file, which must be one member or frame to its last byte: some readers stop after the first."""
    if compression == "plain":
        return data
    if compression == "gzip":
        member = zlib.decompressobj(wbits=31)
        text = member.decompress(data) + member.flush()
        assert gzip.decompress(data) == text
    else:
        import zstandard

        assert zstandard.get_frame_parameters(data).window_size <= 8 << 20, "more than a decoder must have, RFC 8878"
        member = zstandard.ZstdDecompressor().decompressobj()
        text = member.decompress(data) + member.flush()
    assert member.eof and member.unused_data == b"", f"not a single {compression} member"
    return text


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


DECODER = json.JSONDecoder(parse_float=Digits, parse_int=Digits, parse_constant=refuse,
                           object_pairs_hook=lambda pairs: ("object", pairs))


def array(items, delimiter):
    """Nested lists of texts and None as PostgreSQL's array literal."""
    if items is None:
        return "NULL"
    if isinstance(items, list):
        return "{" + delimiter.join(array(item, delimiter) for item in items) + "}"
    return '"' + items.replace("\\", "\\\\").replace('"', '\\"') + '"'


def literal(column, value):
    # Of all types, box alone has another delimiter in its arrays.
    return array(value, ";" if column["leaf"] == "box" else ",") if isinstance(value, list) else value


# --- CSV

FIELD = re.compile(r'"((?:[^"]|"")*)"(?=[,\n]|\Z)|([^",\r\n]*)(?=[,\n]|\Z)')


def read_csv(data, columns, _):
    """RFC 4180, with the difference between an empty string and NULL that Python's csv does not make."""
    text = data.decode("utf-8")
    assert text.endswith("\n"), "the last line has no end"
    rows, row, at = [], [], 0
    while at < len(text):
        field = FIELD.match(text, at)
        assert field, f"not CSV at {at}: {text[at:at + 60]!r}"
        quoted, plain = field.groups()
        row.append(quoted.replace('""', '"') if quoted is not None else plain or None)
        at = field.end() + 1
        if text[at - 1] == "\n":
            rows.append(row)
            row = []
    assert rows[0] == [column["target"] for column in columns], rows[0]
    yield from rows[1:]


# --- JSON

SPACES = re.compile(r"[ \t]*")


def json_value(text, at, column, like):
    """One value at `at`: what it is to PostgreSQL, and where it ends."""
    if text.startswith("null", at) and (column["leaf"] not in JSON_TYPES or like is None):
        return None, at + 4
    if column["array"] and (column["leaf"] not in JSON_TYPES or isinstance(like, list)):
        assert text[at] == "[", f"{column}: {text[at:at + 40]!r} is no array"
        return json_array(text, at + 1, column, like)
    value, end = DECODER.raw_decode(text, at)
    if column["leaf"] in JSON_TYPES:
        return text[at:end], end
    if isinstance(value, bool):
        assert column["leaf"] == "boolean", column
        return ("t" if value else "f"), end
    if isinstance(value, Digits):
        assert column["leaf"] in NUMBERS, f"{column}: {value} is no number in PostgreSQL"
        return str(value), end
    assert isinstance(value, str), f"{column}: {value!r}"
    finite = column["leaf"] not in NUMBERS and column["leaf"] != "boolean"
    assert finite or value in ("NaN", "Infinity", "-Infinity"), f"{column}: {value!r} should be a number"
    return value, end


def json_array(text, at, column, like):
    items = []
    if text[at] == "]":
        return items, at + 1
    while True:
        # An item of an array of arrays is an array or null; nothing in PostgreSQL's arrays is ragged.
        nested = column["leaf"] not in JSON_TYPES and text[at] == "["
        item_like = like[len(items)] if isinstance(like, list) else None
        item = dict(column, array=nested or isinstance(item_like, list))
        value, at = json_value(text, at, item, item_like)
        items.append(value)
        separator = re.compile(r"\s*([,\]])\s*").match(text, at)
        assert separator, f"{column}: {text[at:at + 40]!r}"
        if separator[1] == "]":
            return items, at + text[at:].index("]") + 1
        at = separator.end()


def json_row(text, columns, likes):
    at, row, like = 0, [], {}
    for number, column in enumerate(columns):
        assert text[at] == ("," if number else "{"), text[at:at + 40]
        key, at = scanstring(text, at + 2, True)
        assert key == column["target"], f"{key!r} where {column['target']!r} belongs"
        assert text[at] == ":", text[at:at + 40]
        value, at = json_value(text, SPACES.match(text, at + 1).end(), column, like.get(key))
        # What is around a json value in its own text may be around it here.
        at = SPACES.match(text, at).end()
        if number == 0:
            like = likes.get(value, {})
        row.append(value)
    assert text[at:] == "}", text[at:]
    return row


def read_jsonl(data, columns, likes):
    assert data == b"" or data.endswith(b"\n")
    for line in data.decode("utf-8").split("\n")[:-1]:
        DECODER.decode(line)
        yield json_row(line, columns, likes)


def read_json(data, columns, likes):
    text = data.decode("utf-8")
    # The file is one document, and a row a line.
    rows = DECODER.decode(text)
    lines = text.split("\n")
    assert (lines[0], lines[-2:]) == ("[", ["]", ""]), (lines[0], lines[-2:])
    lines = [line for line in lines[1:-2] if line != ""]
    assert len(lines) == len(rows)
    for number, line in enumerate(lines, 1):
        assert line.endswith(",") == (number < len(lines)), line[-20:]
        yield json_row(line.removesuffix(","), columns, likes)


# --- XML

def name_of(tag):
    """What an element is called, with the escapes of names resolved."""
    return "" if tag == "_x_" else re.sub("_x([0-9A-F]{4,6})_", lambda escape: chr(int(escape[1], 16)), tag)


def is_nil(element):
    if element.get(NIL) is None:
        assert not element.attrib, element.attrib
        return False
    assert element.get(NIL) == "true" and element.text is None and len(element) == 0
    return True


def text_of(element):
    assert len(element) == 0, f"{element.tag} has elements where text belongs"
    return element.text or ""


def same_json(element, like):
    """Whether an element is what this JSON becomes."""
    if is_nil(element):
        return like is None
    if like is None or isinstance(like, (bool, str)):
        words = {True: "true", False: "false"}
        return like is not None and text_of(element) == (words[like] if isinstance(like, bool) else like)
    assert not (element.text or "").strip() and not any((child.tail or "").strip() for child in element)
    if isinstance(like, list):
        wanted = [("item", item) for item in like]
    else:
        wanted = like[1]
    if [name_of(child.tag) for child in element] != [key for key, _ in wanted]:
        return False
    return all(same_json(child, item) for child, (_, item) in zip(element, wanted))


def xml_value(element, column, like):
    if column["leaf"] in JSON_TYPES and not isinstance(like, list):
        # SQL's NULL and JSON's null are the same element.
        if like is None:
            assert is_nil(element), element.tag
            return None
        assert same_json(element, DECODER.decode(like)), f"{element.tag} is not {like[:200]}"
        return like
    if is_nil(element):
        return None
    if column["array"]:
        assert [child.tag for child in element] == ["item"] * len(element) and not (element.text or "").strip()
        likes = like if isinstance(like, list) else [None] * len(element)
        assert len(likes) == len(element)
        items = zip(element, likes)
        return [xml_value(child, dict(column, array=len(child) > 0), item) for child, item in items]
    text = text_of(element)
    return "\\x" + base64.b64decode(text, validate=True).hex() if column["leaf"] == "bytea" else text


def read_xml(data, columns, likes):
    from lxml import etree

    parser = etree.XMLParser(huge_tree=True, resolve_entities=False, recover=False, no_network=True)
    root = etree.fromstring(data, parser)
    assert root.tag == "records", root.tag
    for record in root:
        assert record.tag == "record", record.tag
        assert [name_of(field.tag) for field in record] == [column["target"] for column in columns]
        like = likes.get(record[0].text, {})
        yield [xml_value(field, column, like.get(column["target"])) for field, column in zip(record, columns)]


# --- Parquet

def parquet_items(array, column):
    """The column as texts: calendars are left to PostgreSQL, which reads Julian days, because Python ends at 9999."""
    import pyarrow
    import pyarrow.types as types

    if types.is_list(array.type):
        items, offsets = parquet_items(array.values, column), array.offsets.to_pylist()
        return [items[offsets[n]:offsets[n + 1]] if there else None for n, there in enumerate(array.is_valid().to_pylist())]
    if isinstance(array, pyarrow.ExtensionArray):
        array = array.storage
    kind = array.type
    if types.is_date32(kind):
        return [None if n is None else f"J{n + 2440588}" for n in array.cast(pyarrow.int32()).to_pylist()]
    if types.is_time64(kind):
        assert kind.unit == "us", kind
        return [None if n is None else clock(n) for n in array.cast(pyarrow.int64()).to_pylist()]
    if types.is_timestamp(kind):
        assert kind.unit == "us", kind
        zone = "" if kind.tz is None else "+00"
        assert zone == ("+00" if column["leaf"] == "timestamp with time zone" else ""), f"{column}: {kind}"
        parts = ((None, None) if n is None else divmod(n, 86_400_000_000) for n in array.cast(pyarrow.int64()).to_pylist())
        return [None if day is None else f"J{day + 2440588} {clock(rest)}{zone}" for day, rest in parts]
    values = array.to_pylist()
    if types.is_boolean(kind):
        return [None if value is None else "t" if value else "f" for value in values]
    if types.is_binary(kind) or types.is_fixed_size_binary(kind):
        prefix = "\\x" if column["leaf"] == "bytea" else ""
        return [None if value is None else prefix + binascii.hexlify(value).decode() for value in values]
    if types.is_float32(kind):
        return [None if value is None else "%.9g" % value for value in values]
    if types.is_float64(kind):
        return [None if value is None else repr(value) for value in values]
    if types.is_decimal(kind):
        return [None if value is None else format(value, "f") for value in values]
    assert types.is_integer(kind) or types.is_string(kind), f"{column}: {kind}"
    return [None if value is None else str(value) for value in values]


def clock(micros):
    return f"{micros // 3_600_000_000:02}:{micros // 60_000_000 % 60:02}:{micros // 1_000_000 % 60:02}.{micros % 1_000_000:06}"


def read_parquet(path, columns):
    import pyarrow.parquet
    import pyarrow.types as types

    file = pyarrow.parquet.ParquetFile(path)
    assert file.schema_arrow.names == [column["target"] for column in columns]
    for group in range(file.metadata.num_row_groups):
        table = file.read_row_group(group).combine_chunks()
        texts = []
        for column, field in zip(columns, table.columns):
            assert types.is_list(field.type) == column["array"], f"{column}: {field.type}"
            chunks = [parquet_items(chunk, column) for chunk in field.chunks]
            texts.append([text for chunk in chunks for text in chunk])
        yield from zip(*texts, strict=True)


def read_arrow(path, columns):
    import pyarrow.ipc
    import pyarrow.types as types

    with open(path, "rb") as file:
        reader = pyarrow.ipc.open_stream(file)
        assert reader.schema.names == [column["target"] for column in columns]
        for batch in reader:
            for column, field in zip(columns, batch.schema):
                assert types.is_list(field.type) == column["array"], f"{column}: {field.type}"
            yield from zip(*(parquet_items(array, column) for column, array in zip(columns, batch.columns)), strict=True)


def read(kind, compression, path, columns, likes):
    if kind == "parquet":
        return read_parquet(path, columns)
    if kind == "arrow":
        return read_arrow(path, columns)
    with open(path, "rb") as file:
        data = unframe(file.read(), compression)
    return {"csv": read_csv, "json": read_json, "jsonl": read_jsonl, "xml": read_xml}[kind](data, columns, likes)


def main():
    kind, compression, path, columns_path, like_path, out = sys.argv[1:]
    with open(columns_path, encoding="utf-8") as file:
        columns = json.load(file)
    with open(like_path, encoding="utf-8", newline="\n") as file:
        likes = {row["id"]: row["like"] for row in map(json.loads, file)}
    escapes = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})
    with open(out, "w", encoding="utf-8", newline="\n", errors="strict") as copy:
        for row in read(kind, compression, path, columns, likes):
            assert len(row) == len(columns), f"{len(row)} fields of {len(columns)}"
            values = [literal(column, value) for column, value in zip(columns, row)]
            copy.write("\t".join("\\N" if value is None else value.translate(escapes) for value in values) + "\n")


def run_deep(work):
    """JSON may be nested thousands deep, and Python's own stack ends before."""
    failures = []
    sys.setrecursionlimit(50_000)
    threading.stack_size(512 << 20)
    threading.excepthook = lambda failure: (failures.append(failure), sys.__excepthook__(*failure[:3]))
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(run_deep(main))
