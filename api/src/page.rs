//! `GET /` and `GET /assets/{name}`: the web page, whose files (`web/`) are compiled into the program, and the security
//! policy under which a browser runs it.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use polyglot_formats::{Format, OptionDefinition, OptionValue};
use serde_json::{Value, json};

use crate::problem::RouteError;

/// Content security policy: the page loads only its own files, and text never becomes code or markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

struct File {
    name: &'static str,
    media_type: &'static str,
    text: &'static str,
}

macro_rules! files {
    ($($name:literal: $media_type:literal,)*) => {
        &[$(File { name: $name, media_type: $media_type, text: include_str!(concat!("../web/", $name)) }),*]
    };
}

const FILES: &[File] = files! {
    "index.html": "text/html; charset=utf-8",
    "announcements.js": "text/javascript; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "bar-chart.js": "text/javascript; charset=utf-8",
    "benchmark.js": "text/javascript; charset=utf-8",
    "columns.js": "text/javascript; charset=utf-8",
    "confirmed-removal.js": "text/javascript; charset=utf-8",
    "curl.js": "text/javascript; charset=utf-8",
    "element.js": "text/javascript; charset=utf-8",
    "export-list.js": "text/javascript; charset=utf-8",
    "export-row.js": "text/javascript; charset=utf-8",
    "field-errors.js": "text/javascript; charset=utf-8",
    "filters.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "known-exports.js": "text/javascript; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "manifest-files.js": "text/javascript; charset=utf-8",
    "new-export.js": "text/javascript; charset=utf-8",
    "options.js": "text/javascript; charset=utf-8",
    "order.js": "text/javascript; charset=utf-8",
    "pace.js": "text/javascript; charset=utf-8",
    "preview.js": "text/javascript; charset=utf-8",
    "service.js": "text/javascript; charset=utf-8",
    "shards.js": "text/javascript; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "words.js": "text/javascript; charset=utf-8",
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
    FILES[0].text.replace("{{format-choices}}", &lines(&choice)).replace("{{format-ticks}}", &lines(&tick))
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

pub(crate) async fn page(headers: HeaderMap) -> Response {
    serve(FILES[0].media_type, &INDEX, &headers)
}

/// The files that the page loads.
pub(crate) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, RouteError> {
    if name == "formats.js" {
        return Ok(serve("text/javascript; charset=utf-8", &FORMATS, &headers));
    }
    let file = FILES[1..].iter().find(|file| file.name == name).ok_or(RouteError::NoSuchRoute)?;
    Ok(serve(file.media_type, file.text, &headers))
}

fn serve(media_type: &'static str, text: &'static str, request: &HeaderMap) -> Response {
    let etag = format!("\"{:08x}\"", crc32fast::hash(text.as_bytes()));
    let etag = HeaderValue::try_from(etag).expect("digits in quotes are a header value");
    let is_cached = request.get(header::IF_NONE_MATCH).is_some_and(|tag| *tag == etag);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(media_type)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        // The browser revalidates each time, and gets the file only after an upgrade.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::ETAG, etag),
    ];
    if is_cached { (StatusCode::NOT_MODIFIED, headers).into_response() } else { (headers, text).into_response() }
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
    fn every_file_of_the_folder_is_served() {
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/web")).unwrap();
        let there: BTreeSet<String> = folder.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(there, FILES.iter().map(|file| file.name.to_owned()).collect());
    }
}
