//! Finished bytes of a file, until they are fetched.

use std::collections::VecDeque;
use std::io::Write;

/// Finished bytes in pieces of one size, so that a batch or a row group is never copied to make one growing buffer larger.
#[derive(Default)]
pub(crate) struct Pieces(pub VecDeque<Vec<u8>>);

const PIECE_BYTES: usize = 128 << 10;

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.back().is_none_or(|piece| piece.len() == PIECE_BYTES) {
            self.0.push_back(Vec::with_capacity(PIECE_BYTES));
        }
        let Some(piece) = self.0.back_mut() else { return Ok(0) };
        let written = bytes.len().min(PIECE_BYTES - piece.len());
        piece.extend_from_slice(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
