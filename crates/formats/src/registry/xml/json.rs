//! JSON as nested elements: an element a key, `<item>` an array's item. What is long, names included, goes out in pieces.

use smallvec::SmallVec;

use super::characters::{CONTROL, Replacer, SURROGATE, Unwritable, allowed, write_text};
use super::names::{EMPTY_NAME, write_name_character};
use crate::encode_buffer::EncodeBuffer;
use crate::text::{NoCharacter, NotJson, Token, Tokens, unescape};

/// An element's name: as it is, or an object's key, raw, which becomes one as it is written.
#[derive(Debug, Clone, Copy)]
enum Name<'a> {
    Ready(&'a str),
    Key(&'a str),
}

impl<'a> Name<'a> {
    /// Most keys are names as they are, and need not be looked at character by character when they are written.
    fn of_key(raw: &'a str) -> Self {
        if is_plain_name(raw) { Self::Ready(raw) } else { Self::Key(raw) }
    }

    fn write(self, replacer: &mut Replacer, out: &mut EncodeBuffer<'_>) -> Result<(), Unwritable> {
        let raw = match self {
            Self::Ready(name) => {
                out.extend_from_slice(name.as_bytes());
                return Ok(());
            }
            Self::Key(raw) => raw,
        };
        // What a name cannot hold is escaped in it; only half a surrogate pair is no character at all.
        let mut characters = unescape(raw).map(|character| match character {
            Ok(character) => Ok(character),
            Err(NoCharacter::LoneSurrogate) => {
                replacer.replace(SURROGATE, &mut Vec::new()).map(|()| char::REPLACEMENT_CHARACTER)
            }
            Err(NoCharacter::NotJson) => Err(NotJson.into()),
        });
        let mut head = [None; 3];
        for slot in &mut head {
            *slot = characters.next().transpose()?;
        }
        let mut first = true;
        let mut characters = head.into_iter().flatten().map(Ok).chain(characters).peekable();
        while let Some(character) = characters.next() {
            let next = characters.peek().and_then(|next| next.as_ref().ok().copied());
            write_name_character(character?, first, next, head, out);
            out.flush_if_full()?;
            first = false;
        }
        if first {
            out.extend_from_slice(EMPTY_NAME);
        }
        Ok(())
    }

    fn open(self, replacer: &mut Replacer, out: &mut EncodeBuffer<'_>) -> Result<(), Unwritable> {
        out.push(b'<');
        self.write(replacer, out)?;
        out.push(b'>');
        Ok(())
    }

    fn close(self, replacer: &mut Replacer, out: &mut EncodeBuffer<'_>) -> Result<(), Unwritable> {
        out.extend_from_slice(b"</");
        self.write(replacer, out)?;
        out.push(b'>');
        Ok(())
    }

    fn nil(self, replacer: &mut Replacer, out: &mut EncodeBuffer<'_>) -> Result<(), Unwritable> {
        out.push(b'<');
        self.write(replacer, out)?;
        out.extend_from_slice(b" xsi:nil=\"true\"/>");
        Ok(())
    }
}

/// Whether a key is an element's name without any change. Of the others some are as well; those take the long way.
fn is_plain_name(raw: &str) -> bool {
    let Some(first) = raw.as_bytes().first() else { return false };
    // No "xml" in front and no "_x", which may have to be escaped.
    if !first.is_ascii_alphabetic() || matches!(first, b'x' | b'X') {
        return false;
    }
    let mut before = 0;
    raw.bytes().all(|byte| {
        let escape = before == b'_' && byte == b'x';
        before = byte;
        !escape && (byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
    })
}

fn write_string(raw: &str, replacer: &mut Replacer, out: &mut EncodeBuffer<'_>) -> Result<(), Unwritable> {
    if !raw.as_bytes().contains(&b'\\') {
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
        out.flush_if_full()?;
    }
    Ok(())
}

/// An open container: the element it is in, and whether its values have names of their own.
struct Container<'a> {
    element: Name<'a>,
    is_object: bool,
}

/// Writes JSON text as the element `name`. Depth costs heap, not stack: PostgreSQL accepts thousands of levels.
pub(super) fn write_json(
    name: &str,
    text: &str,
    replacer: &mut Replacer,
    out: &mut EncodeBuffer<'_>,
) -> Result<(), Unwritable> {
    let mut tokens = Tokens::new(text);
    // Most JSON is not deep, and costs no allocation.
    let mut open_containers = SmallVec::<[Container<'_>; 4]>::new();
    loop {
        // Here a value stands, or the end of a container; in an object its key comes first.
        let token = tokens.next()?.ok_or(NotJson)?;
        let container = open_containers.last();
        let ends = matches!(token, Token::ObjectEnd | Token::ArrayEnd);
        let (element, value) = match (container, token) {
            (None, value) => (Name::Ready(name), value),
            (Some(container), end) if ends => (container.element, end),
            (Some(Container { is_object: false, .. }), value) => (Name::Ready("item"), value),
            (Some(Container { is_object: true, .. }), Token::String(raw)) => {
                if tokens.next()? != Some(Token::Colon) {
                    return Err(NotJson.into());
                }
                (Name::of_key(raw), tokens.next()?.ok_or(NotJson)?)
            }
            _ => return Err(NotJson.into()),
        };
        match value {
            Token::ObjectStart | Token::ArrayStart => {
                element.open(replacer, out)?;
                let is_object = value == Token::ObjectStart;
                open_containers.push(Container { element, is_object });
                continue;
            }
            Token::String(raw) => {
                element.open(replacer, out)?;
                write_string(raw, replacer, out)?;
                element.close(replacer, out)?;
            }
            Token::Word("null") => element.nil(replacer, out)?,
            Token::Word(word) => {
                element.open(replacer, out)?;
                out.extend_from_slice(word.as_bytes());
                element.close(replacer, out)?;
            }
            Token::ObjectEnd | Token::ArrayEnd => {
                let ended = open_containers.pop().filter(|it| it.is_object == (value == Token::ObjectEnd));
                ended.ok_or(NotJson)?.element.close(replacer, out)?;
            }
            Token::Comma | Token::Colon => return Err(NotJson.into()),
        }
        out.flush_if_full()?;
        // Behind a value: a comma, or the ends of containers, or the end of the text.
        loop {
            let Some(container) = open_containers.last() else {
                return if tokens.next()?.is_none() { Ok(()) } else { Err(NotJson.into()) };
            };
            match (tokens.next()?, container.is_object) {
                (Some(Token::Comma), _) => break,
                (Some(Token::ObjectEnd), true) | (Some(Token::ArrayEnd), false) => {
                    container.element.close(replacer, out)?;
                    open_containers.pop();
                }
                _ => return Err(NotJson.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::ValueError;
    use crate::test_sink::written;

    /// The JSON as XML, or the words for why there is none.
    fn xml(text: &str) -> Result<String, &'static str> {
        let mut result = Ok(());
        let out = written(|out| result = write_json("m", text, &mut Replacer { allowed: false, problem: None }, out));
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
    fn a_long_key_is_written_in_pieces() {
        let key = "a ".repeat(200_000);
        let expected = "a_x0020_".repeat(200_000);
        assert_eq!(xml(&format!("{{\"{key}\": 1}}")).unwrap(), format!("<m><{expected}>1</{expected}></m>"));
    }
}
