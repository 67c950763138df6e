//! Panels and their layout.

use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::telemetry::names::Metric;

/// The data source of every panel and query: the variable `$datasource`.
pub static DATASOURCE: LazyLock<Value> = LazyLock::new(|| json!({"type": "prometheus", "uid": "${datasource}"}));

/// Number of columns of Grafana's grid.
const COLUMNS: u32 = 24;

/// Units of values, with Grafana's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A number.
    Count,
    /// Events per second.
    PerSecond,
    /// Seconds.
    Seconds,
    /// A share, 0 to 1.
    Share,
    /// Bytes.
    Bytes,
}

impl Unit {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Count => "short",
            Self::PerSecond => "cps",
            Self::Seconds => "s",
            Self::Share => "percentunit",
            Self::Bytes => "bytes",
        }
    }
}

/// The type of a panel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    /// The header of the panels after it.
    Row,
    /// One number.
    Stat,
    /// Lines over time.
    Graph,
    /// States over time, in colours.
    States,
    /// One line per ladder, one column per query.
    Table,
}

/// A panel, built by the methods that change it.
#[derive(Debug, Clone)]
pub struct Panel {
    view: View,
    title: &'static str,
    about: String,
    unit: Unit,
    width: u32,
    height: u32,
    queries: Vec<(String, String)>,
    /// Green below the first limit, then yellow, then red.
    limits: Vec<(f64, &'static str)>,
    /// Texts for numbers.
    words: Vec<(u8, &'static str, &'static str)>,
    /// The unit of each column, if not that of the panel.
    columns: Vec<(&'static str, Unit)>,
    repeat: Option<&'static str>,
}

impl Panel {
    fn new(view: View, title: &'static str, about: &str, unit: Unit, width: u32, height: u32) -> Self {
        let (queries, limits, words, columns) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { view, title, about: about.to_owned(), unit, width, height, queries, limits, words, columns, repeat: None }
    }

    /// A row header for the panels that follow.
    pub fn row(title: &'static str) -> Self {
        Self::new(View::Row, title, "", Unit::Count, COLUMNS, 1)
    }

    /// One number, with its metric's help text.
    pub fn stat(title: &'static str, metric: Metric, unit: Unit, query: String) -> Self {
        Self::new(View::Stat, title, metric.help, unit, 4, 4).query("", query)
    }

    /// Lines over time.
    pub fn graph(title: &'static str, metric: Metric, unit: Unit) -> Self {
        Self::new(View::Graph, title, metric.help, unit, 8, 8)
    }

    /// States over time; numbers get their texts by [`Panel::word`].
    pub fn states(title: &'static str, metric: Metric) -> Self {
        Self::new(View::States, title, metric.help, Unit::Count, 8, 8)
    }

    /// A line per value of the label that all queries share.
    pub fn table(title: &'static str, about: &str) -> Self {
        Self::new(View::Table, title, about, Unit::Count, COLUMNS, 8)
    }

    /// Adds a query and the name of its lines; `{{label}}` is replaced by the label's value.
    pub fn query(mut self, legend: &str, query: String) -> Self {
        self.queries.push((legend.to_owned(), query));
        self
    }

    /// Adds a column to a table.
    pub fn column(mut self, title: &'static str, unit: Unit, query: String) -> Self {
        self.columns.push((title, unit));
        self.query(title, query)
    }

    /// Limits from which the value is yellow and red.
    pub fn limits(mut self, yellow: f64, red: f64) -> Self {
        self.limits = vec![(yellow, "yellow"), (red, "red")];
        self
    }

    /// The limit from which the value is red.
    pub fn limit(mut self, red: f64) -> Self {
        self.limits = vec![(red, "red")];
        self
    }

    /// The text of a number, and its colour.
    pub fn word(mut self, number: u8, word: &'static str, color: &'static str) -> Self {
        self.words.push((number, word, color));
        self
    }

    /// Size in columns (of 24) and rows of Grafana's grid.
    pub fn size(mut self, width: u32, height: u32) -> Self {
        (self.width, self.height) = (width, height);
        self
    }

    /// Repeats it for each value of a variable.
    pub fn repeat(mut self, variable: &'static str) -> Self {
        self.repeat = Some(variable);
        self
    }

    fn to_json(&self, id: usize, x: u32, y: u32) -> Value {
        let place = json!({"x": x, "y": y, "w": self.width, "h": self.height});
        let (kind, options, custom) = match self.view {
            View::Row => {
                let mut row =
                    json!({"type": "row", "id": id, "title": self.title, "collapsed": false, "gridPos": place, "panels": []});
                if let Some(variable) = self.repeat {
                    row["repeat"] = json!(variable);
                }
                return row;
            }
            View::Stat => ("stat", stat_options(), json!({})),
            View::Graph => ("timeseries", graph_options(), graph_custom(!self.limits.is_empty())),
            View::States => ("state-timeline", states_options(), json!({"fillOpacity": 80, "lineWidth": 0})),
            View::Table => ("table", json!({"showHeader": true, "frameIndex": 0, "cellHeight": "sm"}), json!({"align": "auto"})),
        };
        let mut panel = json!({
            "type": kind,
            "id": id,
            "title": self.title,
            "description": self.about,
            "transparent": false,
            "datasource": DATASOURCE.clone(),
            "gridPos": place,
            "targets": self.queries.iter().enumerate().map(|(i, query)| self.target(i, query)).collect::<Vec<_>>(),
            "options": options,
            "fieldConfig": {
                "defaults": {
                    "unit": self.unit.as_str(),
                    "custom": custom,
                    "color": {"mode": if self.view == View::Graph { "palette-classic" } else { "thresholds" }},
                    "thresholds": {"mode": "absolute", "steps": self.steps()},
                    "mappings": self.mappings(),
                },
                "overrides": self.overrides(),
            },
        });
        if self.view == View::Table {
            panel["transformations"] = Self::transformations();
        }
        panel
    }

    fn target(&self, index: usize, (legend, query): &(String, String)) -> Value {
        let is_instant = matches!(self.view, View::Stat | View::Table);
        json!({
            "refId": letter(index),
            "expr": query,
            "legendFormat": legend,
            "datasource": DATASOURCE.clone(),
            "editorMode": "code",
            "instant": is_instant,
            "range": !is_instant,
            "format": if self.view == View::Table { "table" } else { "time_series" },
        })
    }

    fn steps(&self) -> Vec<Value> {
        let first = json!({"value": null, "color": "green"});
        std::iter::once(first).chain(self.limits.iter().map(|(value, color)| json!({"value": value, "color": color}))).collect()
    }

    fn mappings(&self) -> Vec<Value> {
        if self.words.is_empty() {
            return Vec::new();
        }
        let word = |(i, (number, word, color)): (usize, &(u8, &str, &str))| {
            (number.to_string(), json!({"text": word, "color": color, "index": i}))
        };
        let options: serde_json::Map<String, Value> = self.words.iter().enumerate().map(word).collect();
        vec![json!({"type": "value", "options": options})]
    }

    /// Titles and units of a table's columns.
    fn overrides(&self) -> Vec<Value> {
        // Grafana names a query's values by its letter only if there are several.
        let name = |i| if self.columns.len() == 1 { "Value".to_owned() } else { format!("Value #{}", letter(i)) };
        let column = |(i, (title, unit)): (usize, &(&str, Unit))| {
            json!({
                "matcher": {"id": "byName", "options": name(i)},
                "properties": [{"id": "displayName", "value": title}, {"id": "unit", "value": unit.as_str()}],
            })
        };
        self.columns.iter().enumerate().map(column).collect()
    }

    /// Joins the queries' results to one table.
    fn transformations() -> Value {
        json!([
            {"id": "merge", "options": {}},
            {"id": "organize", "options": {"excludeByName": {"Time": true}, "indexByName": {}, "renameByName": {}}},
        ])
    }
}

/// The letter that identifies a query in a panel.
fn letter(index: usize) -> String {
    char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ"[index]).to_string()
}

fn stat_options() -> Value {
    json!({
        "graphMode": "area", "colorMode": "value", "justifyMode": "auto", "textMode": "auto", "orientation": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "values": false, "fields": ""},
    })
}

fn graph_options() -> Value {
    json!({
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    })
}

fn states_options() -> Value {
    json!({
        "showValue": "auto", "rowHeight": 0.9, "mergeValues": true, "alignValue": "left",
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": false, "calcs": []},
        "tooltip": {"mode": "single", "sort": "none"},
    })
}

fn graph_custom(has_limits: bool) -> Value {
    json!({
        "drawStyle": "line", "lineInterpolation": "linear", "lineWidth": 1, "fillOpacity": 10, "showPoints": "auto",
        "spanNulls": false, "axisSoftMin": 0,
        "thresholdsStyle": {"mode": if has_limits { "dashed" } else { "off" }},
    })
}

/// Numbers the panels and places them side by side as long as there is room.
pub fn lay_out(panels: Vec<Panel>) -> Vec<Value> {
    let (mut x, mut y, mut height) = (0, 0, 0);
    let mut placed = Vec::new();
    for (i, panel) in panels.iter().enumerate() {
        if x + panel.width > COLUMNS {
            (x, y, height) = (0, y + height, 0);
        }
        placed.push(panel.to_json(i + 1, x, y));
        x += panel.width;
        height = height.max(panel.height);
    }
    placed
}
