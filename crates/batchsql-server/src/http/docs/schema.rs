//! Owns how the schemas of the document are shown: in a few words, and with their fields.
//! Must not know where they are used.

use serde_json::Value;

use super::text::{escape, paragraph, prose};

/// What a value may be, in a few words; other schemas are links.
pub(super) fn words(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        let name = escape(name);
        return format!("<a href=\"#schema-{name}\">{name}</a>");
    }
    for (keyword, between) in [("oneOf", " or "), ("anyOf", " or "), ("allOf", " with ")] {
        if let Some(parts) = schema[keyword].as_array() {
            return parts.iter().map(words).collect::<Vec<_>>().join(between);
        }
    }
    let mut words_of = Vec::new();
    match schema["type"].as_str() {
        Some("array") => words_of.push(format!("array of {}", words(&schema["items"]))),
        Some(ty) => words_of.push(escape(ty)),
        None => words_of.push("any value".to_owned()),
    }
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<String> = values.iter().map(code).collect();
        words_of.push(format!("one of {}", values.join(", ")));
    }
    if let more @ Value::Object(_) = &schema["additionalProperties"] {
        words_of.push(format!("each field: {}", words(more)));
    }
    let limits = [
        ("format", "format"),
        ("minimum", "at least"),
        ("maximum", "at most"),
        ("minLength", "length at least"),
        ("maxLength", "length at most"),
        ("default", "default"),
    ];
    let limits = limits.iter().filter(|(keyword, _)| !schema[*keyword].is_null());
    words_of.extend(limits.map(|(keyword, name)| format!("{name} {}", code(&schema[*keyword]))));
    words_of.join(", ")
}

fn code(value: &Value) -> String {
    format!("<code>{}</code>", escape(&plain(value)))
}

/// A text without quotes.
pub(super) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

/// A schema of the document, with its fields.
pub(super) fn section(name: &str, schema: &Value) -> String {
    let name = escape(name);
    let parts = schema["allOf"].as_array().map_or(std::slice::from_ref(schema), Vec::as_slice);
    let (mut fields, mut others) = (String::new(), Vec::new());
    for part in parts {
        if part["properties"].is_object() {
            fields.push_str(&self::fields(part));
        } else {
            others.push(words(part));
        }
    }
    let others = if others.is_empty() { String::new() } else { format!("<p class=\"type\">{}</p>", others.join(", ")) };
    format!(
        "<section id=\"schema-{name}\"><h3>{name}</h3>{}{others}{fields}</section>\n",
        paragraph(schema, "description")
    )
}

/// Fields that are always there come first.
fn fields(schema: &Value) -> String {
    let properties = schema["properties"].as_object().into_iter().flatten();
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let rank = |name: &str| required.iter().position(|known| *known == name).unwrap_or(required.len());
    let mut properties: Vec<_> = properties.collect();
    properties.sort_by_key(|(name, _)| rank(name));
    let entry = |(name, property): (&String, &Value)| {
        let always = if rank(name) < required.len() { "<span class=\"tag\">always</span>" } else { "" };
        row(&format!("<code>{}</code>{always}", escape(name)), &words(property), &property["description"])
    };
    properties.into_iter().map(entry).collect()
}

/// A name with what it may be and what it means.
pub(super) fn row(name: &str, words: &str, description: &Value) -> String {
    let description = description.as_str().map(|text| format!("<p>{}</p>", prose(text))).unwrap_or_default();
    format!("<div class=\"row\"><div>{name}</div><div><p class=\"type\">{words}</p>{description}</div></div>\n")
}
