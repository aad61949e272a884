"""Reads a sharded export, as CSV, as CSV with gzip, as Parquet and as Arrow, with independent readers, and fails with words
where they do not agree: with each other, or with what a filter by row group statistics has to find."""

import sys
import zlib

import duckdb
import polars
import pyarrow.ipc
import pyarrow.parquet as pq

csv, zipped, parquet, arrow = sys.argv[1:]

# One member, and nothing behind it: several readers stop after the first.
unpacked, member = 0, zlib.decompressobj(31)
with open(zipped, "rb") as file, open(csv, "rb") as plain:
    while chunk := file.read(1 << 20):
        text = member.decompress(chunk)
        assert text == plain.read(len(text)), "gzip and plain differ"
        unpacked += len(text)
    assert member.eof and not member.unused_data and not plain.read(1), "not one whole member"

columns = "id, name, value, metadata, created_at"
typed = "{'id': 'BIGINT', 'created_at': 'TIMESTAMPTZ', 'name': 'VARCHAR', 'value': 'DECIMAL(18,4)', 'metadata': 'VARCHAR'}"
duckdb.sql("SET TimeZone = 'UTC'")
kinds = dict(duckdb.sql(f"SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM '{parquet}')").fetchall())
typed = typed.replace("DECIMAL(18,4)", kinds["value"])
rows = f"(SELECT {columns} FROM read_csv('{csv}', header = true, columns = {typed}))"
for left, right in [(rows, f"(SELECT {columns} FROM '{parquet}')"), (f"(SELECT {columns} FROM '{parquet}')", rows)]:
    wrong = duckdb.sql(f"SELECT count(*) FROM (FROM {left} EXCEPT ALL FROM {right})").fetchall()[0][0]
    assert wrong == 0, f"{wrong} rows are in one format alone"

file = pq.ParquetFile(parquet)
metadata = file.metadata
groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
count = sum(group.num_rows for group in groups)
assert metadata.num_rows == count > 0
identifier = metadata.schema.names.index("id")
bounds = [(group.column(identifier).statistics.min, group.column(identifier).statistics.max) for group in groups]
assert all(low <= high for low, high in bounds) and all(a[1] < b[0] for a, b in zip(bounds, bounds[1:])), bounds
assert len(groups) > 1

# A range at the seam of two row groups, one inside of one, and none.
first, last = bounds[0][0], bounds[-1][1]
for low, high in [(bounds[0][1] - 5, bounds[1][0] + 5), (first + 10, first + 20), (last + 1, last + 100), (first, first)]:
    wanted = duckdb.sql(f"SELECT count(*), coalesce(sum(id), 0) FROM {rows} WHERE id BETWEEN {low} AND {high}").fetchall()[0]
    found = duckdb.sql(f"SELECT count(*), coalesce(sum(id), 0) FROM '{parquet}' WHERE id BETWEEN {low} AND {high}").fetchall()[0]
    assert found == wanted, f"duckdb: {found} instead of {wanted} for {low} to {high}"
    ids = pq.read_table(parquet, columns=["id"], filters=[("id", ">=", low), ("id", "<=", high)])["id"].to_pylist()
    assert (len(ids), sum(ids)) == wanted, f"pyarrow: {len(ids)} rows instead of {wanted} for {low} to {high}"

# The stream holds the rows of the Parquet file, in the same order, for two readers.
table = pq.read_table(parquet)
with open(arrow, "rb") as stream:
    streamed = pyarrow.ipc.open_stream(stream).read_all()
assert streamed.num_rows == count and streamed.cast(table.schema).equals(table), "the Arrow stream differs from Parquet"
assert polars.read_ipc_stream(arrow).equals(polars.from_arrow(streamed)), "polars reads another table than pyarrow"

print(f"{count} rows in {len(groups)} row groups")
