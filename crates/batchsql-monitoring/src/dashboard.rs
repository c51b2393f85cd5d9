//! Owns the model of a dashboard file and its queries.
//! Must not know the rules for dashboards, or Prometheus.

use serde::Deserialize;
use serde_json::Value;

/// A dashboard in Grafana's classic model, with the fields that are checked.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Dashboard {
    #[serde(default)]
    pub(crate) title: String,
    #[serde(default)]
    pub(crate) uid: String,
    #[serde(default)]
    pub(crate) schema_version: u32,
    #[serde(default, rename = "__inputs")]
    pub(crate) inputs: Option<Value>,
    #[serde(default)]
    pub(crate) panels: Vec<Panel>,
    #[serde(default)]
    pub(crate) templating: List<Variable>,
    #[serde(default)]
    pub(crate) annotations: List<Annotation>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct List<T> {
    #[serde(default = "Vec::new")]
    pub(crate) list: Vec<T>,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { list: Vec::new() }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Panel {
    #[serde(default)]
    pub(crate) id: Option<u64>,
    #[serde(default)]
    pub(crate) title: String,
    #[serde(default)]
    pub(crate) description: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) grid_pos: Option<GridPosition>,
    #[serde(default)]
    pub(crate) datasource: Option<Value>,
    #[serde(default)]
    pub(crate) field_config: FieldConfig,
    #[serde(default)]
    pub(crate) targets: Vec<Target>,
    /// The panels of a collapsed row.
    #[serde(default)]
    pub(crate) panels: Vec<Panel>,
}

/// Columns of 24, and rows of 30 pixels.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct GridPosition {
    pub(crate) x: u32,
    pub(crate) y: u32,
    pub(crate) w: u32,
    pub(crate) h: u32,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct FieldConfig {
    #[serde(default)]
    pub(crate) defaults: Defaults,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Defaults {
    #[serde(default)]
    pub(crate) unit: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Target {
    #[serde(default)]
    pub(crate) ref_id: String,
    #[serde(default)]
    pub(crate) expr: String,
    #[serde(default)]
    pub(crate) legend_format: String,
    #[serde(default)]
    pub(crate) format: String,
    #[serde(default)]
    pub(crate) instant: bool,
    #[serde(default)]
    pub(crate) datasource: Option<Value>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Variable {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) label: Option<String>,
    #[serde(default)]
    pub(crate) all_value: Option<String>,
    #[serde(default)]
    pub(crate) include_all: bool,
    #[serde(default)]
    pub(crate) multi: bool,
    #[serde(default)]
    pub(crate) query: Value,
    #[serde(default)]
    pub(crate) datasource: Option<Value>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Annotation {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) expr: String,
    #[serde(default)]
    pub(crate) datasource: Option<Value>,
    #[serde(default)]
    pub(crate) title_format: String,
    #[serde(default)]
    pub(crate) text_format: String,
}

impl Dashboard {
    /// # Errors
    /// The text is not JSON, or not a dashboard.
    pub(crate) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// Every panel, including those of collapsed rows, and the rows themselves.
    pub(crate) fn all_panels(&self) -> impl Iterator<Item = &Panel> {
        self.panels.iter().flat_map(|panel| std::iter::once(panel).chain(&panel.panels))
    }
}

impl Panel {
    pub(crate) fn is_row(&self) -> bool {
        self.kind == "row"
    }

    /// Its name in findings.
    pub(crate) fn name(&self) -> String {
        match (self.title.as_str(), self.id) {
            ("", Some(id)) => format!("panel {id}"),
            ("", None) => "a panel without id and title".to_owned(),
            (title, _) => format!("panel \"{title}\""),
        }
    }
}

impl Variable {
    /// The metric or selector, and the label, of `label_values(selector, label)`.
    pub(crate) fn label_values(&self) -> Option<(String, String)> {
        let query = self.query.get("query").unwrap_or(&self.query).as_str()?;
        let inside = query.trim().strip_prefix("label_values(")?.strip_suffix(')')?;
        let (selector, label) = inside.rsplit_once(',')?;
        Some((selector.trim().to_owned(), label.trim().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_of_a_variable_is_a_text_or_in_an_object() {
        let variable = |query: &str| -> Variable {
            serde_json::from_str(&format!(r#"{{"name": "n", "type": "query", "query": {query}}}"#)).unwrap()
        };
        let expected = Some(("up{a=\"1\", b=\"2\"}".to_owned(), "job".to_owned()));
        assert_eq!(variable(r#""label_values(up{a=\"1\", b=\"2\"}, job)""#).label_values(), expected);
        assert_eq!(variable(r#"{"query": "label_values(up{a=\"1\", b=\"2\"},job)"}"#).label_values(), expected);
        assert_eq!(variable(r#""query_result(up)""#).label_values(), None);
    }

    #[test]
    fn panels_of_collapsed_rows_are_not_forgotten() {
        let text = r#"{"panels": [{"type": "row", "panels": [{"type": "stat", "title": "inside"}]}]}"#;
        let titles: Vec<_> =
            Dashboard::parse(text).unwrap().all_panels().map(|panel| (panel.is_row(), panel.title.clone())).collect();
        assert_eq!(titles, [(true, String::new()), (false, "inside".to_owned())]);
    }
}
