//! Text of XML 1.0, and the characters that it cannot hold: most control characters, not even escaped, and halves of
//! surrogate pairs.

use crate::copy::ValueError;
use crate::encode_buffer::Stopped;
use crate::text::NotJson;

/// Why a value has no place in XML.
#[derive(Debug)]
pub(super) enum Unwritable {
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

pub(super) const CONTROL: &str = "a control character";
pub(super) const SURROGATE: &str = "one half of a surrogate pair";
pub(super) const REPLACEMENT: &str = "U+FFFD";

/// Characters of one value that XML does not have: refused, or replaced and remembered.
pub(super) struct Replacer {
    pub(super) allowed: bool,
    /// The first problem of the value.
    pub(super) problem: Option<&'static str>,
}

impl Replacer {
    pub(super) fn replace(&mut self, problem: &'static str, out: &mut Vec<u8>) -> Result<(), Unwritable> {
        if !self.allowed {
            return Err(Unwritable::Character(problem));
        }
        self.problem.get_or_insert(problem);
        out.extend_from_slice("\u{FFFD}".as_bytes());
        Ok(())
    }
}

/// `Char` of XML 1.0 without what UTF-8 excludes already.
pub(super) fn allowed(character: char) -> bool {
    !matches!(character, '\0'..='\x08' | '\x0B' | '\x0C' | '\x0E'..='\x1F' | '\u{FFFE}' | '\u{FFFF}')
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
pub(super) fn write_text(text: &str, replacer: &mut Replacer, out: &mut Vec<u8>) -> Result<(), Unwritable> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
