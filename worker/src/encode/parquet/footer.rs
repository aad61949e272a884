//! One footer over row groups that were written apart: each description has offsets of its own, which are moved to where
//! the bytes are in the file.

use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{
    ColumnChunkMetaData, FileMetaData, ParquetMetaDataBuilder, ParquetMetaDataReader, ParquetMetaDataWriter,
    RowGroupMetaData,
};

/// At the beginning and at the end of every file.
pub(super) const MAGIC: &[u8] = b"PAR1";
/// Behind the description: its length, and the magic number.
const TAIL: usize = 8;

/// The footer of a file that consists of these pieces: for each, what its encoder said of it (`Encode::suspend`), and where
/// in the file the piece begins. The first begins with the magic number, the others do not.
///
/// # Errors
/// When a description cannot be read, which is a defect, or there is none.
pub(crate) fn footer(pieces: impl Iterator<Item = (u64, Vec<u8>)>) -> Result<Vec<u8>> {
    let mut file: Option<FileMetaData> = None;
    let (mut row_groups, mut rows) = (Vec::new(), 0);
    for (offset, description) in pieces {
        let thrift = description.len().checked_sub(TAIL).and_then(|end| description.get(..end));
        let thrift = thrift.ok_or_else(|| ParquetError::General("a footer that is too short".to_owned()))?;
        let metadata = ParquetMetaDataReader::decode_metadata(thrift)?;
        // Its own offsets count from a magic number, which only the first piece has.
        let magic = if file.is_some() { MAGIC.len() } else { 0 };
        let by = i64::try_from(offset).and_then(|offset| Ok(offset - i64::try_from(magic)?));
        let by = by.map_err(|error| ParquetError::External(Box::new(error)))?;
        rows += metadata.file_metadata().num_rows();
        for group in metadata.row_groups() {
            row_groups.push(moved(group.clone(), by, row_groups.len())?);
        }
        file.get_or_insert_with(|| metadata.file_metadata().clone());
    }
    let file = file.ok_or_else(|| ParquetError::General("a file without rows and schema".to_owned()))?;
    let file = FileMetaData::new(
        file.version(),
        rows,
        file.created_by().map(str::to_owned),
        file.key_value_metadata().cloned(),
        file.schema_descr_ptr(),
        file.column_orders().cloned(),
    );
    let metadata = ParquetMetaDataBuilder::new(file).set_row_groups(row_groups).build();
    let mut bytes = Vec::new();
    ParquetMetaDataWriter::new(&mut bytes, &metadata).finish()?;
    Ok(bytes)
}

fn moved(group: RowGroupMetaData, by: i64, ordinal: usize) -> Result<RowGroupMetaData> {
    let file_offset = group.file_offset();
    let mut builder = group.into_builder();
    let columns: Result<Vec<ColumnChunkMetaData>> = builder
        .take_columns()
        .into_iter()
        .map(|column| {
            let (data, dictionary) = (column.data_page_offset(), column.dictionary_page_offset());
            column
                .into_builder()
                .set_data_page_offset(data + by)
                .set_dictionary_page_offset(dictionary.map(|offset| offset + by))
                .build()
        })
        .collect();
    builder = builder.set_column_metadata(columns?);
    if let Some(offset) = file_offset {
        builder = builder.set_file_offset(offset + by);
    }
    if let Ok(ordinal) = i32::try_from(ordinal) {
        builder = builder.set_ordinal(ordinal);
    }
    builder.build()
}
