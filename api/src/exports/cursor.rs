//! Cursors of the list of exports: the position where a page ends, as an opaque token.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

/// First byte of every cursor. A later kind of cursor gets another one.
const VERSION: u8 = 1;

pub(super) fn encode(last: Uuid) -> String {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(last.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn decode(text: &str) -> Option<Uuid> {
    match URL_SAFE_NO_PAD.decode(text).ok()?.as_slice() {
        [VERSION, id @ ..] => Uuid::from_slice(id).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_come_back() {
        let id = Uuid::now_v7();
        assert_eq!(decode(&encode(id)), Some(id));
        for bad in ["", "AQ", "x", "é", &encode(id)[1..], &format!("{}A", encode(id)), &id.to_string()] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }
}
