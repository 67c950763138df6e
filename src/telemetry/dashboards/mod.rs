//! Dashboards for Grafana, generated from the metrics' names: all ladders, one ladder with a row per tier, the dead
//! letters.
//!
//! They work with any Prometheus (`$datasource`) and any ladder (`$ladder`), so one import serves every configuration; uids are
//! fixed, so importing a newer version replaces the older one. Counts of several processes are summed; if each process reports the
//! same thing (dead letters, a breaker), the largest is shown. No query substitutes a value for a missing series.

mod dlq;
mod fleet;
mod ladder;
mod panel;

use serde_json::{Value, json};

use crate::telemetry::dashboards::panel::{DATASOURCE, Panel, lay_out};

/// A dashboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dashboard {
    /// All ladders, as rows of a table.
    Fleet,
    /// One ladder, with a row per tier.
    Ladder,
    /// The dead letters of one ladder or several.
    Dlq,
}

/// The tag that all of them have, and by which they link to each other.
const TAG: &str = "kladder";

impl Dashboard {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Fleet, Self::Ladder, Self::Dlq];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fleet => "fleet",
            Self::Ladder => "ladder",
            Self::Dlq => "dlq",
        }
    }

    /// Its uid in Grafana, which never changes; also the stem of its file.
    #[must_use]
    pub const fn uid(self) -> &'static str {
        match self {
            Self::Fleet => "kladder-fleet",
            Self::Ladder => "kladder-ladder",
            Self::Dlq => "kladder-dlq",
        }
    }

    /// The dashboard as importable JSON. If it shows one ladder, the first of these is selected initially.
    #[must_use]
    pub fn to_json(self, ladders: &[&str]) -> Value {
        let (title, description, panels, variables) = match self {
            Self::Fleet => ("kladder: fleet", fleet::ABOUT, fleet::panels(), vec![every_ladder()]),
            Self::Ladder => ("kladder: ladder", ladder::ABOUT, ladder::panels(), vec![one_ladder(ladders), tiers()]),
            Self::Dlq => ("kladder: dead letters", dlq::ABOUT, dlq::panels(), vec![every_ladder()]),
        };
        dashboard(self.uid(), title, description, panels, variables)
    }
}

fn dashboard(uid: &str, title: &str, description: &str, panels: Vec<Panel>, own: Vec<Value>) -> Value {
    let datasource = json!({
        "type": "datasource", "name": "datasource", "label": "Prometheus", "query": "prometheus", "refresh": 1, "hide": 0,
        "multi": false, "includeAll": false, "options": [], "regex": "", "skipUrlSync": false,
    });
    let variables: Vec<Value> = std::iter::once(datasource).chain(own).collect();
    let links = json!([{
        "type": "dashboards", "title": "kladder", "tags": [TAG], "asDropdown": false, "includeVars": true, "keepTime": true,
        "targetBlank": false, "icon": "external link", "tooltip": "",
    }]);
    json!({
        "uid": uid,
        "title": title,
        "description": description,
        "tags": [TAG, "kafka"],
        "style": "dark",
        "timezone": "browser",
        "editable": true,
        "graphTooltip": 1,
        "schemaVersion": 39,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": variables},
        "annotations": {"list": []},
        "links": links,
        "panels": lay_out(panels),
    })
}

/// `$ladder` with one value.
fn one_ladder(ladders: &[&str]) -> Value {
    let mut variable = from_label("ladder", "Ladder", &fleet::ladders(), false);
    if let Some(first) = ladders.first() {
        variable["current"] = json!({"selected": true, "text": first, "value": first});
    }
    variable
}

/// `$ladder` with several values.
fn every_ladder() -> Value {
    from_label("ladder", "Ladder", &fleet::ladders(), true)
}

/// `$tier`, by which rows are repeated.
fn tiers() -> Value {
    from_label("tier", "Tier", &ladder::tiers(), true)
}

fn from_label(name: &str, label: &str, query: &str, is_many: bool) -> Value {
    let mut variable = json!({
        "type": "query", "name": name, "label": label, "datasource": DATASOURCE.clone(),
        "query": {"query": query, "refId": format!("kladder-{name}")},
        "refresh": 2, "sort": 0, "hide": 0, "multi": is_many, "includeAll": is_many, "options": [], "regex": "",
        "skipUrlSync": false,
    });
    if is_many {
        variable["current"] = json!({"selected": true, "text": ["All"], "value": ["$__all"]});
        variable["allValue"] = json!(".+");
    }
    variable
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::telemetry::promql::testing::metrics_of;

    /// Every query of a dashboard.
    fn queries(dashboard: &Value) -> Vec<String> {
        let panels = dashboard["panels"].as_array().unwrap().iter();
        let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
        targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn every_query_asks_for_metrics_and_labels_that_there_are() {
        for dashboard in Dashboard::ALL {
            let queries = queries(&dashboard.to_json(&[]));
            assert!(queries.len() > 10, "{dashboard:?}");
            for query in queries {
                metrics_of(&query);
                assert!(!query.contains("rate(") || query.contains("[$__rate_interval]"), "{query}");
            }
        }
    }

    #[test]
    fn panels_stand_beside_each_other_and_have_numbers_of_their_own() {
        for dashboard in Dashboard::ALL {
            let json = dashboard.to_json(&["a"]);
            let panels = json["panels"].as_array().unwrap();
            let ids: BTreeSet<i64> = panels.iter().map(|panel| panel["id"].as_i64().unwrap()).collect();
            assert_eq!(ids.len(), panels.len(), "{dashboard:?}");
            let mut taken = BTreeSet::new();
            for panel in panels {
                let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
                assert!(x + w <= 24, "{panel}");
                for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                    assert!(taken.insert(cell), "{dashboard:?}: {} overlaps another", panel["title"]);
                }
                assert!(panel["type"] == "row" || !panel["description"].as_str().unwrap().is_empty(), "{panel}");
            }
        }
    }

    #[test]
    fn the_ladder_s_dashboard_repeats_its_row_by_the_tier_and_begins_with_the_first_ladder() {
        let json = Dashboard::Ladder.to_json(&["billing-orders", "other"]);
        let rows: Vec<&Value> = json["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] == "row").collect();
        assert!(rows.iter().any(|row| row["repeat"] == "tier" && row["title"] == "Tier $tier"), "{rows:?}");
        let variables = json["templating"]["list"].as_array().unwrap();
        let names: Vec<&str> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["datasource", "ladder", "tier"]);
        assert_eq!(variables[1]["current"]["value"], "billing-orders");
    }

    #[test]
    fn every_metric_is_shown_somewhere() {
        use crate::telemetry::names as n;
        let all: Vec<String> = Dashboard::ALL.into_iter().flat_map(|dashboard| queries(&dashboard.to_json(&[]))).collect();
        let shown: BTreeSet<&str> = all.iter().flat_map(|query| metrics_of(query)).map(|metric| metric.name).collect();
        let missing: Vec<&str> = n::ALL.iter().map(|metric| metric.name).filter(|name| !shown.contains(name)).collect();
        // Only with rules, or only in relay mode: a panel would be empty on most ladders.
        assert_eq!(missing, [n::CLASSIFIED.name, n::RELAY_HEADERS_MISSING.name]);
    }
}
