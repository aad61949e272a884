//! `GET /` and `GET /assets/{name}`: the web page, whose files (`web/`) are compiled into the program, and the security
//! policy under which a browser runs it.

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;

use polyglot_formats::{Format, OptionDefinition, OptionValue};
use serde_json::{Value, json};

use crate::problem::RouteError;
use crate::static_file::StaticFile;

/// Content security policy: the page loads only its own files, and text never becomes code or markup, but for the one address
/// of the shared worker (`shared-stream.js`).
const POLICY: &str = "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types stream-worker";

const INDEX_FILE: &str = "index.html";
/// The module with the formats of the registry, which is no file.
const FORMATS_FILE: &str = "formats.js";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

struct File {
    name: &'static str,
    media_type: &'static str,
    text: &'static str,
}

macro_rules! files {
    ($($name:literal: $media_type:expr,)*) => {
        &[$(File { name: $name, media_type: $media_type, text: include_str!(concat!("../web/", $name)) }),*]
    };
}

const FILES: &[File] = files! {
    "index.html": "text/html; charset=utf-8",
    "announcements.js": JAVASCRIPT,
    "app.js": JAVASCRIPT,
    "bar-chart.js": JAVASCRIPT,
    "benchmark.js": JAVASCRIPT,
    "columns.js": JAVASCRIPT,
    "confirmed-removal.js": JAVASCRIPT,
    "curl.js": JAVASCRIPT,
    "element.js": JAVASCRIPT,
    "event-stream.js": JAVASCRIPT,
    "export-request.js": JAVASCRIPT,
    "export-list.js": JAVASCRIPT,
    "export-row.js": JAVASCRIPT,
    "field-errors.js": JAVASCRIPT,
    "field-names.js": JAVASCRIPT,
    "filters.js": JAVASCRIPT,
    "form-address.js": JAVASCRIPT,
    "icon.svg": "image/svg+xml",
    "json-path.js": JAVASCRIPT,
    "known-exports.js": JAVASCRIPT,
    "live.js": JAVASCRIPT,
    "manifest-files.js": JAVASCRIPT,
    "new-export.js": JAVASCRIPT,
    "options.js": JAVASCRIPT,
    "order.js": JAVASCRIPT,
    "pace.js": JAVASCRIPT,
    "preview.js": JAVASCRIPT,
    "service.js": JAVASCRIPT,
    "session.js": JAVASCRIPT,
    "shards.js": JAVASCRIPT,
    "shared-stream.js": JAVASCRIPT,
    "stream-worker.js": JAVASCRIPT,
    "style.css": "text/css; charset=utf-8",
    "words.js": JAVASCRIPT,
};

/// The page, with the formats of the registry to choose from.
static INDEX: LazyLock<String> = LazyLock::new(|| {
    let lines = |line: &dyn Fn(Format) -> String| Format::all().map(line).collect::<Vec<_>>().join("\n            ");
    let choice = |format: Format| {
        let checked = if format.index() == 0 { " checked" } else { "" };
        format!(
            r#"<label><input type="radio" name="format" value="{}"{checked}><span>{}</span></label>"#,
            format.name, format.title
        )
    };
    let tick = |format: Format| {
        format!(
            r#"<label class="tick"><input type="checkbox" value="{}" checked> {}</label>"#,
            format.name, format.title
        )
    };
    // Pages share the worker of their version alone, and what it imports changes with it.
    let worker = FILES.iter().filter(|file| ["stream-worker.js", "event-stream.js"].contains(&file.name));
    let worker = crc32fast::hash(worker.map(|file| file.text).collect::<String>().as_bytes());
    let index = FILES.iter().find(|file| file.name == INDEX_FILE).expect("the index is among the files");
    let text = index.text.replace("{{format-choices}}", &lines(&choice)).replace("{{format-ticks}}", &lines(&tick));
    text.replace("{{stream-worker}}", &format!("events {worker:08x}"))
});

/// The module `formats.js`: the formats of the registry and their options, those that every format has last.
static FORMATS: LazyLock<String> = LazyLock::new(|| {
    let formats: Vec<Value> = Format::all()
        .map(|format| {
            let options: Vec<&str> = format.options.iter().map(|option| option.name).collect();
            let hint = format.incompressible.as_ref().map(|it| it.hint);
            json!({"name": format.name, "title": format.title, "extension": format.extension, "compressionHint": hint, "options": options})
        })
        .collect();
    let mut options: Vec<&OptionDefinition> = Vec::new();
    for option in Format::all().flat_map(|format| format.options) {
        match options.iter_mut().find(|known| known.name == option.name) {
            None => options.push(option),
            // Two formats may mean different things by one name. The form that takes any text serves both.
            Some(known) if option.form.choices.is_empty() => *known = option,
            Some(_) => {}
        }
    }
    options.sort_by_key(|option| Format::all().all(|format| format.option(option.name).is_some()));
    let options: Vec<Value> = options.into_iter().map(form).collect();
    format!("export const FORMATS = {};\nexport const OPTIONS = {};\n", Value::from(formats), Value::from(options))
});

/// An option as the page asks for it.
fn form(option: &OptionDefinition) -> Value {
    let kind = match option.value {
        OptionValue::Choice(_) => "choice",
        OptionValue::Boolean { .. } => "boolean",
        OptionValue::Integer { .. } => "integer",
        OptionValue::Text { max_length: Some(1), .. } => "character",
        OptionValue::Text { .. } => "text",
    };
    let form = &option.form;
    let mut field = json!({"name": option.name, "kind": kind, "label": form.label});
    if form.choices.is_empty() {
        field["placeholder"] = form.default.into();
    } else {
        let choices = std::iter::once(("", form.default)).chain(form.choices.iter().copied());
        field["choices"] = choices.map(|(value, words)| json!([value, words])).collect();
    }
    if !form.suggestions.is_empty() {
        field["suggestions"] = json!(form.suggestions);
    }
    if !form.hint.is_empty() {
        field["hint"] = form.hint.into();
    }
    field
}

/// The files as they are served, by name. They are made at the first request and kept: compressing takes some milliseconds.
static SERVED: LazyLock<HashMap<&'static str, StaticFile>> = LazyLock::new(|| {
    let files = FILES.iter().map(|file| {
        let text = match file.name {
            INDEX_FILE => INDEX.clone(),
            _ if file.media_type == JAVASCRIPT => without_comments(file.text),
            _ => file.text.to_owned(),
        };
        (file.name, StaticFile::new(file.media_type, text.into_bytes()))
    });
    let formats = (FORMATS_FILE, StaticFile::new(JAVASCRIPT, FORMATS.as_bytes()));
    files.chain([formats]).collect()
});

/// A script without the lines that are comments, which are a fifth of what is transferred otherwise. No text of a script goes
/// over several lines, as a test checks, so no such line is part of one.
fn without_comments(script: &str) -> String {
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    script.split_inclusive('\n').filter(is_code).collect()
}

pub(crate) async fn page(headers: HeaderMap) -> Result<Response, RouteError> {
    serve(INDEX_FILE, &headers)
}

/// The files that the page loads.
pub(crate) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, RouteError> {
    if name == INDEX_FILE { Err(RouteError::NoSuchRoute) } else { serve(&name, &headers) }
}

fn serve(name: &str, request: &HeaderMap) -> Result<Response, RouteError> {
    let file = SERVED.get(name).ok_or(RouteError::NoSuchRoute)?;
    let headers = [
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        // The browser revalidates each time, and gets the file only after an upgrade.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    Ok(file.answer(request, headers))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_page_has_every_format_and_option() {
        assert!(!INDEX.contains("{{"), "a placeholder is left");
        for format in Format::all() {
            assert_eq!(INDEX.matches(&format!("value=\"{}\"", format.name)).count(), 2, "{format}");
            for option in format.options {
                assert_eq!(FORMATS.matches(&format!("{{\"name\":\"{}\",\"kind\"", option.name)).count(), 1);
            }
        }
    }

    #[test]
    fn no_text_of_a_script_goes_over_several_lines() {
        for file in FILES.iter().filter(|file| file.media_type == JAVASCRIPT) {
            for line in without_comments(file.text).lines() {
                assert!(line.matches('`').count() % 2 == 0 && !line.contains("/*"), "{}: {line}", file.name);
            }
        }
        assert_eq!(without_comments("// a\nlet b; // c\n  /// d\n"), "let b; // c\n");
    }

    #[test]
    fn every_file_of_the_folder_is_served() {
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/web")).unwrap();
        let there: BTreeSet<String> = folder.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(there, FILES.iter().map(|file| file.name.to_owned()).collect());
    }
}
