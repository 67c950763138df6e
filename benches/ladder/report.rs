//! The results, as a table for people and as JSON for machines.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

/// The target of a figure.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// None: for information only.
    Told,
}

/// A figure of one run.
pub struct Figure {
    pub name: &'static str,
    pub unit: &'static str,
    pub value: f64,
    pub target: Target,
}

pub const fn figure(name: &'static str, unit: &'static str, value: f64, target: Target) -> Figure {
    Figure { name, unit, value, target }
}

/// The runs of a scenario.
pub struct Row {
    pub scenario: &'static str,
    pub name: &'static str,
    pub unit: &'static str,
    pub target: Target,
    pub values: Vec<f64>,
}

impl Row {
    pub fn median(&self) -> f64 {
        percentile(&self.values, 50.0)
    }

    /// By the median of the runs; something that must not happen may not happen in any of them.
    fn is_met(&self) -> bool {
        match self.target {
            Target::AtLeast(bound) => self.median() >= bound,
            Target::AtMost(0.0) => bounds(&self.values).1 <= 0.0,
            Target::AtMost(bound) => self.median() <= bound,
            Target::Told => true,
        }
    }

    fn json(&self) -> Value {
        let bound = match self.target {
            Target::AtLeast(bound) => json!({ "at_least": bound }),
            Target::AtMost(bound) => json!({ "at_most": bound }),
            Target::Told => Value::Null,
        };
        json!({
            "scenario": self.scenario, "figure": self.name, "unit": self.unit, "runs": self.values,
            "median": self.median(), "target": bound, "met": self.is_met(),
        })
    }
}

/// Merges the figures of several runs, in the order of the first.
pub fn gather(scenario: &'static str, runs: Vec<Vec<Figure>>) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for figure in runs.into_iter().flatten() {
        match rows.iter_mut().find(|row| row.name == figure.name) {
            Some(row) => row.values.push(figure.value),
            None => rows.push(Row {
                scenario,
                name: figure.name,
                unit: figure.unit,
                target: figure.target,
                values: vec![figure.value],
            }),
        }
    }
    rows
}

pub fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["scenario", "figure", "median", "lowest", "highest", "unit", "target", ""]);
    for row in rows {
        let target = match row.target {
            Target::AtLeast(bound) => format!("≥ {}", number(bound)),
            Target::AtMost(bound) => format!("≤ {}", number(bound)),
            Target::Told => String::new(),
        };
        let met = match row.target {
            Target::Told => "",
            _ if row.is_met() => "met",
            _ => "MISSED",
        };
        let (low, high) = bounds(&row.values);
        table.add_row([
            row.scenario.to_owned(),
            row.name.to_owned(),
            number(row.median()),
            number(low),
            number(high),
            row.unit.to_owned(),
            target,
            met.to_owned(),
        ]);
    }
    for column in 2..5 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

pub fn json(machine: &BTreeMap<&'static str, String>, rows: &[Row]) -> String {
    let all = json!({ "machine": machine, "figures": rows.iter().map(Row::json).collect::<Vec<_>>() });
    let mut text = format!("{all:#}");
    let _ = writeln!(text);
    text
}

fn bounds(values: &[f64]) -> (f64, f64) {
    (values.iter().copied().fold(f64::INFINITY, f64::min), values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
}

/// Three significant digits, and whole numbers for larger values.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 10_000.0 => {
            let digits = format!("{value:.0}");
            let cut = digits.len() - 3;
            format!("{},{}", &digits[..cut], &digits[cut..])
        }
        size if size >= 100.0 || size == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Of unsorted values, by nearest rank; 0 for none.
pub fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts of records")]
    let rank = (percent / 100.0 * count(sorted.len())).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0.0)
}

/// As a figure.
#[expect(clippy::cast_precision_loss, reason = "counts of records")]
pub fn count(n: usize) -> f64 {
    n as f64
}
