//! Where an encoder writes: a buffer that can be emptied in the middle of a value, so that one long value is never in
//! memory twice over as what it becomes.

use std::ops::{Deref, DerefMut};

/// Between rows the buffer is emptied when it has so many bytes, and a long value is written in pieces of so many.
pub const FLUSH_BYTES: usize = 64 * 1024;

/// Takes what was encoded further.
pub trait ByteSink {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Stopped>;
}

impl ByteSink for Vec<u8> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Stopped> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

/// The taker has stopped; it knows why.
#[derive(Debug, thiserror::Error)]
#[error("the stage behind the encoder has stopped")]
pub struct Stopped;

/// A buffer for encoded bytes; as a `Vec` for everything that is short.
pub struct EncodeBuffer<'a> {
    bytes: &'a mut Vec<u8>,
    to: &'a mut dyn ByteSink,
}

impl<'a> EncodeBuffer<'a> {
    /// `bytes` may hold what was written before and not handed on yet.
    pub fn new(bytes: &'a mut Vec<u8>, to: &'a mut dyn ByteSink) -> Self {
        Self { bytes, to }
    }

    /// Hands on what there is, if a row has made it twice as much as is handed on between rows: so that, but for a long
    /// row, what is handed on ends where a row ends.
    pub fn flush_if_full(&mut self) -> Result<(), Stopped> {
        if self.bytes.len() >= 2 * FLUSH_BYTES { self.empty() } else { Ok(()) }
    }

    /// Hands on what there is.
    pub fn empty(&mut self) -> Result<(), Stopped> {
        self.to.write(self.bytes)?;
        self.bytes.clear();
        // A value with long pieces may have made it larger than it has to be.
        self.bytes.shrink_to(FLUSH_BYTES * 2);
        Ok(())
    }

    /// Writes `text` by `write`, in pieces that end between characters, and hands on what piles up.
    pub(super) fn in_pieces<E: From<Stopped>>(
        &mut self,
        mut text: &str,
        mut write: impl FnMut(&str, &mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        while text.len() > FLUSH_BYTES {
            let (piece, rest) = text.split_at(text.floor_char_boundary(FLUSH_BYTES));
            write(piece, self.bytes)?;
            self.flush_if_full()?;
            text = rest;
        }
        write(text, self.bytes)
    }

    /// Writes `bytes` by `write`, in pieces of a multiple of `unit` bytes, and hands on what piles up.
    pub(super) fn in_chunks(
        &mut self,
        bytes: &[u8],
        unit: usize,
        mut write: impl FnMut(&[u8], &mut Vec<u8>),
    ) -> Result<(), Stopped> {
        for piece in bytes.chunks(FLUSH_BYTES / unit * unit) {
            write(piece, self.bytes);
            self.flush_if_full()?;
        }
        Ok(())
    }
}

impl Deref for EncodeBuffer<'_> {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        self.bytes
    }
}

impl DerefMut for EncodeBuffer<'_> {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_sink::Pieces;

    #[test]
    fn a_long_text_goes_on_in_pieces_and_is_whole() {
        let text = "é€😀x".repeat(40_000);
        let (mut bytes, mut pieces) = (Vec::new(), Pieces::default());
        let mut out = EncodeBuffer::new(&mut bytes, &mut pieces);
        out.in_pieces(&text, |piece, out| {
            out.extend_from_slice(piece.as_bytes());
            Ok::<_, Stopped>(())
        })
        .unwrap();
        out.empty().unwrap();
        assert!(pieces.0.len() > 2 && pieces.0.iter().all(|piece| piece.len() <= FLUSH_BYTES * 3));
        assert_eq!(pieces.0.concat(), text.as_bytes());
    }

    #[test]
    fn a_buffer_that_is_not_full_stays() {
        let (mut bytes, mut pieces) = (Vec::new(), Pieces::default());
        let mut out = EncodeBuffer::new(&mut bytes, &mut pieces);
        out.push(b'x');
        out.flush_if_full().unwrap();
        assert_eq!(out.len(), 1);
        assert!(pieces.0.is_empty());
    }
}
