//! Sinks for the tests of encoders.

use crate::encode_buffer::{ByteSink, EncodeBuffer, Stopped};

/// Keeps what comes, in its pieces.
#[derive(Default)]
pub(crate) struct Pieces(pub Vec<Vec<u8>>);

impl ByteSink for Pieces {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Stopped> {
        self.0.push(bytes.to_vec());
        Ok(())
    }
}

/// What `write` writes, all of it.
pub(crate) fn written(write: impl FnOnce(&mut EncodeBuffer<'_>)) -> Vec<u8> {
    let (mut bytes, mut pieces) = (Vec::new(), Pieces::default());
    let mut out = EncodeBuffer::new(&mut bytes, &mut pieces);
    write(&mut out);
    out.empty().unwrap();
    pieces.0.concat()
}
