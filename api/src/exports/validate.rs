//! Validation of a submission: from its JSON to an export request. The JSON is read by hand, so that all mistakes are reported
//! at once and each names its field. Each part has a file of its own; checks that need the source database come last.

use std::sync::Arc;
use std::time::Duration;

use crate::dataset_config::DEFAULT_DATASET;
use polyglot_core::compression::Compression;
use polyglot_core::expected_size::ExpectedSize;
use polyglot_core::format_options::{FileEncoding, FormatOptions};
use polyglot_core::request::{ExportRequest, Layout};
use polyglot_core::selection::Filter;
use polyglot_formats::{Format, expected_size};
use serde_json::Value;

use super::body::Body;
use super::columns::{self, DraftColumn};
use super::field::{
    MAX_ERRORS, choice, comparable_column, flag, given, kind, known_column, text, unknown_keys, whole_number,
};
use super::filters::{self, DraftFilter};
use super::limits::FIELDS;
use super::options;
use super::order::{self, DraftKey};
use super::plan_check::{Checked, PlanCheck, Planner};
use super::stored_size;
use crate::identity::Identity;
use crate::problem::{FieldError, RouteError, listed, quoted};
use crate::resolved_dataset::ResolvedDataset;
use crate::source::{CACHE_MAX_AGE, Source};
use crate::source_statements::Estimate;

/// The source database, as far as validation needs it. Tests have one of their own.
pub(super) trait Catalog: Planner {
    /// As `Source::resolve_readable`.
    fn resolve(
        &self,
        name: &str,
        max_age: Duration,
    ) -> impl Future<Output = Result<Option<Arc<ResolvedDataset>>, RouteError>> + Send;

    /// As `Source::is_hidden`.
    fn is_hidden(&self, name: &str, tenant: &str) -> bool;
}

impl Catalog for Source {
    fn resolve(
        &self,
        name: &str,
        max_age: Duration,
    ) -> impl Future<Output = Result<Option<Arc<ResolvedDataset>>, RouteError>> + Send {
        self.resolve_readable(name, max_age)
    }

    fn is_hidden(&self, name: &str, tenant: &str) -> bool {
        self.is_hidden(name, tenant)
    }
}

/// A submission without a mistake.
#[derive(Debug)]
pub(super) struct Valid {
    pub(super) request: ExportRequest,
    /// Only this caller may see the export: its rows are chosen by more than the tenant.
    pub(super) is_private: bool,
    pub(super) expected_size: ExpectedSize,
    pub(super) estimate: Estimate,
    /// Whether an identical export that is under way may be answered instead of a new one.
    pub(super) coalesce: bool,
}

/// Validates the request in `body` against the operator's limits, the source database, and what its caller may see.
pub(super) async fn validate(
    body: &Body,
    catalog: &(impl Catalog + Sync),
    max_parallelism: u16,
    caller: &Identity,
) -> Result<Valid, RouteError> {
    let mut draft = Draft::read(body, max_parallelism)?;
    match draft.check_against(catalog, caller).await {
        Ok((resolved, estimate)) => draft.finish(resolved.as_deref(), estimate),
        // Mistakes that are certain are reported even if the database is not available.
        Err(_) if !draft.errors.is_empty() => Err(draft.into_error()),
        Err(error) => Err(error),
    }
}

/// A submission as far as it could be read without the database, and the mistakes found so far.
#[derive(Debug)]
struct Draft {
    format: Option<Format>,
    compression: Option<Compression>,
    /// Name of the dataset, unless the field is not a name.
    dataset: Option<String>,
    columns: Vec<DraftColumn>,
    filters: Vec<DraftFilter>,
    /// The conditions on the rows of this caller.
    policy: Vec<Filter>,
    order_by: Vec<DraftKey>,
    options: FormatOptions,
    parallelism: Option<u16>,
    layout: Layout,
    coalesce: bool,
    errors: Vec<FieldError>,
}

impl Draft {
    /// Reads the body; mistakes go into `errors`.
    ///
    /// # Errors
    /// If the body is not an object, so that no field can be read.
    fn read(body: &Body, max_parallelism: u16) -> Result<Self, RouteError> {
        let Value::Object(object) = &body.json else {
            return Err(RouteError::invalid("body", format!("expected a JSON object, not {}", kind(&body.json))));
        };
        let mut errors = Vec::new();
        let columns = columns::read(given(object, "columns"), &mut errors);
        let format =
            choice(given(object, "format"), "format", "format", Format::by_name, || listed(Format::all()), &mut errors);
        let compression = read_compression(given(object, "compression"), format, &mut errors);
        let dataset = match given(object, "dataset") {
            None => Some(DEFAULT_DATASET),
            name => text(name, "dataset", &mut errors),
        };
        let dataset = dataset.map(str::to_owned);
        let filters = filters::read(given(object, "filters"), &body.text, &mut errors);
        let order_by = order::read(given(object, "orderBy"), &mut errors);
        let options = options::read(given(object, "options"), format, &mut errors);
        if options.encoding == FileEncoding::File && given(object, "compression").is_none() {
            let message = "is for a compressed file: set \"compression\" as well, or leave this out";
            errors.push(FieldError::new("options.encoding", message));
        }
        let parallelism = read_parallelism(given(object, "parallelism"), max_parallelism, &mut errors);
        let layout = read_layout(given(object, "layout"), &mut errors);
        let coalesce = flag(given(object, "coalesce"), "coalesce", &mut errors);
        unknown_keys(object, &FIELDS, "", &mut errors);
        Ok(Self {
            format,
            compression,
            dataset,
            columns,
            filters,
            policy: Vec::new(),
            order_by,
            options,
            parallelism,
            layout,
            coalesce,
            errors,
        })
    }

    /// Resolves the dataset and adds the mistakes that only the database can find to the errors.
    async fn check_against(
        &mut self,
        catalog: &(impl Catalog + Sync),
        caller: &Identity,
    ) -> Result<(Option<Arc<ResolvedDataset>>, Estimate), RouteError> {
        let nothing = (None, Estimate::default());
        let Some(name) = self.dataset.as_deref() else { return Ok(nothing) };
        if name == DEFAULT_DATASET && self.column_names().next().is_none() {
            // The columns are missing, which is an error already; there is nothing to look up.
            return Ok(nothing);
        }
        // What is another's is what nobody has, also while its relation is locked or gone.
        if catalog.is_hidden(name, &caller.tenant) {
            self.errors.push(no_dataset(name));
            return Ok(nothing);
        }
        let mut resolved = catalog.resolve(name, CACHE_MAX_AGE).await?;
        // A column may have been added after the dataset was cached.
        if resolved.as_ref().is_some_and(|resolved| !self.column_names().all(|it| resolved.column(it).is_some())) {
            resolved = catalog.resolve(name, Duration::ZERO).await?;
        }
        let Some(resolved) = resolved else {
            self.errors.push(no_dataset(name));
            return Ok(nothing);
        };
        self.policy = resolved.dataset.policy.filters(caller).map_err(|missing| RouteError::PolicyNotApplicable {
            dataset: name.to_owned(),
            source: Box::new(missing),
        })?;
        let errors = &mut self.errors;
        for column in &self.columns {
            if let Some(source) = &column.source {
                known_column(source, &column.source_field(), &resolved, errors);
            }
        }
        let mut filters = Vec::with_capacity(self.filters.len());
        for draft in &self.filters {
            let Some(column) = &draft.column else { continue };
            let Some(column) = comparable_column(column, &draft.column_field(), &resolved, errors) else { continue };
            match draft.type_error(column) {
                Some(error) => errors.push(error),
                None => filters.extend(draft.complete().map(|filter| (draft, filter))),
            }
        }
        self.order_by
            .retain(|key| comparable_column(&key.key.column, &key.column_field(), &resolved, errors).is_some());
        let check = PlanCheck { resolved: &resolved, filters, policy: &self.policy, order_by: &self.order_by };
        let Checked { errors, estimate } = check.run(catalog).await?;
        self.errors.extend(errors);
        Ok((Some(resolved), estimate))
    }

    /// Names of all columns in the submission, with repetitions.
    fn column_names(&self) -> impl Iterator<Item = &str> {
        let columns = self.columns.iter().filter_map(|column| column.source.as_deref());
        let filters = self.filters.iter().filter_map(|filter| filter.column.as_deref());
        columns.chain(filters).chain(self.order_by.iter().map(|key| key.key.column.as_str()))
    }

    /// The request, or all errors.
    fn finish(mut self, resolved: Option<&ResolvedDataset>, estimate: Estimate) -> Result<Valid, RouteError> {
        let columns: Option<Vec<_>> = self.columns.drain(..).map(DraftColumn::complete).collect();
        let filters: Option<Vec<_>> = self.filters.iter().map(DraftFilter::complete).collect();
        match (resolved, self.format, columns, filters) {
            (Some(resolved), Some(format), Some(columns), Some(mut filters)) if self.errors.is_empty() => {
                let mut request = resolved.request(format, columns);
                if !self.order_by.is_empty() {
                    request.order_by = self.order_by.into_iter().map(|draft| draft.key).collect();
                }
                let policy_filters = self.policy.len();
                // First, because PostgreSQL evaluates conditions of the same cost in this order: a client's must not meet rows of others.
                filters.splice(0..0, self.policy);
                let request = ExportRequest {
                    policy_filters,
                    compression: self.compression,
                    filters,
                    options: self.options,
                    parallelism: self.parallelism,
                    layout: self.layout,
                    ..request
                };
                if let Some(error) = stored_size::check(&request) {
                    return Err(RouteError::Invalid(vec![error]));
                }
                let expected_size = expected_size(&format, &request, &resolved.relation, estimate.rows);
                let is_private = resolved.dataset.policy.is_by_person();
                Ok(Valid { request, is_private, expected_size, estimate, coalesce: self.coalesce })
            }
            _ => Err(self.into_error()),
        }
    }

    fn into_error(mut self) -> RouteError {
        self.errors.truncate(MAX_ERRORS);
        RouteError::Invalid(self.errors)
    }
}

fn no_dataset(name: &str) -> FieldError {
    FieldError::new("dataset", format!("there is no dataset {}", quoted(name)))
}

fn read_compression(
    value: Option<&Value>,
    format: Option<Format>,
    errors: &mut Vec<FieldError>,
) -> Option<Compression> {
    let names = || listed(Compression::ALL.map(Compression::name));
    let compression = choice(Some(value?), "compression", "compression", Compression::from_name, names, errors)?;
    if let Some(format) = format
        && let Some(incompressible) = &format.incompressible
    {
        let (reason, name) = (incompressible.reason, compression.name());
        let message = format!("{format} {reason} and cannot be combined with {name}");
        errors.push(FieldError::new("compression", message));
    }
    Some(compression)
}

/// Reads the number of shards at a time; absent is as many as the operator allows.
fn read_parallelism(value: Option<&Value>, max: u16, errors: &mut Vec<FieldError>) -> Option<u16> {
    match whole_number(value?, &(1..=max), "shards at a time") {
        Ok(parallelism) => Some(parallelism),
        Err(problem) => {
            errors.push(FieldError::new("parallelism", problem));
            None
        }
    }
}

fn read_layout(value: Option<&Value>, errors: &mut Vec<FieldError>) -> Layout {
    let Some(value) = value else { return Layout::default() };
    let names = || listed(Layout::ALL.map(Layout::name));
    choice(Some(value), "layout", "layout", Layout::from_name, names, errors).unwrap_or_default()
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
