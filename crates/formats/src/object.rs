//! The names and headers of the objects that an export consists of.

use polyglot_core::compression::Compression;
use polyglot_core::format_options::FileEncoding;
use polyglot_core::request::{Layout, ObjectHeaders};
use uuid::Uuid;

use crate::registry::Format;

impl Format {
    /// The name a browser saves the file under: `export-{id}.{ext}`. The body of a compressed download is
    /// declared with `Content-Encoding`, so clients unpack it on the way and the name stays without `.gz`.
    #[must_use]
    pub fn file_name(self, export_id: Uuid) -> String {
        format!("export-{export_id}.{}", self.extension)
    }

    /// The headers of an export's one file.
    #[must_use]
    pub fn file_headers(
        self,
        export_id: Uuid,
        compression: Option<Compression>,
        encoding: FileEncoding,
    ) -> ObjectHeaders {
        let name = self.file_name(export_id);
        match (compression, encoding) {
            (Some(compression), FileEncoding::File) => archive(compression, &format!("{name}{}", compression.suffix())),
            _ => self.object_headers(compression, Layout::File, &name),
        }
    }

    /// The name of an object among several. Compressed ones say so, for they are read as they are.
    #[must_use]
    pub fn part_name(self, number: i32, compression: Option<Compression>) -> String {
        format!("part-{number:05}.{}{}", self.extension, compression.map_or("", Compression::suffix))
    }

    /// The headers of an object under the name `file`. One among several is an archive where it is compressed, for it is
    /// read from the store by programs that go by its name; a single one is unpacked on its way to the client.
    #[must_use]
    pub fn object_headers(self, compression: Option<Compression>, layout: Layout, file: &str) -> ObjectHeaders {
        match (compression, layout) {
            (Some(compression), Layout::Files) => archive(compression, file),
            (compression, _) => ObjectHeaders {
                content_type: self.media_type,
                content_encoding: compression.map(Compression::content_encoding),
                content_disposition: attachment(file),
            },
        }
    }
}

/// The headers of a file that stays compressed.
fn archive(compression: Compression, file: &str) -> ObjectHeaders {
    ObjectHeaders {
        content_type: compression.content_type(),
        content_encoding: None,
        content_disposition: attachment(file),
    }
}

/// The `Content-Disposition` of a file to be saved under a name of ours: ASCII, and no quotes in it.
fn attachment(file_name: &str) -> String {
    format!("attachment; filename=\"{file_name}\"")
}
