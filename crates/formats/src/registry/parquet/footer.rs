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

/// The length of the footer that ends in `tail`, which is 8 bytes long or more.
pub(super) fn length(tail: &[u8]) -> usize {
    let length = tail.len().checked_sub(TAIL).and_then(|start| tail[start..].first_chunk::<4>());
    length.map_or(0, |length| TAIL + usize::try_from(u32::from_le_bytes(*length)).unwrap_or(0))
}

/// The footer of a file that consists of these pieces: for each, what its encoder said of it (`Encode::finish_shard`), and where
/// in the file the piece begins. The first begins with the magic number, the others do not.
///
/// # Errors
/// When a description cannot be read, which is a defect, or there is none.
pub(super) fn footer(pieces: &mut dyn Iterator<Item = (u64, Vec<u8>)>) -> Result<Vec<u8>> {
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

#[cfg(test)]
mod tests {
    use arrow_array::RecordBatchReader;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use polyglot_core::column::WireType;
    use polyglot_core::format_options::FormatOptions;

    use super::super::PARQUET;
    use super::*;
    use crate::copy::FieldIndex;
    use crate::encode_buffer::EncodeBuffer;
    use crate::output_column::OutputColumn;
    use crate::test_sink::Pieces;

    fn column() -> OutputColumn {
        OutputColumn { name: "id".to_owned(), wire: WireType::Int8, array: None, is_non_text: true }
    }

    /// A shard of these rows, and its description. What is finished is asked for before there is any, as it is behind a batch
    /// that was small.
    fn shard(first: bool, ids: std::ops::Range<i64>) -> (Vec<u8>, Vec<u8>) {
        let mut encoder = PARQUET.encoder(&FormatOptions::default(), &[column()], 3);
        let (mut scratch, mut pieces, mut file) = (Vec::new(), Pieces::default(), Vec::new());
        if first {
            encoder.begin(&mut EncodeBuffer::new(&mut scratch, &mut pieces)).unwrap();
        } else {
            encoder.continue_shard();
        }
        file.extend(std::iter::from_fn(|| encoder.finished()).flatten());
        for id in ids {
            let row = [&[0, 1, 0, 0, 0, 8][..], &id.to_be_bytes()].concat();
            let mut index = FieldIndex::default();
            let (row, _) = index.read(&row, 1).unwrap();
            encoder.row(row, &mut EncodeBuffer::new(&mut scratch, &mut pieces)).unwrap();
        }
        let description = encoder.finish_shard().unwrap().unwrap();
        file.extend(std::iter::from_fn(|| encoder.finished()).flatten());
        (file, description)
    }

    #[test]
    fn shards_that_were_written_apart_are_one_file() {
        // One without rows, and one of several batches.
        let ranges = [0..5, 5..20_000, 20_000..20_000, 20_000..20_001];
        let (mut file, mut pieces) = (Vec::new(), Vec::new());
        for (index, range) in ranges.into_iter().enumerate() {
            let (bytes, description) = shard(index == 0, range);
            pieces.push((u64::try_from(file.len()).unwrap(), description));
            file.extend(bytes);
        }
        let assembled = footer(&mut pieces.into_iter()).unwrap();
        assert_eq!(length(&assembled), assembled.len());
        file.extend(assembled);
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(file)).unwrap();
        assert_eq!(builder.metadata().file_metadata().num_rows(), 20_001);
        let ordinals: Vec<_> = builder.metadata().row_groups().iter().map(RowGroupMetaData::ordinal).collect();
        assert_eq!(ordinals, [Some(0), Some(1), Some(2)]);
        let reader = builder.build().unwrap();
        assert_eq!(reader.schema().fields().len(), 1);
        let ids: Vec<i64> = reader
            .flat_map(|batch| {
                let ids = batch.unwrap().column(0).clone();
                ids.as_any().downcast_ref::<arrow_array::Int64Array>().unwrap().values().to_vec()
            })
            .collect();
        assert!(ids.iter().copied().eq(0..20_001));
    }

    #[test]
    fn what_is_no_description_is_an_error() {
        assert!(footer(&mut std::iter::once((0, vec![1, 2, 3]))).is_err());
        assert!(footer(&mut std::iter::once((0, vec![0xff; 100]))).is_err());
        assert!(footer(&mut std::iter::empty()).is_err());
    }
}
