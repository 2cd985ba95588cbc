//! Alert rules and dashboards in `monitoring`: complete, tested, and about metrics that exist.
//!
//! [`faults`] verifies what promtool does not: that every alert has its tests, labels and runbook, and that rules and
//! dashboards name only metrics and labels of the golden exposition. promtool verifies expressions and runs the unit
//! tests. Each rule of the check has a test with a constructed fault.

mod promql;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::{Value, json};

use crate::documents::{anchors, blocks, read, repository};
use crate::promtool;
use promql::selectors;

const RULES: &str = "monitoring/targetwatch.rules.yml";

/// Format of the dashboards. Grafana upgrades older ones when it loads them.
const SCHEMA_VERSION: u64 = 39;

/// Variables by which every dashboard is filtered.
const VARIABLES: [&str; 3] = ["datasource", "job", "instance"];

const SEVERITIES: [&str; 3] = ["critical", "warning", "info"];

/// Labels that Prometheus adds to each series.
const SCRAPE_LABELS: [&str; 2] = ["instance", "job"];

/// Variables of Grafana in ranges, and a value for promtool.
const RANGES: [(&str, &str); 2] = [("$__rate_interval", "5m"), ("$__range", "1h")];

/// Labels by the name of their metric.
type Metrics = BTreeMap<String, BTreeSet<String>>;

/// The files, by name where there are several.
#[derive(Clone)]
struct Monitoring {
    rules: String,
    tests: BTreeMap<String, String>,
    dashboards: BTreeMap<String, String>,
    exposition: String,
    page: String,
}

impl Monitoring {
    fn read() -> Self {
        let directory = |path: &str| {
            let entries = fs::read_dir(repository().join(path)).expect("a directory");
            let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text"));
            names.map(|name| (name.clone(), read(format!("{path}/{name}")))).collect()
        };
        Self {
            rules: read(RULES),
            tests: directory("monitoring/tests"),
            dashboards: directory("monitoring/dashboards"),
            exposition: read("tests/fixtures/metrics.prom") + &read("tests/fixtures/fleet-metrics.prom"),
            page: read("docs/monitoring.md"),
        }
    }

    /// Every rule: recordings and alerts.
    fn rules(&self) -> Vec<Value> {
        let groups = yaml(&self.rules)["groups"].take();
        list(&groups).iter().flat_map(|group| list(&group["rules"])).cloned().collect()
    }

    fn dashboards(&self) -> impl Iterator<Item = (&str, Value)> {
        self.dashboards.iter().map(|(name, text)| (name.as_str(), serde_json::from_str(text).expect("JSON")))
    }

    /// Metrics that agents and aggregators export, and those that Prometheus and the rules add.
    fn known_metrics(&self) -> Metrics {
        let mut known = Metrics::from([("up".to_owned(), BTreeSet::new())]);
        for selector in self.exposition.lines().filter(|line| !line.starts_with('#')).flat_map(selectors) {
            known.entry(selector.metric).or_default().extend(selector.labels);
        }
        for rule in self.rules() {
            if let Some(name) = rule["record"].as_str() {
                known.insert(name.to_owned(), BTreeSet::from(["export".to_owned()]));
            }
        }
        for labels in known.values_mut() {
            labels.extend(SCRAPE_LABELS.map(str::to_owned));
        }
        known
    }
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).expect("YAML")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default().trim()
}

/// Everything that is wrong with the files, one sentence for each fault.
fn faults(monitoring: &Monitoring) -> Vec<String> {
    let known = monitoring.known_metrics();
    let rules = monitoring.rules();
    let mut faults = Vec::new();
    for rule in &rules {
        let name = text(&rule["alert"]).to_owned() + text(&rule["record"]);
        faults.extend(unknown_names(&name, text(&rule["expr"]), &known));
    }
    let anchors = anchors(&monitoring.page);
    let tests: Vec<Value> = monitoring.tests.values().flat_map(|file| list(&yaml(file)["tests"]).to_vec()).collect();
    for test in &tests {
        for series in list(&test["input_series"]) {
            faults.extend(unknown_names(text(&test["name"]), text(&series["series"]), &known));
        }
    }
    let mut alerts = BTreeSet::new();
    for rule in rules.iter().filter(|rule| rule["record"].is_null()) {
        let name = text(&rule["alert"]);
        alerts.insert(name.to_lowercase());
        faults.extend(alert_faults(rule, &anchors).into_iter().map(|fault| format!("{name}: {fault}")));
        let metrics = metrics_of(text(&rule["expr"]), &rules);
        faults.extend(test_faults(name, &metrics, &tests));
    }
    let described = anchors.iter().filter(|anchor| anchor.starts_with("targetwatch") && !alerts.contains(*anchor));
    faults.extend(described.map(|anchor| format!("docs/monitoring.md: {anchor} is not an alert")));
    for query in blocks(&monitoring.page, "promql") {
        faults.extend(unknown_names("docs/monitoring.md", &query, &known));
    }
    for (name, dashboard) in monitoring.dashboards() {
        faults.extend(dashboard_faults(&dashboard, &known).into_iter().map(|fault| format!("{name}: {fault}")));
    }
    faults
}

/// Metrics and labels of an expression that do not exist.
fn unknown_names(place: &str, expression: &str, known: &Metrics) -> Vec<String> {
    let mut faults = Vec::new();
    for selector in selectors(expression) {
        match known.get(&selector.metric) {
            None => faults.push(format!("{place}: the metric {} does not exist", selector.metric)),
            Some(labels) => faults.extend(
                selector
                    .labels
                    .difference(labels)
                    .map(|label| format!("{place}: {} does not have the label {label}", selector.metric)),
            ),
        }
    }
    faults
}

/// Metrics that an expression reads, directly or through recordings.
fn metrics_of(expression: &str, rules: &[Value]) -> BTreeSet<String> {
    let mut metrics = BTreeSet::new();
    for selector in selectors(expression) {
        match rules.iter().find(|rule| text(&rule["record"]) == selector.metric) {
            Some(recording) => metrics.extend(metrics_of(text(&recording["expr"]), rules)),
            None => _ = metrics.insert(selector.metric),
        }
    }
    metrics
}

fn alert_faults(alert: &Value, anchors: &BTreeSet<String>) -> Vec<String> {
    let mut faults = Vec::new();
    if !SEVERITIES.contains(&text(&alert["labels"]["severity"])) {
        faults.push(format!("severity must be one of {SEVERITIES:?}"));
    }
    let summary = text(&alert["annotations"]["summary"]);
    if !["{{ $value }} node", " 0 node"].iter().any(|count| summary.contains(count)) {
        faults.push("summary must be a sentence with the number of nodes".to_owned());
    }
    let anchor = text(&alert["annotations"]["runbook_url"]).strip_prefix("docs/monitoring.md#");
    if !anchor.is_some_and(|anchor| anchors.contains(anchor)) {
        faults.push("runbook_url must be a heading of docs/monitoring.md".to_owned());
    }
    faults
}

/// A test without data of the alert's metrics proves nothing, so it does not count.
fn test_faults(name: &str, metrics: &BTreeSet<String>, tests: &[Value]) -> Vec<String> {
    let reads = |series: &Value| selectors(text(&series["series"])).iter().any(|s| metrics.contains(&s.metric));
    let has_data = |test: &&Value| list(&test["input_series"]).iter().any(reads);
    let cases = tests.iter().filter(has_data).flat_map(|test| list(&test["alert_rule_test"]));
    let expected: Vec<&[Value]> =
        cases.filter(|case| text(&case["alertname"]) == name).map(|case| list(&case["exp_alerts"])).collect();
    let mut faults = Vec::new();
    if expected.iter().all(|alerts| alerts.is_empty()) {
        faults.push(format!("{name}: no unit test in which it fires"));
    }
    if expected.iter().all(|alerts| !alerts.is_empty()) {
        faults.push(format!("{name}: no unit test with its metrics in which it does not fire"));
    }
    faults
}

fn dashboard_faults(dashboard: &Value, known: &Metrics) -> Vec<String> {
    let mut faults = Vec::new();
    if dashboard["schemaVersion"] != SCHEMA_VERSION {
        faults.push(format!("schemaVersion must be {SCHEMA_VERSION}"));
    }
    let variables = list(&dashboard["templating"]["list"]);
    for name in VARIABLES.iter().filter(|name| !variables.iter().any(|variable| variable["name"] == **name)) {
        faults.push(format!("the variable {name} is missing"));
    }
    for variable in variables {
        let query = text(&variable["query"]["query"]);
        let series = query.split_once('(').and_then(|(_, arguments)| arguments.rsplit_once(','));
        faults.extend(series.map(|(series, _)| unknown_names(query, series, known)).unwrap_or_default());
    }
    let mut ids = BTreeSet::new();
    for panel in list(&dashboard["panels"]) {
        let title = text(&panel["title"]);
        let unit = &panel["fieldConfig"]["defaults"]["unit"];
        for (what, value) in [("title", &panel["title"]), ("description", &panel["description"]), ("unit", unit)] {
            if text(value).is_empty() {
                faults.push(format!("panel {title:?}: no {what}"));
            }
        }
        if !ids.insert(panel["id"].as_u64().unwrap_or_default()) {
            faults.push(format!("panel {title:?}: id {} is not unique", panel["id"]));
        }
        if panel["datasource"]["uid"] != "${datasource}" {
            faults.push(format!("panel {title:?}: the data source is not the variable"));
        }
        let expressions = expressions(panel);
        if expressions.is_empty() || expressions.iter().any(String::is_empty) {
            faults.push(format!("panel {title:?}: no expression"));
        }
        faults.extend(expressions.iter().flat_map(|expression| unknown_names(title, expression, known)));
    }
    faults
}

/// The expressions of a panel, with values for the variables outside of strings.
fn expressions(panel: &Value) -> Vec<String> {
    let value = |expression: &str| RANGES.iter().fold(expression.to_owned(), |text, (name, to)| text.replace(name, to));
    list(&panel["targets"]).iter().map(|target| value(text(&target["expr"]))).collect()
}

/// Runs promtool on the rules, and on the expressions of panels and of the page as if they were rules.
async fn check_expressions(monitoring: &Monitoring) -> Result<(), String> {
    let mut queries = blocks(&monitoring.page, "promql");
    for (_, dashboard) in monitoring.dashboards() {
        queries.extend(list(&dashboard["panels"]).iter().flat_map(expressions));
    }
    assert!(queries.len() > 80, "{} queries found", queries.len());
    let queries = queries.into_iter().enumerate();
    let queries = queries.map(|(number, query)| json!({ "record": format!("query:{number}"), "expr": query }));
    let queries: Vec<Value> = queries.collect();
    let queries = json!({ "groups": [{ "name": "queries", "rules": queries }] }).to_string();
    let directory = tempfile::tempdir().expect("a directory");
    for rules in [&monitoring.rules, &queries] {
        let path = directory.path().join("rules.yml");
        fs::write(&path, rules).expect("written");
        promtool::run(&["check", "rules", "--lint-fatal", path.to_str().expect("text")], "").await?;
    }
    Ok(())
}

#[test]
fn alerts_and_dashboards_are_complete() {
    let monitoring = Monitoring::read();
    assert_eq!(faults(&monitoring), Vec::<String>::new());
    assert_eq!(monitoring.dashboards.len(), 4);
}

#[tokio::test]
async fn alerts_and_dashboards_have_valid_expressions() {
    if promtool::is_installed() {
        check_expressions(&Monitoring::read()).await.expect("valid expressions");
    }
}

#[tokio::test]
async fn alerts_pass_their_unit_tests() {
    if !promtool::is_installed() {
        return;
    }
    let files = Monitoring::read().tests.into_keys();
    let paths = files.map(|file| repository().join("monitoring/tests").join(file).display().to_string());
    let runs = paths.map(async |path| promtool::run(&["test", "rules", &path], "").await);
    for result in futures::future::join_all(runs).await {
        result.expect("passed tests");
    }
}

/// The files after the first occurrence of a text was replaced in all of them.
fn damaged(from: &str, to: &str) -> Monitoring {
    let mut monitoring = Monitoring::read();
    let Monitoring { rules, tests, dashboards, exposition, page } = &mut monitoring;
    let mut is_found = false;
    for file in [rules, exposition, page].into_iter().chain(tests.values_mut()).chain(dashboards.values_mut()) {
        is_found |= file.contains(from);
        *file = file.replacen(from, to, 1);
    }
    assert!(is_found, "{from} is in no file");
    monitoring
}

/// Asserts that each replacement (from, to) leads to the fault with this text.
fn assert_found(cases: &[(&str, &str, &str)]) {
    for &(from, to, fault) in cases {
        let faults = faults(&damaged(from, to));
        assert!(faults.iter().any(|found| found.contains(fault)), "{from:?} -> {to:?}: {faults:?}");
    }
}

#[test]
fn faults_of_alerts_are_found() {
    let down = "alertname: TargetwatchAgentDown\n    exp_alerts:";
    assert_found(&[
        ("labels: {severity: critical}", "labels: {}", "severity must be"),
        ("labels: {severity: critical}", "labels: {severity: urgent}", "severity must be"),
        ("summary: '{{ $value }} node(s) could not", "text: '{{ $value }} node(s) could not", "summary must be"),
        ("summary: '{{ $value }} node(s) could not", "summary: 'nodes could not", "summary must be"),
        ("runbook_url: docs/monitoring.md#targetwatchsloburn\n\n", "\n\n", "runbook_url must be"),
        (
            "runbook_url: docs/monitoring.md#targetwatchsloburn\n\n",
            "runbook_url: docs/api.md#metrics\n\n",
            "runbook_url",
        ),
        ("### TargetwatchSloBurn", "### Budget", "TargetwatchSloBurn: runbook_url must be"),
        ("### TargetwatchSloBurn", "### TargetwatchSloBurn\n### TargetwatchGone", "targetwatchgone is not an alert"),
        ("(targetwatch_stuck_children > 0)", "(targetwatch_stuck > 0)", "the metric targetwatch_stuck does not exist"),
        ("{verdict=\"not_enforced\"} == 1", "{result=\"not_enforced\"} == 1", "does not have the label result"),
        ("targetwatch_stuck_children 0\n", "", "the metric targetwatch_stuck_children does not exist"),
        (down, "alertname: Another\n    exp_alerts:", "TargetwatchAgentDown: no unit test in which it fires"),
        ("- alert: TargetwatchAgentDown", "- alert: TargetwatchNew", "TargetwatchNew: no unit test with its metrics"),
        ("\ncount by (job) (up)", "\ncount by (job) (upp)", "docs/monitoring.md: the metric upp does not exist"),
        ("{series: 'targetwatch_stuck_children{", "{series: 'stuck{", "the metric stuck does not exist"),
    ]);
}

#[test]
fn test_without_data_of_the_alert_does_not_count() {
    let mut monitoring = Monitoring::read();
    let storage = monitoring.tests.get_mut("storage.yml").expect("tests");
    let (before, quiet) = storage.split_once("- name: 'no TargetwatchNfsGivenUp").expect("a test");
    let quiet = quiet.replacen("targetwatch_nfs_major_timeouts_total", "targetwatch_nfs_requests_total", 1);
    *storage = format!("{before}- name: 'no TargetwatchNfsGivenUp{quiet}");
    assert_eq!(faults(&monitoring), ["TargetwatchNfsGivenUp: no unit test with its metrics in which it does not fire"]);
}

#[test]
fn faults_of_dashboards_are_found() {
    assert_found(&[
        ("\"unit\": \"reqps\"", "\"unit\": \"\"", "no unit"),
        ("\"description\": \"Probes a second by verdict.\"", "\"text\": \"\"", "panel \"Probes\": no description"),
        ("\"title\": \"Workers\"", "\"title\": \"\"", "panel \"\": no title"),
        ("\"id\": 2,", "\"id\": 1,", "id 1 is not unique"),
        ("\"expr\": \"sum(up{", "\"query\": \"sum(up{", "panel \"Agents that answer\": no expression"),
        ("(targetwatch_workers{", "(targetwatch_threads{", "the metric targetwatch_threads does not exist"),
        ("by (state) (targetwatch_workers{job", "by (state) (targetwatch_workers{node", "does not have the label node"),
        ("\"name\": \"instance\"", "\"name\": \"node\"", "the variable instance is missing"),
        ("label_values(targetwatch_build_info,", "label_values(build_info,", "the metric build_info does not exist"),
        (
            "\"uid\": \"${datasource}\"\n      },\n      \"gridPos\"",
            "\"uid\": \"\"\n      },\n      \"gridPos\"",
            "data source",
        ),
        ("\"schemaVersion\": 39", "\"schemaVersion\": 16", "schemaVersion must be 39"),
    ]);
}

#[tokio::test]
async fn invalid_expressions_are_found() {
    if !promtool::is_installed() {
        return;
    }
    for (from, to) in [
        ("sum by (state) (targetwatch_workers{", "sum by state (targetwatch_workers{"),
        ("count(targetwatch_stuck_children > 0)", "count(targetwatch_stuck_children > )"),
        ("\ncount by (job) (up)", "\ncount by job (up)"),
    ] {
        let error = check_expressions(&damaged(from, to)).await.expect_err("refused");
        assert!(error.contains("could not parse expression"), "{error}");
    }
}
