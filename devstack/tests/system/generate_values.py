"""Makes a table `public.records` with a column for every type of PostgreSQL: extremes first, then random values, NULLs
between them. Writes OUT/schema.sql and OUT/rows.copy (COPY's text format).

usage: generate_values.py OUT SEED ROWS scalars|arrays [WITHOUT...]

WITHOUT leaves out what a format cannot hold: `xml` (characters), `parquet` (infinite and very late times, NaN in a
decimal, arrays of other dimensions than declared). The same arguments make the same files.
"""

import ipaddress
import json
import os
import pathlib
import random
import struct
import sys
import uuid

MEGABYTE = 1 << 20

# Characters that some format or reader treats in a way of its own.
XML_HAS_NOT = [chr(c) for c in range(1, 32) if c not in (9, 10, 13)] + ["\ufffe", "\uffff"]
ODD = list("\t\n\r\"'\\,;|<>&]{}()=+-@#%_/: \x7f\x80\x85\x9f\xa0\u0301\u200d\u2028\u2029\u202e\ue000\ufeff\ufffd")
ODD += ["é", "ß", "漢", "😀", "\U0010ffff"]

TYPES = """
CREATE EXTENSION hstore;
CREATE EXTENSION citext;
CREATE TYPE mood AS ENUM ('sad', 'it''s "ok", really', '', '{1,2}', 'größer');
CREATE DOMAIN label AS text;
CREATE DOMAIN price AS numeric(10,2) CHECK (VALUE > -1e8);
CREATE DOMAIN net_price AS price;
CREATE DOMAIN moment AS timestamptz;
CREATE DOMAIN tags AS text[];
CREATE TYPE address AS (street text, zip integer);
CREATE TYPE person AS (name text, home address, nick text[], born date);
"""


class Random(random.Random):
    """Random values as PostgreSQL's input text."""

    odd = ODD + XML_HAS_NOT

    def text(self, longest=40):
        length = self.randint(0, longest)
        return "".join(self.choice(self.odd) if self.random() < 0.3 else chr(self.randint(32, 126)) for _ in range(length))

    def signed(self, bits):
        value = self.getrandbits(self.randint(1, bits - 1))
        return str(self.choice([value, -value - 1]))

    def digits(self, before, after):
        whole = self.getrandbits(4 * before) % 10 ** self.randint(0, before) if before else 0
        text = self.choice(["", "-"]) + str(whole)
        places = self.randint(0, after)
        return text if places == 0 else f"{text}.{self.randrange(10 ** places):0{places}}"

    def float(self, letter):
        size = struct.calcsize(letter)
        while True:
            value = struct.unpack(letter, self.randbytes(size))[0]
            if value == value and abs(value) != float("inf"):
                return "%.9g" % value if letter == "f" else repr(value)

    def day(self):
        # Julian days, which PostgreSQL reads: most of them in this century, the others up to its bounds.
        return self.randint(2415021, 2488434) if self.random() < 0.5 else self.randint(0, 109192000)

    def date(self):
        return f"J{self.day()}"

    def time(self):
        micros = self.choice([self.randrange(86_400) * 1_000_000, self.randrange(86_400_000_000)])
        return f"{micros // 3_600_000_000:02}:{micros // 60_000_000 % 60:02}:{micros // 1_000_000 % 60:02}.{micros % 1_000_000:06}"

    def stamp(self):
        return f"J{self.day()} {self.time()}"

    def zoned(self):
        return f"{self.stamp()}+00"

    def interval(self):
        # Not as microseconds, which before 15 have to fit in 32 bits.
        time = int(self.signed(45))
        seconds = f"{'-' if time < 0 else ''}{abs(time) // 10**6}.{abs(time) % 10**6:06}"
        return f"{self.signed(12)} mons {self.signed(14)} days {seconds} seconds"

    def ip(self):
        address = ipaddress.ip_address(self.getrandbits(32) if self.random() < 0.5 else self.getrandbits(128) | 1 << 100)
        return f"{address}/{self.randint(0, address.max_prefixlen)}"

    def json(self, depth=3):
        kind = self.randrange(9 if depth else 5)
        if kind < 2:
            return json.dumps(self.text(12), ensure_ascii=self.random() < 0.5)
        if kind < 5:
            return self.choice(["null", "true", "false", self.digits(30, 12), f"{self.randint(1, 9)}.50e{self.randint(-30, 30)}"])
        size = self.randrange(4)
        if kind < 7:
            return "[" + ",".join(self.json(depth - 1) for _ in range(size)) + "]"
        return "{" + ",".join(f"{json.dumps(self.text(5))}:{self.json(depth - 1)}" for _ in range(size)) + "}"

    def point(self):
        return f"({self.float('d')},{self.float('d')})"

    def range(self, bound, ordered=sorted):
        low, high = ordered([bound(), bound()])
        return self.choice(["[{},{})", "(,{1})", "[{},)", "({},{}]", "[{},{}]"]).format(low, high)


def composite(*fields):
    quote = lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return "(" + ",".join("" if field is None else quote(field) for field in fields) + ")"


def array(items, delimiter=","):
    """Nested lists as an array literal."""
    if items is None:
        return "NULL"
    if isinstance(items, list):
        return "{" + delimiter.join(array(item, delimiter) for item in items) + "}"
    return '"' + items.replace("\\", "\\\\").replace('"', '\\"') + '"'


def hstore(pairs):
    quote = lambda text: "NULL" if text is None else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return ", ".join(f"{quote(key)}=>{quote(value)}" for key, value in pairs)


def but(trouble, *values):
    """Values that one format cannot hold."""
    return [(value, trouble) for value in values]


def deep(open_, close, levels):
    return open_ * levels + "1" + close * levels


TEXTS = [
    "", " ", "NULL", "null", "\\N", "\\.", "\\", "\\\\", '"', '""', "'", ",", ";", "\t", "\n", "\r", "\r\n", "\n\\.\n",
    "  led and trailed  ", "a,b", 'a"b', "line 1\nline 2\r\nline 3\n", "\x7f", "".join(map(chr, range(0x80, 0xa0))),
    "\u2028\u2029", "\ufeffmark first", "\ufffd", "👨‍👩‍👧 😀", "\u0301", "e\u0301 é", "\u202egnirts", "\U0010ffff\U0001fffe",
    "\ue000", "]]>", "<![CDATA[x]]>", "&amp;&#0;&lt;", "<b>", "<!-- -->", "{}", "{1,NULL}", "=1+1", "@SUM(A1)", "+1", "-1",
    "true", "NaN", "\\x00", "_x0041_", "\\u0041 \\n", "0" * 40, "x" * MEGABYTE, '"\\\n,😀' * (MEGABYTE // 8),
    *but("xml", *XML_HAS_NOT), *but("xml", "".join(XML_HAS_NOT)),
]
JSONS = [
    "null", "true", "0", "-0", "1.50", "1e400", "-1E-400", "9" * 1000 + ".5", '""', "{}", "[]", "[[],{}]", '{"":0}',
    '{"a":1,"a":2,"b":{"a":null,"a":[]}}', '"\\"\\\\\\/\\n\\r\\t\\u0041\\u00e9\\ud83d\\ude00\\u2028"', '"\u2028😀\x7f"',
    '{"1 a":1,"a:b":2,"xml":3,"_x0031_":4,"é":5,"😀":6,"_x_":7," ":8,"\\u0001":9,"item":[{"item":[]}]}',
    '" {\\"a\\" : 1} "', '"' + "y" * MEGABYTE + '"', deep("[", "]", 2000), deep('{"a":', "}", 2000), deep('[{"a":', "}]", 900),
    "[" + ",".join(["1.0"] * 20000) + "]", *but("xml", '"\\b\\f\\u0001\\u001f"', '"\\uffff"', '{"a":["\\ufffe"]}'),
]
SPACED_JSONS = ['{ "a" : [ 1 ,\n\t2.0 ]\r\n, "b c\\t" : " x " }', " [ ] ", "\n\t7 \n"]
# What json takes and jsonb does not.
ODD_JSONS = ['{"a":1}', *but("xml", '"\\u0000"', '"\\ud800"', '["\\udc00\\ud800", "x\\udfffy"]', '{"\\ud800": 1}')]
DATES = ["4713-01-01 BC", "0001-12-31 BC", "0001-01-01", "1582-10-15", "1969-12-31", "1970-01-01", "2000-02-29",
         "9999-12-31", "10000-01-01", "5874897-12-31", *but("parquet", "infinity", "-infinity")]
TIMES = ["00:00", "00:00:00.000001", "12:34:56.7", "23:59:59.999999", *but("parquet", "24:00")]
STAMPS = ["4714-11-24 00:00 BC", "4713-01-01 00:00:00.000001 BC", "0001-12-31 23:59:59.999999 BC", "1969-12-31 23:59:59.999999",
          "1970-01-01 00:00", "1999-12-31 23:59:59.5", "2000-01-01 00:00", "2026-01-02 03:04:05.123456", "9999-12-31 23:59:59.999999",
          "10000-01-01 00:00", "294246-12-31 23:59:59.999999",
          *but("parquet", "infinity", "-infinity", "294276-12-31 23:59:59.999999")]
ZONED = [(f"{v[0]}", v[1]) if isinstance(v, tuple) else f"{v[:-3]}+00 BC" if v.endswith("BC") else f"{v}+00" for v in STAMPS]
INTERVALS = ["0", "1 year 2 mons 3 days 04:05:06.789", "-1 mon 1 day -00:00:00.000001", "1 day -25:00", "178000000 years",
             "-178000000 years", "2147483647 days", "-2147483648 days", "2562047788:00:00", "0.000001 s"]
FLOATS = ["0", "-0", "1", "0.1", "-1.5", "1e-4", "1e-5", "123456.7", "NaN", "Infinity", "-Infinity"]
SINGLES = [*FLOATS, "1e-45", "1.1754942e-38", "3.4028235e38", "-3.4028235e38", "16777216", "1e6", "999999"]
DOUBLES = [*FLOATS, "5e-324", "2.2250738585072009e-308", "1.7976931348623157e308", "-1.7976931348623157e308", "1e14", "1e15",
           "9007199254740993", "1e22", "1e23"]
NUMERICS = ["0", "0.00", "-0.0", "1", "-1.50", "1e1000", "-1e1000", "1e-1000", "1e131071", "1e-16383", "0.1000", "10000", "9999.9999",
            "100000000", "0.00010001", "NaN", "Infinity", "-Infinity", "9" * 131072 + "." + "9" * 16383]


def decimals(precision, scale, *values):
    """The bounds of numeric(p, s): all nines, the smallest step, zero, NaN."""
    nines = f"{'9' * precision}e{-scale}"
    return [nines, f"-{nines}", f"1e{-scale}", f"-1e{-scale}", "0", *values, *but("parquet" if precision <= 38 else "none", "NaN")]


# The major version that the devstack started the server of, too; without it, the distribution's, taken to know all of this.
VERSION = int(os.environ.get("PG") or 15)


def scalars(r):
    """The columns and values that the server's version can hold."""
    for name, sql, extremes, make in every_scalar(r):
        # Multiranges came with 14, scales below zero and above the precision with 15.
        if (VERSION < 14 and "multirange" in sql) or (VERSION < 15 and name in ("numeric_5_m2", "numeric_3_5")):
            continue
        # Infinite numerics came with 14, hours of an interval beyond 32 bits with 15.
        if VERSION < 14 and sql in ("numeric", "numrange"):
            extremes = [value for value in extremes if "Infinity" not in (value[0] if isinstance(value, tuple) else value)]
        if VERSION < 15 and sql == "interval":
            extremes = [value for value in extremes if "2562047788" not in value]
        yield name, sql, extremes, make


def every_scalar(r):
    for bits, name in ((16, "int2"), (32, "int4"), (64, "int8")):
        top = 1 << (bits - 1)
        yield name, name, [str(-top), str(top - 1), "0", "-1"], lambda bits=bits: r.signed(bits)
    yield "float4", "real", SINGLES, lambda: r.float("f")
    yield "float8", "double precision", DOUBLES, lambda: r.float("d")
    yield "numeric", "numeric", NUMERICS, lambda: r.digits(60, 40)
    yield "numeric_38_10", "numeric(38,10)", decimals(38, 10), lambda: r.digits(28, 10)
    yield "numeric_38_0", "numeric(38)", decimals(38, 0), lambda: r.digits(38, 0)
    yield "numeric_38_38", "numeric(38,38)", decimals(38, 38), lambda: r.digits(0, 38)
    yield "numeric_18_4", "numeric(18,4)", decimals(18, 4, "1.5"), lambda: r.digits(14, 4)
    yield "numeric_9_2", "numeric(9,2)", decimals(9, 2), lambda: r.digits(7, 2)
    yield "numeric_1_0", "numeric(1,0)", decimals(1, 0), lambda: r.digits(1, 0)
    yield "numeric_5_m2", "numeric(5,-2)", decimals(5, -2, "12345"), lambda: r.digits(7, 0)[:8].replace("9", "8")
    yield "numeric_3_5", "numeric(3,5)", decimals(3, 5), lambda: f"{r.choice(['', '-'])}0.00{r.randrange(1000):03}"
    yield "numeric_39_3", "numeric(39,3)", decimals(39, 3), lambda: r.digits(36, 3)
    yield "numeric_1000_3", "numeric(1000,3)", decimals(1000, 3), lambda: r.digits(997, 3)
    yield "bool", "boolean", ["true", "false"], lambda: r.choice(["t", "f"])
    yield "text", "text", TEXTS, lambda: r.text(300)
    short = [v for v in TEXTS if len(v) <= 10 and not isinstance(v, tuple)]
    yield "varchar", "varchar(20)", short, lambda: r.text(20)
    yield "char", "char(10)", [*short, "ab        "], lambda: r.text(10)
    yield "name", "name", [*short, "n" * 63], lambda: r.text(15)
    yield "single_char", '"char"', ["", "a", ",", '"', "\\\\", "\n", "\r", " "], lambda: chr(r.randint(33, 91))
    yield "citext", "citext", [*short, "MiXed", "mixed"], lambda: r.text(30)
    all_bytes = "\\x" + bytes(range(256)).hex()
    yield "bytea", "bytea", ["\\x", "\\x00", "\\xff", "\\x2c220a", all_bytes, "\\x" + "ab" * MEGABYTE], lambda: "\\x" + r.randbytes(r.randrange(40)).hex()
    yield "date", "date", DATES, r.date
    yield "time", "time", TIMES, r.time
    yield "timetz", "timetz", ["00:00+15:59:59", "24:00-15:59:59", "12:00:00.000001+00"], lambda: f"{r.time()}{r.choice('+-')}{r.randrange(15):02}:30"
    yield "timestamp", "timestamp", STAMPS, r.stamp
    yield "timestamptz", "timestamptz", [*ZONED, "2026-01-02 03:04:05.5+05:45"], r.zoned
    yield "timestamp_0", "timestamp(0)", ["2026-01-02 03:04:05.6"], r.stamp
    yield "interval", "interval", INTERVALS, r.interval
    yield "uuid", "uuid", [str(uuid.UUID(int=0)), str(uuid.UUID(int=2**128 - 1))], lambda: str(uuid.UUID(int=r.getrandbits(128)))
    yield "json", "json", [*JSONS, *SPACED_JSONS], r.json
    yield "jsonb", "jsonb", [*JSONS, *SPACED_JSONS], r.json
    yield "json_odd", "json", ODD_JSONS, lambda: r.choice(["1", "[ ]"])
    yield "xml", "xml", ["<a/>", '<a b="1">x &amp; y</a>', "text", "a<b/>c", "<![CDATA[<]]>", '<?xml version="1.0"?><a>\n</a>', ""], lambda: f"<v n='{r.signed(8)}'>{r.signed(40)}</v>"
    yield "inet", "inet", ["0.0.0.0/0", "::/0", "10.1.2.3/8", "10.1.2.3", "::ffff:1.2.3.4", "ffff::1/64"], r.ip
    yield "cidr", "cidr", ["0.0.0.0/0", "10.0.0.0/8", "2001:db8::/32"], lambda: str(ipaddress.ip_network(r.ip(), strict=False))
    yield "macaddr", "macaddr", ["00:00:00:00:00:00"], lambda: r.randbytes(6).hex(":")
    yield "macaddr8", "macaddr8", ["ff:ff:ff:ff:ff:ff:ff:ff"], lambda: r.randbytes(8).hex(":")
    yield "bit", "bit(9)", ["000000000", "111111111"], lambda: f"{r.getrandbits(9):09b}"
    yield "varbit", "bit varying", ["", "0", "1" * 1000], lambda: f"{r.getrandbits(70):b}"
    yield "money", "money", ["92233720368547758.07", "-92233720368547758.08", "0", "-1"], lambda: r.digits(15, 2)
    yield "point", "point", ["(0,-0)", "(NaN,Infinity)", "(1e-300,-1e300)"], r.point
    yield "line", "line", ["{1,2,3}", "{0,-1,0}"], lambda: f"{{{r.signed(9)}.5,1,{r.float('d')}}}"
    yield "lseg", "lseg", ["[(0,0),(1,1)]"], lambda: f"[{r.point()},{r.point()}]"
    yield "box", "box", ["(1,1),(0,0)"], lambda: f"{r.point()},{r.point()}"
    yield "path", "path", ["[(0,0)]", "((0,0),(1,1))"], lambda: f"[{r.point()},{r.point()}]"
    yield "polygon", "polygon", ["((0,0))"], lambda: f"({r.point()},{r.point()},{r.point()})"
    yield "circle", "circle", ["<(0,0),0>", "<(1,2),1e300>"], lambda: f"<{r.point()},{abs(float(r.float('d')))!r}>"
    yield "tsvector", "tsvector", ["", "'a':1A,2B 'b c' '''' 'd,\"'"], lambda: " ".join(r.choice("abcdef") for _ in range(5))
    yield "tsquery", "tsquery", ["'a' & !'b' | 'c':*A <2> 'd'", "'it''s'"], lambda: f"'{r.choice('abc')}' | 'd'"
    yield "oid", "oid", ["0", "4294967295"], lambda: str(r.getrandbits(32))
    yield "xid", "xid", ["0", "4294967295"], lambda: str(r.getrandbits(32))
    yield "xid8", "xid8", ["18446744073709551615"], lambda: str(r.getrandbits(64))
    yield "cid", "cid", ["4294967295"], lambda: str(r.getrandbits(32))
    yield "tid", "tid", ["(4294967295,65535)"], lambda: f"({r.getrandbits(32)},{r.getrandbits(16)})"
    yield "pg_lsn", "pg_lsn", ["0/0", "FFFFFFFF/FFFFFFFF"], lambda: f"{r.getrandbits(32):X}/{r.getrandbits(32):X}"
    yield "regtype", "regtype", ["integer", "timestamp with time zone"], lambda: r.choice(["text", "-"])
    yield "regclass", "regclass", ["pg_class", "-"], lambda: "pg_type"
    yield "int2vector", "int2vector", ["", "1 -2 3"], lambda: f"{r.signed(16)} 0"
    yield "oidvector", "oidvector", ["", "1 2"], lambda: str(r.getrandbits(32))
    yield "jsonpath", "jsonpath", ["$", '$."a b"[*]?(@.c > 1 && @.d like_regex "^x")'], lambda: f"$.k[{r.randrange(9)}]"
    yield "txid_snapshot", "txid_snapshot", ["10:20:10,14,15"], lambda: "1:1:"
    yield "pg_snapshot", "pg_snapshot", ["10:20:10,14,15"], lambda: "5:9:7"
    yield from ranges(r)
    yield "enum", "mood", ["", 'it\'s "ok", really', "{1,2}"], lambda: r.choice(["sad", "größer"])
    yield "domain_text", "label", short, lambda: r.text(20)
    yield "domain_numeric", "price", ["-99999999.99", "0", "99999999.99"], lambda: r.digits(7, 2)
    yield "domain_domain", "net_price", ["0.10"], lambda: r.digits(7, 2)
    yield "domain_stamp", "moment", ZONED, r.zoned
    yield "composite", "address", ["(,)", composite("", "1"), composite('a "b", \\c\n', None)], lambda: composite(r.text(), r.signed(32))
    person = lambda: composite(r.text(9), composite(r.text(9), r.signed(9)), array([r.text(9), None]), r.date())
    yield "composite_nested", "person", [composite(None, "(,)", "{}", "infinity"), "(,,,)"], person
    yield "hstore", "hstore", ["", '""=>""', "a=>NULL", hstore([('"', "\\"), ("a,b", "=>\n")])], lambda: hstore([(r.text(9), r.text(9)), ("n", None)])


def ranges(r):
    number = lambda: r.randrange(-2**31, 2**31 - 1)
    stamps = lambda stamp: (lambda: f'"{2000 + r.randrange(90)}-01-01 00:00:00.{r.randrange(10)}{stamp}"')
    days = lambda: f"{2000 + r.randrange(90)}-02-03"
    rows = [
        ("int4", number, ["empty", "(,)", "[1,1]", "(-2147483648,2147483647)"]),
        ("int8", number, ["empty", "(,)", "[9223372036854775806,9223372036854775807)"]),
        ("num", lambda: round(r.uniform(-9, 9), 6), ["empty", "[1.50,2.5]", "(-Infinity,NaN]", "[1e100,)"]),
        ("ts", stamps(""), ["empty", '["4714-11-24 00:00:00 BC",infinity]', "[-infinity,)"]),
        ("tstz", stamps("+00"), ["empty", '["2026-01-02 03:04:05.5+00",infinity)']),
        ("date", days, ["empty", '["4713-01-01 BC",infinity)', "[2000-01-01,2000-01-01]"]),
    ]
    for name, bound, extremes in rows:
        yield f"{name}range", f"{name}range", extremes, lambda bound=bound: r.range(bound)
        several = ["{}", *("{" + text + "}" for text in extremes)]
        yield f"{name}multirange", f"{name}multirange", several, lambda bound=bound: "{" + r.range(bound) + "," + r.range(bound) + "}"


# Element types of the columns of the second table; the values are those of the scalar columns.
ELEMENTS = {
    "int2": "int2", "int4": "int4", "int8": "int8", "float4": "real", "float8": "double precision", "numeric": "numeric",
    "numeric_18_4": "numeric(18,4)", "numeric_5_m2": "numeric(5,-2)", "bool": "boolean", "text": "text", "varchar": "varchar(20)",
    "char": "char(10)", "name": "name", "single_char": '"char"', "citext": "citext", "bytea": "bytea", "date": "date", "time": "time",
    "timetz": "timetz", "timestamp": "timestamp", "timestamptz": "timestamptz", "interval": "interval", "uuid": "uuid",
    "json": "json", "jsonb": "jsonb", "xml": "xml", "inet": "inet", "bit": "bit(9)", "money": "money", "point": "point",
    "box": "box", "tsvector": "tsvector", "oid": "oid", "pg_lsn": "pg_lsn", "int4range": "int4range",
    "tstzmultirange": "tstzmultirange", "enum": "mood", "domain_text": "label", "domain_numeric": "price",
    "composite": "address", "composite_nested": "person", "hstore": "hstore",
}


def small(value):
    """Elements are the scalars' extremes without the huge ones, which the other table has."""
    return len(value[0] if isinstance(value, tuple) else value) <= 5000


def arrays(r):
    kept = [column for column in scalars(r) if column[0] in ELEMENTS]
    for name, sql, extremes, make in kept:
        delimiter = ";" if name == "box" else ","
        extremes = [value for value in extremes if small(value)]
        if name == "json":
            # White space around the tokens is the scalar column's to test.
            extremes = [value for value in extremes if value not in SPACED_JSONS]
        text = lambda value: value[0] if isinstance(value, tuple) else value
        literal = lambda items, delimiter=delimiter: array(items, delimiter)
        whole = [(literal([text(value), None]), value[1] if isinstance(value, tuple) else None) for value in extremes]
        usual = [text(value) for value in extremes if not isinstance(value, tuple)]
        first, last = usual[0], usual[-1]
        bounds = "[-1:1]=" + literal([first, None, last])
        shapes = ["{}", literal([None]), literal([None, None]), bounds, literal([first] * 300)]
        one = lambda make=make, literal=literal: literal([r.choice([None, make(), make()]) for _ in range(r.randrange(5))])
        flat = [(two, "parquet") for two in (literal([[first, None], [last, first]]), "[0:0][3:4]=" + literal([[first, last]]))]
        yield f"{name}_a", f"{sql}[]", [*whole, *shapes, *flat], one
        if name in ("int4", "text", "timestamptz", "numeric_18_4", "jsonb", "bytea", "inet", "bool"):
            two = lambda make=make, literal=literal: literal([[r.choice([None, make()]) for _ in range(3)] for _ in range(r.randint(1, 3))])
            square = literal([[first, None], [None, last]])
            odd = [(one_, "parquet") for one_ in (literal([first]), literal([[[first], [None]]]))]
            yield f"{name}_aa", f"{sql}[][]", ["{}", square, "[0:0][3:4]=" + literal([[first, last]]), *odd], two
    yield "cube", "integer[][][]", [array([[["1", None], ["3", "4"]]]), "{}"], lambda: array([[["1"], [r.signed(32)]]])
    yield "domain_array", "tags", ["{}", array(["a", None, ""]), "[5:5]=" + array(['"'])], lambda: array([r.text(9), r.text(9)])


def main():
    out, seed, rows, table, *without = sys.argv[1:]
    r = Random(int(seed))
    if "xml" in without:
        r.odd = ODD
    columns = []
    for name, sql, extremes, make in {"scalars": scalars, "arrays": arrays}[table](r):
        known = [value if isinstance(value, tuple) else (value, None) for value in extremes]
        columns.append((name, sql, [value for value, trouble in known if trouble not in without], make))
    escapes = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})
    lines = []
    for row in range(max(int(rows), max(len(known) for _, _, known, _ in columns))):
        # Ids are neither dense nor in the order of writing, so that an order by them is seen.
        cells = [str(r.getrandbits(40) * 100_000 + row)]
        for _, _, known, make in columns:
            if row < len(known):
                cells.append(known[row].translate(escapes))
            elif r.random() < 0.15:
                cells.append("\\N")
            else:
                cells.append((r.choice(known) if r.random() < 0.05 else make()).translate(escapes))
        lines.append("\t".join(cells))
    folder = pathlib.Path(out)
    folder.mkdir(parents=True)
    definitions = ",\n    ".join(f'"{name}" {sql}' for name, sql, _, _ in columns)
    schema = f"DROP TABLE public.records;\n{TYPES}CREATE TABLE public.records (\n    id bigint PRIMARY KEY,\n    {definitions});\n"
    (folder / "schema.sql").write_text(schema, encoding="utf-8")
    (folder / "rows.copy").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
