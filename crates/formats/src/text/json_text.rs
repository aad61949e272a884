//! Walking JSON text token by token, without a tree: what turns `json` and `jsonb` into XML. PostgreSQL has
//! checked the text, so this accepts a little more than JSON; what makes no sense is an error, never a panic.

/// A token. Strings are raw, with their escapes, between the quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    ObjectStart,
    ObjectEnd,
    ArrayStart,
    ArrayEnd,
    Comma,
    Colon,
    String(&'a str),
    /// A number, `true`, `false` or `null`.
    Word(&'a str),
}

/// The text is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotJson;

/// The first quote or backslash from `at` on. By words of eight bytes, which most strings fit into: a search by larger blocks
/// takes longer to begin.
fn quote_or_backslash(bytes: &[u8], mut at: usize) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    // The high bit of each byte that is zero, and of some behind the first that is (Mycroft).
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & (ONES << 7);
    while let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let word = u64::from_le_bytes(*word);
        let found = zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * u64::from(b'\\')));
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    let rest = bytes.get(at..)?;
    rest.iter().position(|byte| matches!(byte, b'"' | b'\\')).map(|position| at + position)
}

pub(crate) struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The next token, or `None` at the end of the text.
    #[expect(clippy::inline_always, reason = "what comes next is told best by where it is asked")]
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Result<Option<Token<'a>>, NotJson> {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        let Some(first) = bytes.get(self.at) else { return Ok(None) };
        let single = match first {
            b'{' => Some(Token::ObjectStart),
            b'}' => Some(Token::ObjectEnd),
            b'[' => Some(Token::ArrayStart),
            b']' => Some(Token::ArrayEnd),
            b',' => Some(Token::Comma),
            b':' => Some(Token::Colon),
            _ => None,
        };
        if let Some(token) = single {
            self.at += 1;
            return Ok(Some(token));
        }
        let start = self.at;
        if *first == b'"' {
            let mut at = start + 1;
            loop {
                at = quote_or_backslash(bytes, at).ok_or(NotJson)?;
                if bytes[at] == b'"' {
                    self.at = at + 1;
                    return Ok(Some(Token::String(&self.text[start + 1..at])));
                }
                at += 2;
            }
        }
        let word = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
        let length = bytes[start..].iter().take_while(|byte| word(byte)).count();
        if length == 0 {
            return Err(NotJson);
        }
        self.at = start + length;
        Ok(Some(Token::Word(&self.text[start..self.at])))
    }
}

/// Why an escape has no character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoCharacter {
    /// One half of a surrogate pair, which `json` (not `jsonb`) may hold.
    LoneSurrogate,
    NotJson,
}

/// The characters of a raw string with its escapes resolved.
pub(crate) fn unescape(raw: &str) -> impl Iterator<Item = Result<char, NoCharacter>> + '_ {
    let mut chars = raw.chars();
    std::iter::from_fn(move || {
        let first = chars.next()?;
        if first != '\\' {
            return Some(Ok(first));
        }
        Some(match chars.next() {
            Some('n') => Ok('\n'),
            Some('t') => Ok('\t'),
            Some('r') => Ok('\r'),
            Some('b') => Ok('\u{8}'),
            Some('f') => Ok('\u{c}'),
            Some(same @ ('"' | '\\' | '/')) => Ok(same),
            Some('u') => unescape_unicode(&mut chars),
            _ => Err(NoCharacter::NotJson),
        })
    })
}

fn code_unit(chars: &mut std::str::Chars<'_>) -> Option<u32> {
    (0..4).try_fold(0, |value, _| Some(value * 16 + chars.next()?.to_digit(16)?))
}

fn unescape_unicode(chars: &mut std::str::Chars<'_>) -> Result<char, NoCharacter> {
    let first = code_unit(chars).ok_or(NoCharacter::NotJson)?;
    if let Some(character) = char::from_u32(first) {
        return Ok(character);
    }
    // What follows belongs to a high half only if it is a low one.
    let mut ahead = chars.clone();
    if first < 0xDC00 && ahead.next() == Some('\\') && ahead.next() == Some('u') {
        let low = code_unit(&mut ahead).ok_or(NoCharacter::NotJson)?;
        if (0xDC00..0xE000).contains(&low) {
            *chars = ahead;
            return char::from_u32(0x10000 + ((first - 0xD800) << 10) + (low - 0xDC00)).ok_or(NoCharacter::NotJson);
        }
    }
    Err(NoCharacter::LoneSurrogate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Result<Vec<Token<'_>>, NotJson> {
        let mut all = Vec::new();
        let mut tokens = Tokens::new(text);
        while let Some(token) = tokens.next()? {
            all.push(token);
        }
        Ok(all)
    }

    #[test]
    fn tokens_are_found() {
        use Token::{ArrayEnd, ArrayStart, Colon, Comma, ObjectEnd, ObjectStart, String, Word};
        assert_eq!(
            tokens(r#" {"a\"b" : [1.50, -2e+7,null ]} "#).unwrap(),
            [
                ObjectStart,
                String(r#"a\"b"#),
                Colon,
                ArrayStart,
                Word("1.50"),
                Comma,
                Word("-2e+7"),
                Comma,
                Word("null"),
                ArrayEnd,
                ObjectEnd
            ]
        );
        for nonsense in ["\"", "\"\\", "\"\\\"", "%", "{\"a\" é}"] {
            assert_eq!(tokens(nonsense), Err(NotJson), "{nonsense}");
        }
    }

    #[test]
    fn strings_are_unescaped_as_serde_json_does() {
        for raw in [r"plain", r#"\"\\\/\b\f\n\r\t"#, r"\u00e9\u20AC", r"\ud83d\ude00 x", "é😀"] {
            let expected: String = serde_json::from_str(&format!("\"{raw}\"")).unwrap();
            assert_eq!(unescape(raw).collect::<Result<String, _>>().unwrap(), expected);
        }
        for raw in [r"\u12", r"\x", r"\ud83d\u12", "\\"] {
            assert!(unescape(raw).any(|c| c == Err(NoCharacter::NotJson)), "{raw}");
        }
        let lone = Err(NoCharacter::LoneSurrogate);
        for (raw, rest) in
            [(r"\ud83d", ""), (r"\ude00", ""), (r"\ud83dxy", "xy"), (r"\ud83d\u0041", "A"), (r"\ud83d\n", "\n")]
        {
            let all: Vec<_> = unescape(raw).collect();
            assert_eq!(all[0], lone, "{raw}");
            assert_eq!(all[1..].iter().map(|c| c.unwrap()).collect::<String>(), rest, "{raw}");
        }
    }
}
