//! Owns the page: its parts in their order, its style, and what a browser may do with it.
//! Must not know how requests are answered.

use std::sync::LazyLock;

use axum::body::Body;
use axum::http::header::CONTENT_SECURITY_POLICY;
use axum::http::{HeaderValue, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::operation::Operation;
use super::schema;
use super::text::{escape, paragraph};
use crate::http::{answer, openapi};

const STYLE: &str = include_str!("page.css");

/// What has methods beside other fields.
const METHODS: [&str; 8] = ["post", "put", "patch", "delete", "get", "head", "options", "trace"];

/// As the document it needs no token: it has nothing of the configuration.
pub(crate) async fn get() -> Response<Body> {
    static PAGE: LazyLock<String> = LazyLock::new(|| page(&openapi::document()));
    static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
        let style = STANDARD.encode(Sha256::digest(STYLE));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        HeaderValue::from_str(&policy).expect("base64 is ASCII")
    });
    let mut response = answer::with_html(PAGE.as_str());
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY.clone());
    response
}

fn page(document: &Value) -> String {
    let info = &document["info"];
    let text = |field: &str| escape(info[field].as_str().unwrap_or_default());
    let (title, version) = (text("title"), text("version"));
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}: HTTP interface</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<header>\n\
         <h1>{title} <span class=\"version\">{version}</span></h1>\n{}{}\n",
        paragraph(info, "summary"),
        paragraph(info, "description"),
    );
    let operations = operations(document);
    let entry =
        |operation: &Operation<'_>| format!("<li><a href=\"#{}\">{}</a></li>\n", operation.id(), operation.name());
    let entries: String = operations.iter().map(entry).collect();
    html.push_str(&format!("<nav><ul>\n{entries}</ul></nav>\n</header>\n<main>\n{}", call(document)));
    html.extend(operations.iter().map(Operation::section));
    html.push_str("<section id=\"schemas\"><h2>Schemas</h2>\n");
    let schemas = document["components"]["schemas"].as_object().into_iter().flatten();
    html.extend(schemas.map(|(name, schema)| schema::section(name, schema)));
    html.push_str("</section>\n</main>\n</body>\n</html>\n");
    html
}

/// What the examples begin with.
fn call(document: &Value) -> String {
    let schemes = document["components"]["securitySchemes"].as_object().into_iter().flatten();
    let tokens = schemes.map(|(_, scheme)| paragraph(scheme, "description"));
    format!(
        "<section id=\"token\"><h2>How to call it</h2>\n{}\
         <p>The examples use two variables of the shell:</p>\n\
         <pre>URL=http://127.0.0.1:8080   # the address of this page\nTOKEN=...</pre>\n\
         <p>Programs that make clients read <a href=\"openapi.json\">openapi.json</a>, from which this page is made.</p>\
         </section>\n",
        tokens.collect::<String>()
    )
}

/// Those that send something come first.
fn operations(document: &Value) -> Vec<Operation<'_>> {
    let paths = document["paths"].as_object().into_iter().flatten();
    let mut operations: Vec<_> = paths
        .flat_map(|(path, item)| {
            let methods = METHODS.iter().filter_map(move |method| Some((*method, item.get(*method)?)));
            methods.map(move |(method, described)| Operation { document, path, method, described })
        })
        .collect();
    operations.sort_by_key(|operation| METHODS.iter().position(|method| *method == operation.method));
    operations
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a reader sees: without tags.
    fn seen(html: &str) -> String {
        let body = html.split_once("<body>").unwrap().1;
        let text: String = body.split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text)).collect();
        let marks = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
        marks.iter().fold(text, |text, (escaped, plain)| text.replace(escaped, plain))
    }

    /// Fields whose own fields are names, and not words of OpenAPI.
    const NAMES: [&str; 6] = ["paths", "responses", "headers", "content", "properties", "schemas"];

    /// Every text of the document, and every name in it. `name` is that of the value.
    fn collect(value: &Value, name: &str, texts: &mut Vec<String>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(field, value)| {
                if NAMES.contains(&name) {
                    texts.push(field.clone());
                }
                if !["$ref", "openapi", "operationId", "example", "components", "security"].contains(&&**field) {
                    collect(value, field, texts);
                }
            }),
            Value::Array(values) => values.iter().for_each(|value| collect(value, name, texts)),
            Value::String(text) if name != "required" => texts.push(text.clone()),
            Value::Number(number) => texts.push(number.to_string()),
            _ => {}
        }
    }

    #[test]
    fn everything_of_the_document_is_on_the_page() {
        let document = openapi::document();
        let html = page(&document);
        let mut found = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let id = operation["operationId"].as_str().unwrap();
                let heading =
                    format!("id=\"{id}\"><h2><span class=\"method {0}\">{0}</span>", method.to_ascii_uppercase());
                assert!(html.contains(&heading), "{method} {path}");
                for status in operation["responses"].as_object().unwrap().keys() {
                    assert!(html.contains(&format!("id=\"{id}-{status}\"")), "{method} {path}: {status}");
                    found.push(status);
                }
            }
        }
        assert!(found.len() > 12, "{found:?}");
        let (text, mut texts) = (seen(&html), Vec::new());
        collect(&document, "", &mut texts);
        collect(&document["components"]["schemas"], "schemas", &mut texts);
        // Their names are only those of references.
        collect(&document["components"]["headers"], "", &mut texts);
        texts.push(document["components"]["securitySchemes"]["bearer"]["description"].as_str().unwrap().to_owned());
        assert!(texts.len() > 100, "{}", texts.len());
        for expected in texts {
            let expected = expected.replace('`', "");
            assert!(text.contains(expected.trim()), "{expected:?} is not on the page");
        }
        // Each link of the page is to something on it, or to the document.
        for link in html.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
            let is_there = link.strip_prefix('#').is_some_and(|id| html.contains(&format!("id=\"{id}\"")));
            assert!(is_there || link == "openapi.json", "{link}");
        }
    }

    #[test]
    fn it_is_one_document_that_needs_nothing_else() {
        let html = page(&openapi::document());
        for (tag, count) in [("<style>", 1), ("</style>", 1), ("<body>", 1), ("</html>", 1), ("<script", 0)] {
            assert_eq!(html.matches(tag).count(), count, "{tag}");
        }
        for way_out in ["src=", "@import", "url(", "style=", "<link", "onclick"] {
            assert!(!html.contains(way_out), "{way_out}");
        }
    }

    /// Texts and names of the document are never tags.
    #[test]
    fn texts_are_escaped() {
        fn mark(text: &str) -> String {
            format!("<i>\"'&{text}")
        }
        fn marked(value: &Value, name: &str) -> Value {
            let field_name = |field: &str| if NAMES.contains(&name) { mark(field) } else { field.to_owned() };
            match value {
                Value::Object(fields) => {
                    fields.iter().map(|(field, value)| (field_name(field), marked(value, field))).collect()
                }
                Value::Array(values) => values.iter().map(|value| marked(value, name)).collect(),
                Value::String(text) if name != "$ref" => mark(text).into(),
                value => value.clone(),
            }
        }
        let html = page(&marked(&openapi::document(), ""));
        assert!(html.matches("&lt;i&gt;&quot;&#39;&amp;").count() > 100);
        assert!(!html.contains("<i>") && !html.contains("\"'&"));
    }
}
