//! The option `uuid`: whether a uuid has the format's own type, or is text.

use polyglot_core::format_options::UuidPolicy;

use crate::option::{Choice, OptionDefinition, OptionForm, OptionValue};

pub(crate) const UUID: OptionDefinition = OptionDefinition {
    name: "uuid",
    description: "what a uuid becomes: the format's own type, or its text for readers that do not know that type.",
    value: OptionValue::Choice(&[
        Choice {
            name: "uuid",
            set: |options| options.parquet.uuid = UuidPolicy::Uuid,
            is_set: |options| options.parquet.uuid == UuidPolicy::Uuid,
        },
        Choice {
            name: "string",
            set: |options| options.parquet.uuid = UuidPolicy::String,
            is_set: |options| options.parquet.uuid == UuidPolicy::String,
        },
    ]),
    form: OptionForm {
        label: "uuid",
        default: "The type UUID",
        choices: &[("string", "Text")],
        suggestions: &[],
        hint: "Spark reads no column of the type UUID, pandas no list of it.",
    },
};
