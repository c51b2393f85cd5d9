//! Owns how a method of a path is shown: how to call it, what it takes, and every answer.
//! Must not know which methods there are.

use axum::http::StatusCode;
use serde_json::Value;

use super::schema::{plain, row, words};
use super::text::{escape, paragraph, shell_word};

/// A method of a path.
pub(super) struct Operation<'a> {
    pub(super) document: &'a Value,
    pub(super) path: &'a str,
    pub(super) method: &'a str,
    pub(super) described: &'a Value,
}

impl Operation<'_> {
    /// Its anchor on the page.
    pub(super) fn id(&self) -> String {
        escape(self.described["operationId"].as_str().unwrap_or(self.path))
    }

    /// The method and the path.
    pub(super) fn name(&self) -> String {
        let method = escape(&self.method.to_ascii_uppercase());
        format!("<span class=\"method {method}\">{method}</span> <code>{}</code>", escape(self.path))
    }

    pub(super) fn section(&self) -> String {
        let Self { described, .. } = self;
        let mut html = format!("<section class=\"operation\" id=\"{}\"><h2>{}</h2>\n", self.id(), self.name());
        html.push_str(&paragraph(described, "summary").replacen("<p>", "<p class=\"summary\">", 1));
        html.push_str(&paragraph(described, "description"));
        html.push_str(&format!("<p class=\"token\">{}</p>\n", self.token()));
        html.push_str(&format!("<h3>Example</h3>\n{}", self.examples()));
        let parameters: String = list(&described["parameters"]).map(|parameter| self.parameter(parameter)).collect();
        if !parameters.is_empty() {
            html.push_str(&format!("<h3>Parameters</h3>\n{parameters}"));
        }
        let bodies: String =
            fields(&described["requestBody"]["content"]).map(|(media, body)| medium(media, body)).collect();
        if !bodies.is_empty() {
            html.push_str(&format!("<h3>Body</h3>\n{bodies}"));
        }
        let answers = fields(&described["responses"]).map(|(status, answer)| self.answer(status, answer));
        html.push_str(&format!("<h3>Answers</h3>\n{}</section>\n", answers.collect::<String>()));
        html
    }

    fn takes_token(&self) -> bool {
        list(&self.described["security"]).any(|way| way["bearer"].is_array())
    }

    fn token(&self) -> &'static str {
        let may_be_left_out = list(&self.described["security"]).any(|way| fields(way).next().is_none());
        match (self.takes_token(), may_be_left_out) {
            (false, _) => "No token is needed.",
            (true, true) => "With a <a href=\"#token\">token</a>, if the configuration has tokens.",
            (true, false) => "With a <a href=\"#token\">token</a>.",
        }
    }

    /// A call with `curl` for each form of the body.
    fn examples(&self) -> String {
        let bodies: Vec<_> = fields(&self.described["requestBody"]["content"]).collect();
        if bodies.is_empty() {
            return format!("<pre>{}</pre>\n", escape(&self.curl("")));
        }
        let example = |(media, body): (&String, &Value)| {
            let data = &body["example"];
            let data = if data.is_null() { "...".to_owned() } else { plain(data) };
            let header = shell_word(&format!("Content-Type: {media}"));
            let more = format!(" \\\n  -H {header} \\\n  --data-binary {}", shell_word(data.trim_end()));
            format!("<pre>{}</pre>\n", escape(&self.curl(&more)))
        };
        bodies.into_iter().map(example).collect()
    }

    fn curl(&self, more: &str) -> String {
        let mut path = self.path.to_owned();
        for parameter in list(&self.described["parameters"]).filter(|parameter| parameter["in"] == "path") {
            let name = parameter["name"].as_str().unwrap_or_default();
            let example = &parameter["example"];
            let example = if example.is_null() { name.to_ascii_uppercase() } else { plain(example) };
            path = path.replace(&format!("{{{name}}}"), &example);
        }
        let method = match self.method {
            "get" => String::new(),
            "post" if !more.is_empty() => String::new(),
            method => format!(" -X {}", method.to_ascii_uppercase()),
        };
        let token = if self.takes_token() { " \\\n  -H \"Authorization: Bearer $TOKEN\"" } else { "" };
        let is_plain = path.chars().all(|letter| letter.is_ascii_alphanumeric() || "/._~-".contains(letter));
        let url = if is_plain { format!("\"$URL{path}\"") } else { format!("\"$URL\"{}", shell_word(&path)) };
        format!("curl{method} {url}{token}{more}")
    }

    fn parameter(&self, parameter: &Value) -> String {
        let parameter = self.resolved(parameter);
        let name = escape(parameter["name"].as_str().unwrap_or_default());
        let place = escape(parameter["in"].as_str().unwrap_or_default());
        let required = if parameter["required"] == true { "<span class=\"tag\">required</span>" } else { "" };
        let name = format!("<code>{name}</code><span class=\"tag\">{place}</span>{required}");
        row(&name, &words(&parameter["schema"]), &parameter["description"])
    }

    fn answer(&self, status: &str, answer: &Value) -> String {
        let reason = status.parse().ok().and_then(|status| StatusCode::from_u16(status).ok());
        let reason = reason.and_then(|status| status.canonical_reason()).unwrap_or_default();
        let kind = status.chars().next().filter(char::is_ascii_digit).unwrap_or('0');
        let mut what = paragraph(answer, "description");
        for (media, content) in fields(&answer["content"]) {
            let schema = &content["schema"];
            let schema = if schema.is_null() { String::new() } else { format!(": {}", words(schema)) };
            what.push_str(&format!("<p class=\"type\"><code>{}</code>{schema}</p>", escape(media)));
        }
        for (name, header) in fields(&answer["headers"]) {
            let header = self.resolved(header);
            let always = if header["required"] == true { "<span class=\"tag\">always</span>" } else { "" };
            let words = words(&header["schema"]);
            what.push_str(&format!("<p class=\"type\"><code>{}</code>{always}: {words}</p>", escape(name)));
            what.push_str(&paragraph(header, "description"));
        }
        let status = escape(status);
        format!(
            "<div class=\"row\" id=\"{}-{status}\"><div><span class=\"status s{kind}\">{status}</span> {reason}</div>\
             <div>{what}</div></div>\n",
            self.id()
        )
    }

    /// What a reference stands for.
    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        let path = value["$ref"].as_str().and_then(|path| path.strip_prefix('#'));
        path.and_then(|path| self.document.pointer(path)).unwrap_or(value)
    }
}

fn medium(media: &str, body: &Value) -> String {
    row(&format!("<code>{}</code>", escape(media)), &words(&body["schema"]), &body["schema"]["description"])
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}
