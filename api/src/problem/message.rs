//! Parts of messages to clients: quoted text and lists of choices.

use std::fmt::Display;

/// Quotes a client's own text inside a message: control characters escaped, at most 80 characters.
pub(crate) fn quoted(text: &str) -> String {
    const MAX_CHARACTERS: usize = 80;
    match text.char_indices().nth(MAX_CHARACTERS) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// Joins names with commas, for messages that list the choices.
pub(crate) fn listed<T: Display>(names: impl IntoIterator<Item = T>) -> String {
    names.into_iter().map(|name| name.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_s_text_is_cut_at_a_character() {
        assert_eq!(quoted("a\"\u{0}b"), "\"a\\\"\\0b\"");
        assert_eq!(quoted(&"ü".repeat(200)), format!("\"{}\"…", "ü".repeat(80)));
    }
}
