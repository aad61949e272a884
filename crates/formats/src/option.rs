//! The options of formats: for each its name, the values it may have, where it is stored in [`FormatOptions`], and how the
//! page asks for it. Which format has which option is the format's to say.

use std::ops::RangeInclusive;

use polyglot_core::format_options::{FileEncoding, FormatOptions, OnUnrepresentable};
use serde_json::Value;

/// An option of one or several formats.
pub struct OptionDefinition {
    /// Its name in requests and manifests.
    pub name: &'static str,
    /// What it does, for the description of the API; empty where the values say it.
    pub description: &'static str,
    pub value: OptionValue,
    pub form: OptionForm,
}

/// The values that an option may have.
pub enum OptionValue {
    Choice(&'static [Choice]),
    Boolean {
        set: fn(&mut FormatOptions, bool),
        get: fn(&FormatOptions) -> bool,
    },
    Integer {
        range: RangeInclusive<u32>,
        unit: &'static str,
        set: fn(&mut FormatOptions, u32),
        get: fn(&FormatOptions) -> u32,
    },
    Text {
        min_length: Option<usize>,
        max_length: Option<usize>,
        /// A regular expression of the texts that `set` takes, for the description of the API.
        pattern: Option<&'static str>,
        set: fn(&mut FormatOptions, &str) -> Result<(), OptionError>,
        get: fn(&FormatOptions) -> String,
    },
}

/// One of the values of an option that has names for them.
pub struct Choice {
    pub name: &'static str,
    pub set: fn(&mut FormatOptions),
    pub is_set: fn(&FormatOptions) -> bool,
}

/// How the page asks for an option.
pub struct OptionForm {
    pub label: &'static str,
    /// The words for what is done without it: a choice, or what a text field shows while it is empty.
    pub default: &'static str,
    /// Values to choose from beside the default, each with its words; empty where any text may be written.
    pub choices: &'static [(&'static str, &'static str)],
    pub suggestions: &'static [&'static str],
    /// Empty: none.
    pub hint: &'static str,
}

/// Why a value is not one of an option's. The words for a client are the api's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OptionError {
    /// A value of another kind than `expected`.
    Kind {
        expected: &'static str,
    },
    Empty,
    UnknownChoice {
        choices: Vec<&'static str>,
    },
    OutOfRange {
        range: RangeInclusive<u32>,
        unit: &'static str,
    },
    /// Another text than `expected`.
    Text {
        expected: &'static str,
    },
    TooLong {
        max_bytes: usize,
        bytes: usize,
    },
    /// A text with something in it that may not be there.
    Content {
        problem: &'static str,
    },
}

impl OptionDefinition {
    /// Puts `value` into its place among `options`. Options are read in the order in which their format lists them.
    pub fn read(&self, value: &Value, options: &mut FormatOptions) -> Result<(), OptionError> {
        let text = || value.as_str().ok_or(OptionError::Kind { expected: "a string" });
        match &self.value {
            OptionValue::Choice(choices) => {
                let name = text()?;
                let choice = choices.iter().find(|choice| choice.name == name).ok_or_else(|| {
                    if name.is_empty() {
                        OptionError::Empty
                    } else {
                        OptionError::UnknownChoice { choices: choices.iter().map(|choice| choice.name).collect() }
                    }
                })?;
                (choice.set)(options);
            }
            OptionValue::Boolean { set, .. } => {
                set(options, value.as_bool().ok_or(OptionError::Kind { expected: "true or false" })?);
            }
            OptionValue::Integer { range, unit, set, .. } => {
                let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
                let number = number.filter(|number| range.contains(number));
                set(options, number.ok_or_else(|| OptionError::OutOfRange { range: range.clone(), unit })?);
            }
            OptionValue::Text { set, .. } => set(options, text()?)?,
        }
        Ok(())
    }

    /// The value that it has among `options`, as [`OptionDefinition::read`] takes it; `None` where no value says what they
    /// are.
    #[must_use]
    pub fn show(&self, options: &FormatOptions) -> Option<Value> {
        Some(match &self.value {
            OptionValue::Choice(choices) => choices.iter().find(|choice| (choice.is_set)(options))?.name.into(),
            OptionValue::Boolean { get, .. } => get(options).into(),
            OptionValue::Integer { get, .. } => get(options).into(),
            OptionValue::Text { get, .. } => get(options).into(),
        })
    }
}

/// The option of the formats that can be compressed as a whole.
pub(crate) const ENCODING: OptionDefinition = OptionDefinition {
    name: "encoding",
    description: "of a compressed file: it is downloaded as a compressed file (.csv.gz), without Content-Encoding.",
    value: OptionValue::Choice(&[Choice {
        name: "file",
        set: |options| options.encoding = FileEncoding::File,
        is_set: |options| options.encoding == FileEncoding::File,
    }]),
    form: OptionForm {
        label: "A compressed file",
        default: "Is unpacked on its way",
        choices: &[("file", "Stays compressed (.gz, .zst)")],
        suggestions: &[],
        hint: "",
    },
};

/// The option that every format has.
pub(crate) const ON_UNREPRESENTABLE: OptionDefinition = OptionDefinition {
    name: "onUnrepresentable",
    description: "what becomes of a value that the format cannot hold. The manifest counts replaced ones.",
    value: OptionValue::Choice(&[
        Choice {
            name: "fail",
            set: |options| options.on_unrepresentable = OnUnrepresentable::Fail,
            is_set: |options| options.on_unrepresentable == OnUnrepresentable::Fail,
        },
        Choice {
            name: "replace",
            set: |options| options.on_unrepresentable = OnUnrepresentable::Replace,
            is_set: |options| options.on_unrepresentable == OnUnrepresentable::Replace,
        },
    ]),
    form: OptionForm {
        label: "A value that the format cannot hold",
        default: "Fails the export",
        choices: &[("replace", "Is replaced and counted")],
        suggestions: &[],
        hint: "",
    },
};
