//! XML 1.0: `<records><record>…`, an element a column, nested elements for JSON and arrays with `<item>` for array
//! items. NULL (and JSON's null) is `xsi:nil="true"`; names that XML does not allow are escaped as `_xHHHH_`, the way
//! SQL/XML does it. Most control characters have no place in XML 1.0, not even escaped.
//!
//! Escaping is our own loop into the output buffer (bench/README.md has what that buys); `quick-xml` is the tests'
//! oracle.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::json_text::{NoCharacter, NotJson, Token, Tokens, unescape};
use super::scalar::write_plain;
use super::{Encode, EncodeError, Exactness, Nesting, Out, Replacement, Stopped};
use crate::source::{Array, OutputColumn, Row, Value, ValueError};

pub(super) struct Xml {
    columns: Vec<OutputColumn>,
    /// The element names, escaped.
    names: Vec<String>,
    exactness: Exactness,
    /// Items of the array at hand, where they come as text.
    items: Vec<u8>,
}

impl Xml {
    pub(super) fn new(columns: &[OutputColumn], exactness: Exactness) -> Self {
        let names = columns.iter().map(|column| element_name(column.name.chars())).collect();
        Self { columns: columns.to_vec(), names, exactness, items: Vec::new() }
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

/// An XML name for any text, and another one for any other text: what a name may not hold becomes `_xHHHH_`, and
/// so does an underscore that would read as the start of such an escape. No text at all becomes `_x_`.
fn element_name(text: impl Iterator<Item = char>) -> String {
    let characters: Vec<char> = text.collect();
    if characters.is_empty() {
        return "_x_".to_owned();
    }
    let reserved = characters.len() >= 3 && characters[..3].iter().collect::<String>().eq_ignore_ascii_case("xml");
    let mut name = String::with_capacity(characters.len());
    for (at, &character) in characters.iter().enumerate() {
        let allowed = if at == 0 { starts_name(character) && !reserved } else { continues_name(character) };
        if allowed && !(character == '_' && characters.get(at + 1) == Some(&'x')) {
            name.push(character);
        } else {
            name.push_str(&format!("_x{:04X}_", u32::from(character)));
        }
    }
    name
}

/// Writes text between tags. A carriage return is written as a reference: a reader would make a line feed of it.
fn write_text(text: &str, replacer: &mut Replacer, out: &mut Vec<u8>) -> Result<(), Unwritable> {
    let bytes = text.as_bytes();
    let mut done = 0;
    for (at, byte) in bytes.iter().enumerate() {
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

fn write_unescaped(raw: &str, replacer: &mut Replacer, out: &mut Out<'_>) -> Result<(), Unwritable> {
    if !raw.contains('\\') {
        return out.in_pieces(raw, |piece, out| write_text(piece, replacer, out));
    }
    let mut buffer = [0; 4];
    for character in unescape(raw) {
        match character {
            Ok(character) if allowed(character) => write_text(character.encode_utf8(&mut buffer), replacer, out)?,
            Ok(_) => replacer.replace(CONTROL, out)?,
            Err(NoCharacter::LoneSurrogate) => replacer.replace(SURROGATE, out)?,
            Err(NoCharacter::NotJson) => return Err(NotJson.into()),
        }
        out.relieve()?;
    }
    Ok(())
}

/// The element name of an object's key. What a name cannot hold is escaped in it; only half a surrogate pair is not.
fn key_name(raw: &str, replacer: &mut Replacer) -> Result<String, Unwritable> {
    let mut characters = Vec::with_capacity(raw.len());
    for character in unescape(raw) {
        characters.push(match character {
            Ok(character) => character,
            Err(NoCharacter::LoneSurrogate) => {
                replacer.replace(SURROGATE, &mut Vec::new())?;
                char::REPLACEMENT_CHARACTER
            }
            Err(NoCharacter::NotJson) => return Err(NotJson.into()),
        });
    }
    Ok(element_name(characters.into_iter()))
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

/// An open container: the element it is in, and whether its values have names of their own.
struct Container {
    element: String,
    is_object: bool,
}

/// Writes JSON text as the element `name`. Depth costs heap, not stack: PostgreSQL accepts thousands of levels.
fn write_json(name: &str, text: &str, replacer: &mut Replacer, out: &mut Out<'_>) -> Result<(), Unwritable> {
    let mut tokens = Tokens::new(text);
    let mut open_containers: Vec<Container> = Vec::new();
    loop {
        // Here a value stands, or the end of a container; in an object its key comes first.
        let token = tokens.next()?.ok_or(NotJson)?;
        let container = open_containers.last();
        let ends = matches!(token, Token::ObjectEnd | Token::ArrayEnd);
        let key;
        let (element, value) = match (container, token) {
            (None, value) => (name, value),
            (Some(_), end) if ends => ("", end),
            (Some(Container { is_object: false, .. }), value) => ("item", value),
            (Some(Container { is_object: true, .. }), Token::String(raw)) => {
                key = key_name(raw, replacer)?;
                if tokens.next()? != Some(Token::Colon) {
                    return Err(NotJson.into());
                }
                (key.as_str(), tokens.next()?.ok_or(NotJson)?)
            }
            _ => return Err(NotJson.into()),
        };
        match value {
            Token::ObjectStart | Token::ArrayStart => {
                open(element, out);
                let is_object = value == Token::ObjectStart;
                open_containers.push(Container { element: element.to_owned(), is_object });
                continue;
            }
            Token::String(raw) => {
                open(element, out);
                write_unescaped(raw, replacer, out)?;
                close(element, out);
            }
            Token::Word("null") => nil(element, out),
            Token::Word(word) => {
                open(element, out);
                out.extend_from_slice(word.as_bytes());
                close(element, out);
            }
            Token::ObjectEnd | Token::ArrayEnd => {
                let ended = open_containers.pop().filter(|it| it.is_object == (value == Token::ObjectEnd));
                close(&ended.ok_or(NotJson)?.element, out);
            }
            Token::Comma | Token::Colon => return Err(NotJson.into()),
        }
        out.relieve()?;
        // Behind a value: a comma, or the ends of containers, or the end of the text.
        loop {
            let Some(container) = open_containers.last() else {
                return if tokens.next()?.is_none() { Ok(()) } else { Err(NotJson.into()) };
            };
            match (tokens.next()?, container.is_object) {
                (Some(Token::Comma), _) => break,
                (Some(Token::ObjectEnd), true) | (Some(Token::ArrayEnd), false) => {
                    close(&container.element, out);
                    open_containers.pop();
                }
                _ => return Err(NotJson.into()),
            }
        }
    }
}

fn write_element(name: &str, value: Value<'_>, replacer: &mut Replacer, out: &mut Out<'_>) -> Result<(), Unwritable> {
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

fn write_array(name: &str, array: Array<'_>, replacer: &mut Replacer, out: &mut Out<'_>) -> Result<(), Unwritable> {
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
        out.relieve()?;
    }
    close(name, out);
    Ok(())
}

impl Encode for Xml {
    fn begin(&mut self, out: &mut Out<'_>) -> Result<(), EncodeError> {
        out.extend_from_slice(
            b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<records xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">\n",
        );
        Ok(())
    }

    fn row(&mut self, row: Row<'_>, out: &mut Out<'_>) -> Result<(), EncodeError> {
        out.extend_from_slice(b"<record>");
        for (index, ((column, name), field)) in self.columns.iter().zip(&self.names).zip(row.fields()).enumerate() {
            let Some(bytes) = field else {
                nil(name, out);
                continue;
            };
            let mut replacer = Replacer { allowed: self.exactness.replaces(), problem: None };
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
                self.exactness.count(index, problem, REPLACEMENT);
            }
        }
        out.extend_from_slice(b"</record>\n");
        Ok(())
    }

    fn end(&mut self, out: &mut Out<'_>) -> Result<(), EncodeError> {
        out.extend_from_slice(b"</records>\n");
        Ok(())
    }

    fn replacements(&self) -> &[Replacement] {
        self.exactness.replacements()
    }
}

#[cfg(test)]
mod tests {
    use super::super::out::tests::written;
    use super::*;

    fn strict() -> Replacer {
        Replacer { allowed: false, problem: None }
    }

    /// The JSON as XML, or the words for why there is none.
    fn xml(text: &str) -> Result<String, &'static str> {
        let mut result = Ok(());
        let out = written(|out| result = write_json("m", text, &mut strict(), out));
        match result {
            Ok(()) => Ok(String::from_utf8(out).unwrap()),
            Err(Unwritable::Character(problem)) => Err(problem),
            Err(Unwritable::Undecodable(ValueError::Json)) => Err("not JSON"),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_xml_does_not_have_is_replaced_on_wish() {
        for (json, expected) in [
            (r#""a\u0001b""#, "<m>a\u{FFFD}b</m>"),
            (r#""\ud800x""#, "<m>\u{FFFD}x</m>"),
            (r#"{"\udc00": 1}"#, "<m><\u{FFFD}>1</\u{FFFD}></m>"),
        ] {
            let mut replacer = Replacer { allowed: true, problem: None };
            let out = written(|out| write_json("m", json, &mut replacer, out).unwrap());
            assert_eq!(String::from_utf8(out).unwrap(), expected);
            assert!(replacer.problem.is_some());
        }
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
    fn json_becomes_nested_elements() {
        for (json, expected) in [
            ("5", "<m>5</m>"),
            ("null", "<m xsi:nil=\"true\"/>"),
            ("\"a<b\\u0026\"", "<m>a&lt;b&amp;</m>"),
            ("{}", "<m></m>"),
            ("[]", "<m></m>"),
            ("[[1, 2.50], null]", "<m><item><item>1</item><item>2.50</item></item><item xsi:nil=\"true\"/></m>"),
            (
                "{\"a\": {\"b c\": true}, \"t\": [\"x\", {\"\": \"\"}]}",
                "<m><a><b_x0020_c>true</b_x0020_c></a><t><item>x</item><item><_x_></_x_></item></t></m>",
            ),
        ] {
            assert_eq!(xml(json).as_deref().map_err(|_| ()), Ok(expected), "{json}");
        }
    }

    #[test]
    fn what_is_not_json_is_an_error() {
        for text in ["", "[", "{", "[1", "[1}", "{\"a\"}", "{\"a\" 1}", "1 2", "[,]", "{1:2}", "]", r#""\u12""#] {
            assert_eq!(xml(text), Err("not JSON"), "{text}");
        }
        assert_eq!(xml("\"\\u0001\""), Err(CONTROL));
        assert_eq!(xml(r#""\ud800""#), Err(SURROGATE));
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(xml(&deep).is_ok());
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
            assert_eq!(element_name(text.chars()), expected);
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
