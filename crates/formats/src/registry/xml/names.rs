//! Names of elements: what a name may not hold is escaped as `_xHHHH_`.

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
pub(super) fn write_name_character(
    character: char,
    first: bool,
    next: Option<char>,
    head: [Option<char>; 3],
    out: &mut Vec<u8>,
) {
    let reserved = || matches!(head, [Some('x' | 'X'), Some('m' | 'M'), Some('l' | 'L')]);
    let allowed = if first { starts_name(character) && !reserved() } else { continues_name(character) };
    if allowed && !(character == '_' && next == Some('x')) {
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    } else {
        out.extend_from_slice(format!("_x{:04X}_", u32::from(character)).as_bytes());
    }
}

pub(super) const EMPTY_NAME: &[u8] = b"_x_";

/// An XML name for any text, and another one for any other text. No text at all becomes `_x_`.
pub(super) fn element_name(text: &str) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
