//! Compares answers with the description of the interface: each answer to a request with rows, whichever test has sent it.

use std::sync::LazyLock;

use serde_json::Value;

use crate::client::Response;

/// What the server serves, apart from the version.
pub(crate) static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../src/http/openapi.json")).unwrap());

/// The answer is one that the description has: the status, the headers, and every field of the body.
pub(crate) fn check(response: &Response) {
    let problem = answer(&DOCUMENT, response).err();
    assert_eq!(problem, None, "{response:?}");
}

fn answer(document: &Value, response: &Response) -> Result<(), String> {
    let answers = &document["paths"]["/v1/tables/{table}/rows"]["post"]["responses"];
    let described = answers.get(response.status.to_string()).ok_or("the status is not described")?;
    for (name, header) in described["headers"].as_object().into_iter().flatten() {
        let header = resolved(document, header);
        match response.header(&name.to_ascii_lowercase()) {
            Some(text) => fits(document, &header["schema"], &header_value(text, &header["schema"]), name)?,
            None if header["required"] == true => return Err(format!("the header {name} is missing")),
            None => {}
        }
    }
    let media = response.header("content-type").ok_or("there is no Content-Type")?;
    let content = described["content"].get(media).ok_or_else(|| format!("{media} is not described"))?;
    let body = serde_json::from_str(&response.body).map_err(|error| format!("the body is no JSON: {error}"))?;
    fits(document, &content["schema"], &body, "body")
}

fn header_value(text: &str, schema: &Value) -> Value {
    match text.parse::<u64>() {
        Ok(number) if schema["type"] == "integer" => number.into(),
        _ => text.into(),
    }
}

fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => document.pointer(reference.strip_prefix('#').unwrap()).unwrap(),
        None => schema,
    }
}

/// A schema with those that it refers to or consists of.
fn parts<'a>(document: &'a Value, schema: &'a Value) -> Vec<&'a Value> {
    let schema = resolved(document, schema);
    let all = schema["allOf"].as_array().into_iter().flatten().flat_map(|part| parts(document, part));
    std::iter::once(schema).chain(all).collect()
}

/// As JSON Schema says, with the keywords that the description uses. Stricter in one point: a field that is not described does not
/// fit, although clients must accept it.
fn fits(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let parts = parts(document, schema);
    for (keyword, rule) in parts.iter().flat_map(|part| part.as_object().unwrap()) {
        let does_fit = match &**keyword {
            "type" => is_of(value, rule.as_str().unwrap()),
            "required" => rule.as_array().unwrap().iter().all(|name| value.get(name.as_str().unwrap()).is_some()),
            "enum" => rule.as_array().unwrap().contains(value),
            "minimum" => value.as_i64().is_some_and(|number| number >= rule.as_i64().unwrap()),
            "description" | "allOf" | "properties" | "additionalProperties" | "items" => true,
            other => panic!("the keyword {other} is not known here; add it"),
        };
        if !does_fit {
            return Err(format!("{at} is {value}, which is against {keyword}: {rule}"));
        }
    }
    let of = |keyword: &str, name: &str| parts.iter().find_map(|part| part.get(keyword)?.get(name));
    let any = |keyword: &str| parts.iter().find_map(|part| part.get(keyword));
    match value {
        Value::Object(fields) => fields.iter().try_for_each(|(name, field)| {
            let schema = of("properties", name).or_else(|| any("additionalProperties"));
            let schema = schema.ok_or_else(|| format!("{at} has {name}, which is not described"))?;
            fits(document, schema, field, &format!("{at}.{name}"))
        }),
        Value::Array(items) => items.iter().try_for_each(|item| {
            let schema = any("items").ok_or_else(|| format!("the items of {at} are not described"))?;
            fits(document, schema, item, &format!("{at}[]"))
        }),
        _ => Ok(()),
    }
}

fn is_of(value: &Value, ty: &str) -> bool {
    match ty {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        other => panic!("the type {other} is not known here; add it"),
    }
}

#[test]
fn answers_that_are_not_described_are_found() {
    let check = |status: u16, more: &str, body: &str, expected: Result<(), &str>| {
        let head = format!("HTTP/1.1 {status} x\r\nContent-Type: application/json{more}");
        let result = answer(&DOCUMENT, &Response { status, head, body: body.to_owned() });
        match expected {
            Ok(()) => assert_eq!(result, Ok(()), "{body}"),
            Err(part) => assert!(result.as_ref().is_err_and(|error| error.contains(part)), "{body}: {result:?}"),
        }
    };
    let retry = "\r\nRetry-After: 1";
    let rejection = r#"{"line":2,"outcome":"refused","reason":"a"}"#;
    check(200, "", &format!(r#"{{"accepted":1,"refused":1,"rejections":[{rejection}]}}"#), Ok(()));
    check(200, "", r#"{"accepted":1,"refused":0}"#, Err("required"));
    check(200, "", r#"{"accepted":"1","refused":0,"rejections":[]}"#, Err("body.accepted is \"1\""));
    check(200, "", r#"{"accepted":1,"refused":0,"rejections":[{"line":2}]}"#, Err("body.rejections[]"));
    let none = rejection.replace("refused", "lost");
    check(200, "", &format!(r#"{{"accepted":1,"refused":1,"rejections":[{none}]}}"#), Err("enum"));
    check(200, "", r#"{"accepted":1,"refused":0,"rejections":[],"more":1}"#, Err("more, which is not described"));
    check(200, "", r#"{"accepted":1,"refused":0,"rejections":[],"outcomes":{"written":"1"}}"#, Err("outcomes.written"));
    check(200, "\r\nIdempotency-Replayed: yes", r#"{"accepted":1,"refused":0,"rejections":[]}"#, Err("Idempotency"));
    check(429, retry, r#"{"error":"a","accepted":0,"refused":0,"rejections":[],"next_line":1}"#, Ok(()));
    check(429, retry, r#"{"error":"a","next_line":0}"#, Err("minimum"));
    check(429, retry, r#"{"accepted":0}"#, Err("required"));
    check(429, "", r#"{"error":"a"}"#, Err("the header Retry-After is missing"));
    check(429, "\r\nRetry-After: soon", r#"{"error":"a"}"#, Err("Retry-After"));
    check(401, "", r#"{"error":"a"}"#, Err("WWW-Authenticate"));
    check(418, "", r#"{"error":"a"}"#, Err("the status is not described"));
}
