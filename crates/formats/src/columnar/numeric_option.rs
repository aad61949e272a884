//! The option `numeric`: what a numeric becomes that no DECIMAL is sure to hold.

use polyglot_core::format_options::NumericPolicy;

use crate::option::{OptionDefinition, OptionError, OptionForm, OptionValue};

pub(crate) const NUMERIC: OptionDefinition = OptionDefinition {
    name: "numeric",
    description: "what becomes of a numeric without precision, or with more than 38 digits: string, double or \
                  decimal(38,s) with s from 0 to 38.",
    value: OptionValue::Text {
        min_length: None,
        max_length: None,
        pattern: Some("^ *(string|double|d *e *c *i *m *a *l *\\( *3 *8 *, *[0-9 ]+\\)) *$"),
        set: |options, text| {
            options.parquet.numeric = numeric(text)?;
            Ok(())
        },
        get: |options| match options.parquet.numeric {
            NumericPolicy::String => "string".to_owned(),
            NumericPolicy::Double => "double".to_owned(),
            NumericPolicy::Decimal(scale) => format!("decimal(38,{scale})"),
        },
    },
    form: OptionForm {
        // The page has one control for every format's option of this name.
        label: "numeric",
        default: "as the format has it",
        choices: &[],
        suggestions: &["string", "double", "decimal(38,2)", "decimal(38,9)"],
        hint: "JSON: string keeps every digit in JavaScript. Parquet and Arrow, of one without precision: string, double or decimal(38,s).",
    },
};

fn numeric(text: &str) -> Result<NumericPolicy, OptionError> {
    match text.replace(' ', "").as_str() {
        "string" => Ok(NumericPolicy::String),
        "double" => Ok(NumericPolicy::Double),
        decimal => {
            let scale = decimal.strip_prefix("decimal(38,").and_then(|rest| rest.strip_suffix(')'));
            let scale = scale.filter(|scale| scale.bytes().all(|byte| byte.is_ascii_digit()));
            let scale = scale.and_then(|scale| scale.parse().ok()).filter(|scale| (0..=38).contains(scale));
            scale
                .map(NumericPolicy::Decimal)
                .ok_or(OptionError::Text { expected: "string, double or decimal(38,s) with s from 0 to 38" })
        }
    }
}
