//! The hashes of masked columns: the digests that the source sends are put under the key of the masks before anything reads them.

use bytes::BytesMut;
use polyglot_core::failure::{Failure, FailureKind};
use polyglot_source::mask::MaskKey;

use crate::plan::Plan;
use crate::read::Batch;
use polyglot_formats::copy::{FieldIndex, Malformed};

/// Puts the key on the digests of each batch.
pub(crate) struct MaskHashes(Option<Keyed>);

/// Present where there are digests.
struct Keyed {
    key: MaskKey,
    digests: Vec<usize>,
    /// Number of fields of a row.
    fields: usize,
    index: FieldIndex,
}

impl MaskHashes {
    /// The hashes of a plan's columns.
    ///
    /// # Errors
    /// When there are some, and no key.
    pub(crate) fn of(plan: &Plan, key: Option<MaskKey>) -> Result<Self, Failure> {
        if plan.digests.is_empty() {
            return Ok(Self(None));
        }
        let key = key.ok_or_else(|| {
            Failure::new(
                FailureKind::PolicyNotApplicable,
                "The dataset has a column whose values are hashed, and the worker has no key for that.",
                "set MASK_KEY for every worker, to the value that the api has",
            )
        })?;
        Ok(Self(Some(Keyed {
            key,
            digests: plan.digests.clone(),
            fields: plan.fields(),
            index: FieldIndex::default(),
        })))
    }

    /// The batch with hashes in place of digests.
    pub(crate) fn put_on(&mut self, batch: Batch) -> Result<Batch, Failure> {
        let Some(Keyed { key, digests, fields, index }) = &mut self.0 else { return Ok(batch) };
        let Batch { bytes, rows } = batch;
        // Nobody else has the bytes, unless one wide row came in a message of its own.
        let mut bytes = bytes.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
        let mut at = 0;
        for _ in 0..rows {
            let put_on =
                |digest: &mut [u8]| key.put_on(digest).map_err(|_| Malformed("a masked value without its digest"));
            let length = index.overwrite(&mut bytes[at..], *fields, digests, put_on).map_err(|error| {
                Failure::caused(FailureKind::Undecodable, "The source database sent data that cannot be read.", &error)
            })?;
            at += length;
        }
        Ok(Batch { bytes: bytes.freeze(), rows })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use polyglot_core::mask::Mask;
    use polyglot_core::relation::{Relation, RelationName};
    use polyglot_core::request::{ColumnMapping, ExportRequest};
    use polyglot_runtime::config::Environment;

    use super::*;

    fn plan(masked: &str) -> Plan {
        let columns = ["id", "email"].map(|name| ColumnMapping { source: name.to_owned(), target: name.to_owned() });
        let mut request = ExportRequest::new("d", RelationName::records(), "csv", columns.to_vec());
        request.grant.masks = [(masked.to_owned(), Mask::Hash)].into();
        Plan::of(Relation::for_test(&["id", "email", "other"], &[]), &request, 8 << 20).unwrap()
    }

    fn key() -> Option<MaskKey> {
        MaskKey::from_environment(&Environment::fixed(&[("MASK_KEY", "a key of more than 16 bytes")])).unwrap()
    }

    fn rows(emails: &[Option<&[u8]>]) -> Batch {
        let mut bytes = Vec::new();
        for email in emails {
            bytes.extend([0, 3, 0, 0, 0, 1, b'7']);
            match email {
                Some(email) => {
                    bytes.extend(u32::try_from(email.len()).unwrap().to_be_bytes());
                    bytes.extend_from_slice(email);
                }
                None => bytes.extend((-1_i32).to_be_bytes()),
            }
            // The size of a row that is too large.
            bytes.extend((-1_i32).to_be_bytes());
        }
        Batch { bytes: Bytes::from(bytes), rows: emails.len() }
    }

    #[test]
    fn every_digest_of_a_batch_is_put_under_the_key() {
        let plan = plan("email");
        assert_eq!((plan.digests.as_slice(), plan.fields()), (&[1][..], 3));
        let (one, other) = ([b'1'; MaskKey::DIGITS], [b'2'; MaskKey::DIGITS]);
        let batch = || rows(&[Some(&one[..]), None, Some(&other[..]), Some(&one[..])]);
        let (before, after) = (batch(), MaskHashes::of(&plan, key()).unwrap().put_on(batch()).unwrap());
        let mut expected = [one, other];
        for digest in &mut expected {
            key().unwrap().put_on(digest).unwrap();
        }
        let expected = rows(&[Some(&expected[0][..]), None, Some(&expected[1][..]), Some(&expected[0][..])]);
        assert_eq!((&after.bytes, after.rows), (&expected.bytes, 4));
        assert_ne!(after.bytes, before.bytes);
        // What is no digest is not passed on.
        let failure = MaskHashes::of(&plan, key()).unwrap().put_on(rows(&[Some(b"a@b.c")])).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Undecodable);
    }

    #[test]
    fn a_key_is_needed_where_a_column_of_the_file_is_hashed() {
        let failure = MaskHashes::of(&plan("email"), None).err().unwrap();
        assert_eq!(failure.kind, FailureKind::PolicyNotApplicable);
        assert!(failure.detail.contains("MASK_KEY"));
        let unmasked = plan("other");
        let batch = MaskHashes::of(&unmasked, None).unwrap().put_on(rows(&[Some(b"a@b.c")])).unwrap();
        assert_eq!(batch.bytes, rows(&[Some(b"a@b.c")]).bytes);
    }
}
