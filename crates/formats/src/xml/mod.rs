//! XML 1.0: `<records><record>…`, an element a column, nested elements for JSON and arrays with `<item>` for array
//! items. NULL (and JSON's null) is `xsi:nil="true"`; names that XML does not allow are escaped as `_xHHHH_`, the way
//! SQL/XML does it. Most control characters have no place in XML 1.0, not even escaped.
//!
//! Escaping is our own loop into the output buffer (bench/README.md has what that buys); `quick-xml` is the tests'
//! oracle.

mod json;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use json::write_json;

use crate::copy::{Array, Row, Value, ValueError};
use crate::encode::{Encode, EncodeError};
use crate::encode_buffer::{EncodeBuffer, Stopped};
use crate::nesting::Nesting;
use crate::output_column::OutputColumn;
use crate::text::{NotJson, write_plain};
use crate::unrepresentable_policy::{Replacement, UnrepresentablePolicy};

pub(super) struct Xml {
    columns: Vec<OutputColumn>,
    /// The element names, escaped.
    names: Vec<String>,
    unrepresentable_policy: UnrepresentablePolicy,
    /// Items of the array at hand, where they come as text.
    items: Vec<u8>,
}

impl Xml {
    pub(super) fn new(columns: &[OutputColumn], unrepresentable_policy: UnrepresentablePolicy) -> Self {
        let names = columns.iter().map(|column| element_name(&column.name)).collect();
        Self { columns: columns.to_vec(), names, unrepresentable_policy, items: Vec::new() }
    }
}

/// Why a value has no place in XML.
#[derive(Debug)]
enum Unwritable {
    /// XML 1.0 has no way to write it, not even escaped.
    Character(&'static str),
    Undecodable(ValueError),
    Stopped(Stopped),
}

impl From<NotJson> for Unwritable {
    fn from(NotJson: NotJson) -> Self {
        Self::Undecodable(ValueError::Json)
    }
}

impl From<ValueError> for Unwritable {
    fn from(error: ValueError) -> Self {
        Self::Undecodable(error)
    }
}

impl From<Stopped> for Unwritable {
    fn from(stopped: Stopped) -> Self {
        Self::Stopped(stopped)
    }
}

const CONTROL: &str = "a control character";
const SURROGATE: &str = "one half of a surrogate pair";
const REPLACEMENT: &str = "U+FFFD";

/// Characters of one value that XML does not have: refused, or replaced and remembered.
struct Replacer {
    allowed: bool,
    /// The first problem of the value.
    problem: Option<&'static str>,
}

impl Replacer {
    fn replace(&mut self, problem: &'static str, out: &mut Vec<u8>) -> Result<(), Unwritable> {
        if !self.allowed {
            return Err(Unwritable::Character(problem));
        }
        self.problem.get_or_insert(problem);
        out.extend_from_slice("\u{FFFD}".as_bytes());
        Ok(())
    }
}

/// `Char` of XML 1.0 without what UTF-8 excludes already.
fn allowed(character: char) -> bool {
    !matches!(character, '\0'..='\x08' | '\x0B' | '\x0C' | '\x0E'..='\x1F' | '\u{FFFE}' | '\u{FFFF}')
}

/// `NameStartChar` of XML 1.0 without the colon, which means a namespace.
fn starts_name(character: char) -> bool {
    matches!(character,
        'A'..='Z' | 'a'..='z' | '_' | '\u{C0}'..='\u{D6}' | '\u{D8}'..='\u{F6}' | '\u{F8}'..='\u{2FF}'
        | '\u{370}'..='\u{37D}' | '\u{37F}'..='\u{1FFF}' | '\u{200C}' | '\u{200D}' | '\u{2070}'..='\u{218F}'
        | '\u{2C00}'..='\u{2FEF}' | '\u{3001}'..='\u{D7FF}' | '\u{F900}'..='\u{FDCF}' | '\u{FDF0}'..='\u{FFFD}'
        | '\u{10000}'..='\u{EFFFF}')
}

fn continues_name(character: char) -> bool {
    starts_name(character)
        || matches!(character, '-' | '.' | '0'..='9' | '\u{B7}' | '\u{300}'..='\u{36F}' | '\u{203F}' | '\u{2040}')
}

/// Writes one character of a name: what a name may not hold becomes `_xHHHH_`, and so does an underscore that would read
/// as the start of such an escape. `head` is the name's first three characters.
fn write_name_character(character: char, first: bool, next: Option<char>, head: [Option<char>; 3], out: &mut Vec<u8>) {
    let reserved = || matches!(head, [Some('x' | 'X'), Some('m' | 'M'), Some('l' | 'L')]);
    let allowed = if first { starts_name(character) && !reserved() } else { continues_name(character) };
    if allowed && !(character == '_' && next == Some('x')) {
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    } else {
        out.extend_from_slice(format!("_x{:04X}_", u32::from(character)).as_bytes());
    }
}

const EMPTY_NAME: &[u8] = b"_x_";

/// An XML name for any text, and another one for any other text. No text at all becomes `_x_`.
fn element_name(text: &str) -> String {
    let mut name = Vec::with_capacity(text.len());
    if text.is_empty() {
        name.extend_from_slice(EMPTY_NAME);
    }
    let mut head = [None; 3];
    head.iter_mut().zip(text.chars()).for_each(|(slot, character)| *slot = Some(character));
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let first = name.is_empty();
        write_name_character(character, first, characters.peek().copied(), head, &mut name);
    }
    String::from_utf8(name).expect("characters were written whole")
}

/// Bytes that text may not hold, or only as a reference, or that may begin a character that it may not hold.
const NEEDS_A_LOOK: [bool; 256] = {
    let mut table = [false; 256];
    let mut control = 0;
    while control < 0x20 {
        table[control] = control != b'\t' as usize && control != b'\n' as usize;
        control += 1;
    }
    table[b'&' as usize] = true;
    table[b'<' as usize] = true;
    table[b'>' as usize] = true;
    table[0xEF] = true;
    table
};

/// Writes text between tags. A carriage return is written as a reference: a reader would make a line feed of it.
fn write_text(text: &str, replacer: &mut Replacer, out: &mut Vec<u8>) -> Result<(), Unwritable> {
    let bytes = text.as_bytes();
    let mut done = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if !NEEDS_A_LOOK[usize::from(*byte)] {
            continue;
        }
        let reference: &[u8] = match byte {
            b'&' => b"&amp;",
            b'<' => b"&lt;",
            b'>' => b"&gt;",
            b'\r' => b"&#13;",
            b'\t' | b'\n' | 0x20..=0xEE | 0xF0..=0xFF => continue,
            // U+FFFE and U+FFFF are EF BF BE and EF BF BF.
            0xEF if bytes[at + 1] != 0xBF || bytes[at + 2] < 0xBE => continue,
            _ => {
                out.extend_from_slice(&bytes[done..at]);
                replacer.replace(CONTROL, out)?;
                done = at + if *byte == 0xEF { 3 } else { 1 };
                continue;
            }
        };
        out.extend_from_slice(&bytes[done..at]);
        out.extend_from_slice(reference);
        done = at + 1;
    }
    out.extend_from_slice(&bytes[done..]);
    Ok(())
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
            let mut replacer = Replacer { allowed: self.unrepresentable_policy.replaces(), problem: None };
            let written = match column.array {
                None => Value::read(column.wire, bytes)
                    .map_err(Unwritable::from)
                    .and_then(|value| write_element(name, value, &mut replacer, out)),
                Some(array) => Array::read(column.wire, array, bytes, &mut self.items)
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
                self.unrepresentable_policy.count(index, problem, REPLACEMENT);
            }
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode_buffer::tests::written;

    fn strict() -> Replacer {
        Replacer { allowed: false, problem: None }
    }

    #[test]
    fn characters_that_xml_does_not_have_are_replaced_on_wish() {
        let (mut replacer, mut out) = (Replacer { allowed: true, problem: None }, Vec::new());
        write_text("a\u{7}é\u{FFFE}z\u{FFFF}", &mut replacer, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a\u{FFFD}é\u{FFFD}z\u{FFFD}");
        assert_eq!(replacer.problem, Some(CONTROL));
    }

    #[test]
    fn long_bytes_are_one_base64() {
        let bytes: Vec<u8> = (0..300_001_u32).map(|n| n.to_le_bytes()[0]).collect();
        let out = written(|out| write_element("b", Value::Bytea(&bytes), &mut strict(), out).unwrap());
        assert_eq!(String::from_utf8(out).unwrap(), format!("<b>{}</b>", STANDARD.encode(&bytes)));
    }

    #[test]
    fn names_are_valid_and_distinct() {
        for (text, expected) in [
            ("id", "id"),
            ("ünï", "ünï"),
            ("1st", "_x0031_st"),
            ("a:b", "a_x003A_b"),
            ("_x0031_st", "_x005F_x0031_st"),
            ("xmlish", "_x0078_mlish"),
            ("😀", "😀"),
            ("a\u{1}", "a_x0001_"),
            ("", "_x_"),
            ("_x_", "_x005F_x_"),
        ] {
            assert_eq!(element_name(text), expected);
        }
    }

    #[test]
    fn quick_xml_reads_every_text_back() {
        for text in ["", "a<b>&\"'", "]]>", "\r\n\t", "é😀\u{85}\u{2028}\u{FFFD}\u{E000}"] {
            let mut out = Vec::new();
            write_text(text, &mut strict(), &mut out).unwrap();
            let escaped = String::from_utf8(out).unwrap();
            assert_eq!(quick_xml::escape::unescape(&escaped).unwrap(), text);
        }
        for text in ["\0", "\u{1}", "x\u{1f}", "\u{FFFE}", "a\u{FFFF}"] {
            assert!(matches!(write_text(text, &mut strict(), &mut Vec::new()), Err(Unwritable::Character(CONTROL))));
        }
    }
}
