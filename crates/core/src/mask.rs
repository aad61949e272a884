//! Masks: what the operator has files show in place of a column's values. Where the masked values are computed is the crate
//! `source`'s.

use serde::{Deserialize, Serialize};

use crate::column::{Column, TypeNames, WireType};

/// What stands in place of a value. NULL stays NULL under each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mask {
    /// A keyed hash of the value's text: equal values have equal hashes, in every dataset.
    Hash,
    /// The text with every character but the last four replaced by `*`; all of them where there are no more than four.
    Last4,
    /// NULL.
    Null,
}

impl Mask {
    /// The column as files have it: text under masks that change the text, of its own type where every value is NULL.
    #[must_use]
    pub fn column(self, column: &Column) -> Column {
        let nullable = Column { nullable: true, wide: false, ..column.clone() };
        match self {
            Self::Null => nullable,
            Self::Hash | Self::Last4 => Column {
                sql_type: "text".to_owned(),
                type_names: TypeNames::built_in("text"),
                wire: WireType::Text,
                array: None,
                // As long as the text that it masks.
                wide: self == Self::Last4 && column.wide,
                is_non_text: false,
                ..nullable
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::column::ArrayType;

    #[test]
    fn a_masked_column_is_text_or_null_of_its_own_type() {
        let numbers = Column {
            name: "n".to_owned(),
            sql_type: "bigint[]".to_owned(),
            type_names: TypeNames::built_in("int8"),
            wire: WireType::Int8,
            array: Some(ArrayType { dimensions: 1, delimiter: b',' }),
            nullable: false,
            wide: true,
            is_non_text: true,
        };
        for mask in [Mask::Hash, Mask::Last4] {
            let masked = mask.column(&numbers);
            assert_eq!((masked.sql_type.as_str(), masked.wire, masked.array), ("text", WireType::Text, None));
            assert!(masked.nullable && !masked.is_non_text);
            assert_eq!(masked.wide, mask == Mask::Last4);
        }
        assert_eq!(Mask::Null.column(&numbers), Column { nullable: true, wide: false, ..numbers });
    }

    #[test]
    fn masks_have_the_names_of_the_file() {
        for (mask, name) in [(Mask::Hash, "hash"), (Mask::Last4, "last4"), (Mask::Null, "null")] {
            assert_eq!(serde_json::to_value(mask).unwrap(), name);
        }
    }
}
