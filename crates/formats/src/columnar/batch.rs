//! Rows into a record batch, value by value, with what is done about values that a column cannot hold.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, Schema, SchemaRef};
use polyglot_core::format_options::ParquetOptions;

use super::column::{self, Builder, Refused};
use super::shown::shown;
use crate::copy::{Array, Row, Value, ValueError};
use crate::encode::{EncodeError, undecodable};
use crate::output_column::OutputColumn;
use crate::unrepresentable_policy::{Replacement, UnrepresentablePolicy};

/// Bytes that a value takes in a builder at least, NULL or not.
const VALUE_BYTES: usize = 16;

/// Gathers rows until they are taken as a batch.
pub(crate) struct BatchBuilder {
    /// The format, in messages.
    format: &'static str,
    columns: Vec<OutputColumn>,
    builders: Vec<Builder>,
    schema: SchemaRef,
    rows: usize,
    bytes: usize,
    /// Items of the array at hand, where they come as text.
    items: Vec<u8>,
    unrepresentable_policy: UnrepresentablePolicy,
}

impl BatchBuilder {
    pub(crate) fn new(
        format: &'static str,
        columns: &[OutputColumn],
        options: ParquetOptions,
        unrepresentable_policy: UnrepresentablePolicy,
    ) -> Self {
        let (builders, fields): (Vec<_>, Vec<_>) = columns.iter().map(|it| column::column(it, options)).unzip();
        Self {
            format,
            columns: columns.to_vec(),
            builders,
            schema: Arc::new(Schema::new(fields)),
            rows: 0,
            bytes: 0,
            items: Vec::new(),
            unrepresentable_policy,
        }
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Rows since the last batch.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of their values, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a row. `look_at` is given each field that is not NULL, with its column's place.
    pub(crate) fn push(&mut self, row: Row<'_>, mut look_at: impl FnMut(usize, &[u8])) -> Result<(), EncodeError> {
        for (index, ((column, builder), field)) in
            self.columns.iter().zip(&mut self.builders).zip(row.fields()).enumerate()
        {
            self.bytes += field.map_or(0, <[u8]>::len).max(VALUE_BYTES);
            let Some(bytes) = field else {
                builder.append_null();
                continue;
            };
            look_at(index, bytes);
            let unrepresentable_policy = &mut self.unrepresentable_policy;
            let mut replace = |problem| {
                unrepresentable_policy.replace(index, problem, "NULL").map_err(|_| Refused::Unrepresentable(problem))
            };
            let taken = match column.array {
                None => builder.append(Value::read(column.wire, bytes).map_err(undecodable(column))?),
                Some(array) => Array::read(column.wire, array, bytes, &mut self.items)
                    .map_err(Refused::Undecodable)
                    .and_then(|array| builder.append_array(array, &mut replace)),
            };
            let taken = match taken {
                Err(Refused::Unrepresentable(problem)) => replace(problem).map(|()| builder.append_null()),
                other => other,
            };
            taken.map_err(|refused| match refused {
                Refused::Unrepresentable(problem) => {
                    EncodeError::Unrepresentable { column: column.name.clone(), format: self.format, problem }
                }
                Refused::Undecodable(source) => EncodeError::Undecodable { column: column.name.clone(), source },
                Refused::Mismatch => {
                    EncodeError::Undecodable { column: column.name.clone(), source: ValueError::Range }
                }
            })?;
        }
        self.rows += 1;
        Ok(())
    }

    /// The rows since the last batch, if there are any.
    pub(crate) fn take(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        if self.rows == 0 {
            return Ok(None);
        }
        let arrays = self.builders.iter_mut().map(Builder::finish).collect();
        (self.rows, self.bytes) = (0, 0);
        RecordBatch::try_new(self.schema.clone(), arrays).map(Some)
    }

    /// The values of the one row since the last batch, for people.
    pub(crate) fn shown(&mut self) -> Result<Vec<Option<String>>, ArrowError> {
        let batch = self.take()?;
        let columns = batch.iter().flat_map(|batch| batch.schema_ref().fields().iter().zip(batch.columns()));
        columns.map(|(field, values)| shown(field, values, 0)).collect()
    }

    pub(crate) fn replacements(&self) -> &[Replacement] {
        self.unrepresentable_policy.replacements()
    }
}
