//! XML 1.0: `<records><record>…`, an element a column, nested elements for JSON and arrays with `<item>` for array
//! items. NULL (and JSON's null) is `xsi:nil="true"`; names that XML does not allow are escaped as `_xHHHH_`, the way
//! SQL/XML does it. Most control characters have no place in XML 1.0, not even escaped.
//!
//! Escaping is our own loop into the output buffer (bench/README.md has what that buys); `quick-xml` is the tests'
//! oracle.

mod characters;
mod json;
mod names;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use characters::{REPLACEMENT, Replacer, Unwritable, write_text};
use json::write_json;
use names::element_name;
use polyglot_core::column::{Column, WireType};
use polyglot_core::format_options::FormatOptions;

use crate::copy::{Array, Row, Value};
use crate::definition::{FormatDefinition, RowSize, ShardSize};
use crate::encode::{Encode, EncodeError, shown_by};
use crate::encode_buffer::EncodeBuffer;
use crate::nesting::Nesting;
use crate::option::{ENCODING, ON_UNREPRESENTABLE};
use crate::output_column::OutputColumn;
use crate::output_type::text_type;
use crate::text::write_plain;
use crate::unrepresentable_policy::{Replacement, UnrepresentablePolicy};

pub(crate) static XML: FormatDefinition = FormatDefinition {
    name: "xml",
    title: "XML",
    extension: "xml",
    media_type: "application/xml; charset=utf-8",
    incompressible: None,
    options: &[ON_UNREPRESENTABLE, ENCODING],
    holds_every_value: false,
    arrays_as_text: false,
    row_size: RowSize {
        // `<name>value</name>`
        frame: |names, columns| 2 * names + 5 * columns + 18,
        bytea_factor: 1.34,
        is_binary: false,
    },
    shard_size: ShardSize::DEFAULT,
    footer: None,
    output_type,
    encoder: |options, columns, _| Box::new(Xml::new(columns, UnrepresentablePolicy::new(options.on_unrepresentable))),
};

fn output_type(column: &Column, _: &FormatOptions) -> String {
    let name = match column.wire {
        WireType::Bytea => "base64",
        WireType::Json | WireType::Jsonb => "nested elements",
        wire => text_type(wire),
    };
    if column.array.is_some() { format!("elements <item> of {name}") } else { name.to_owned() }
}

struct Xml {
    columns: Vec<OutputColumn>,
    /// The element names, escaped.
    names: Vec<String>,
    unrepresentable_policy: UnrepresentablePolicy,
    /// Items of the array at hand, where they come as text.
    items: Vec<u8>,
}

impl Xml {
    fn new(columns: &[OutputColumn], unrepresentable_policy: UnrepresentablePolicy) -> Self {
        let names = columns.iter().map(|column| element_name(&column.name)).collect();
        Self { columns: columns.to_vec(), names, unrepresentable_policy, items: Vec::new() }
    }
}

fn open(name: &str, out: &mut Vec<u8>) {
    out.push(b'<');
    out.extend_from_slice(name.as_bytes());
    out.push(b'>');
}

fn close(name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"</");
    out.extend_from_slice(name.as_bytes());
    out.push(b'>');
}

fn nil(name: &str, out: &mut Vec<u8>) {
    out.push(b'<');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b" xsi:nil=\"true\"/>");
}

fn write_element(
    name: &str,
    value: Value<'_>,
    replacer: &mut Replacer,
    out: &mut EncodeBuffer<'_>,
) -> Result<(), Unwritable> {
    if let Value::Json(text) = value {
        return write_json(name, text, replacer, out);
    }
    open(name, out);
    match write_plain(value, out) {
        None => {}
        Some(Value::Text(text)) => out.in_pieces(text, |piece, out| write_text(piece, replacer, out))?,
        // Three bytes are four characters, so pieces of threes join without padding between them.
        Some(Value::Bytea(bytes)) => out.in_chunks(bytes, 3, write_base64)?,
        Some(_) => unreachable!("write_plain gives back text, json and bytea only, and json is written above"),
    }
    close(name, out);
    Ok(())
}

fn write_base64(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(bytes, &mut out[start..]);
    out.truncate(start + written.expect("base64 takes 4 bytes for every 3"));
}

fn write_array(
    name: &str,
    array: Array<'_>,
    replacer: &mut Replacer,
    out: &mut EncodeBuffer<'_>,
) -> Result<(), Unwritable> {
    const ITEM: &str = "item";
    let nesting = Nesting::new(array.sizes());
    open(name, out);
    for (index, item) in array.items().enumerate() {
        (0..nesting.opens(index)).for_each(|_| open(ITEM, out));
        match item? {
            None => nil(ITEM, out),
            Some(value) => write_element(ITEM, value, replacer, out)?,
        }
        (0..nesting.closes(index)).for_each(|_| close(ITEM, out));
        out.flush_if_full()?;
    }
    close(name, out);
    Ok(())
}

#[expect(clippy::inline_always, reason = "the loop over all fields of all rows calls it, and a preview")]
#[inline(always)]
fn write_field(
    name: &str,
    index: usize,
    column: &OutputColumn,
    bytes: &[u8],
    items: &mut Vec<u8>,
    unrepresentable_policy: &mut UnrepresentablePolicy,
    out: &mut EncodeBuffer<'_>,
) -> Result<(), EncodeError> {
    let mut replacer = Replacer { allowed: unrepresentable_policy.replaces(), problem: None };
    let written = match column.array {
        None => Value::read(column.wire, bytes)
            .map_err(Unwritable::from)
            .and_then(|value| write_element(name, value, &mut replacer, out)),
        Some(array) => Array::read(column.wire, array, bytes, items)
            .map_err(Unwritable::from)
            .and_then(|array| write_array(name, array, &mut replacer, out)),
    };
    written.map_err(|unwritable| match unwritable {
        Unwritable::Character(problem) => {
            EncodeError::Unrepresentable { column: column.name.clone(), format: "XML 1.0", problem }
        }
        Unwritable::Undecodable(source) => EncodeError::Undecodable { column: column.name.clone(), source },
        Unwritable::Stopped(stopped) => stopped.into(),
    })?;
    if let Some(problem) = replacer.problem {
        unrepresentable_policy.count(index, problem, REPLACEMENT);
    }
    Ok(())
}

impl Encode for Xml {
    fn begin(&mut self, out: &mut EncodeBuffer<'_>) -> Result<(), EncodeError> {
        out.extend_from_slice(
            b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<records xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">\n",
        );
        Ok(())
    }

    fn row(&mut self, row: Row<'_>, out: &mut EncodeBuffer<'_>) -> Result<(), EncodeError> {
        out.extend_from_slice(b"<record>");
        for (index, ((column, name), field)) in self.columns.iter().zip(&self.names).zip(row.fields()).enumerate() {
            let Some(bytes) = field else {
                nil(name, out);
                continue;
            };
            write_field(name, index, column, bytes, &mut self.items, &mut self.unrepresentable_policy, out)?;
        }
        out.extend_from_slice(b"</record>\n");
        Ok(())
    }

    fn end(&mut self, out: &mut EncodeBuffer<'_>) -> Result<(), EncodeError> {
        out.extend_from_slice(b"</records>\n");
        Ok(())
    }

    fn replacements(&self) -> &[Replacement] {
        self.unrepresentable_policy.replacements()
    }

    /// What is between the tags of the column's element, unless the element itself says something.
    fn shown(&mut self, row: Row<'_>) -> Result<Vec<Option<String>>, EncodeError> {
        let Self { columns, names, unrepresentable_policy, items } = self;
        let mut shown = shown_by(row, |index, bytes, out| {
            write_field(&names[index], index, &columns[index], bytes, items, unrepresentable_policy, out)
        })?;
        for (name, element) in names.iter().zip(&mut shown) {
            let content = element.as_deref().and_then(|element| {
                element.strip_prefix(&format!("<{name}>"))?.strip_suffix(&format!("</{name}>")).map(str::to_owned)
            });
            if content.is_some() {
                *element = content;
            }
        }
        Ok(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_sink::written;

    fn strict() -> Replacer {
        Replacer { allowed: false, problem: None }
    }

    #[test]
    fn long_bytes_are_one_base64() {
        let bytes: Vec<u8> = (0..300_001_u32).map(|n| n.to_le_bytes()[0]).collect();
        let out = written(|out| write_element("b", Value::Bytea(&bytes), &mut strict(), out).unwrap());
        assert_eq!(String::from_utf8(out).unwrap(), format!("<b>{}</b>", STANDARD.encode(&bytes)));
    }
}
