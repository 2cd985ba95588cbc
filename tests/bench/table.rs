//! The table of figures, and statistics of repeated measurements.

use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

use comfy_table::{CellAlignment, presets};

/// Figures in the order of their measurement.
#[derive(Default)]
pub struct Table {
    figures: Vec<Figure>,
}

struct Figure {
    name: String,
    value: String,
    goal: Option<(String, bool)>,
}

impl Table {
    /// Adds a figure without a goal.
    pub fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.push(Figure { name: name.into(), value: value.into(), goal: None });
    }

    /// Adds a figure with a goal.
    pub fn add_with_goal(
        &mut self,
        name: impl Into<String>,
        value: impl Into<String>,
        goal: impl Into<String>,
        is_met: bool,
    ) {
        self.push(Figure { name: name.into(), value: value.into(), goal: Some((goal.into(), is_met)) });
    }

    /// Prints a figure at once too, because a benchmark takes minutes and may fail later.
    fn push(&mut self, figure: Figure) {
        eprintln!("{}: {}", figure.name, figure.value);
        self.figures.push(figure);
    }

    /// Whether every goal is met.
    pub fn all_goals_met(&self) -> bool {
        self.figures.iter().all(|figure| figure.goal.as_ref().is_none_or(|(_, is_met)| *is_met))
    }
}

/// Prints the table of a benchmark. Returns failure when a goal was missed or the benchmark itself failed.
pub fn finish(outcome: anyhow::Result<Table>) -> ExitCode {
    match outcome {
        Ok(table) => {
            println!("{table}");
            if table.all_goals_met() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::ASCII_MARKDOWN).set_header(["figure", "value", "goal", ""]);
        for Figure { name, value, goal } in &self.figures {
            let (goal, result) = match goal {
                None => ("", ""),
                Some((goal, true)) => (goal.as_str(), "met"),
                Some((goal, false)) => (goal.as_str(), "MISSED"),
            };
            table.add_row([name.as_str(), value, goal, result]);
        }
        if let Some(values) = table.column_mut(1) {
            values.set_cell_alignment(CellAlignment::Right);
        }
        write!(formatter, "{table}")
    }
}

/// The exponent with which a figure grows between two counts, each with the figure there.
pub fn exponent(first: (usize, f64), last: (usize, f64)) -> f64 {
    (last.1 / first.1).ln() / (last.0 as f64 / first.0 as f64).ln()
}

/// Repeated measurements of one figure, in ascending order.
pub struct Sample<T>(Vec<T>);

impl<T: Copy + PartialOrd> Sample<T> {
    /// Fails without any measurement.
    pub fn new(mut measured: Vec<T>) -> anyhow::Result<Self> {
        anyhow::ensure!(!measured.is_empty(), "nothing was measured");
        measured.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
        Ok(Self(measured))
    }

    /// The smallest measurement that is at least as large as `percent` of all (nearest rank).
    pub fn percentile(&self, percent: usize) -> T {
        let rank = (self.0.len() * percent).div_ceil(100);
        self.0[rank.saturating_sub(1)]
    }

    /// The median.
    pub fn median(&self) -> T {
        self.percentile(50)
    }

    /// The largest measurement.
    pub fn max(&self) -> T {
        self.percentile(100)
    }
}

impl Sample<Duration> {
    /// Median, 99th percentile and maximum, in milliseconds.
    pub fn summary(&self) -> String {
        let ms = |duration: Duration| format!("{:.1}", duration.as_secs_f64() * 1e3);
        format!("{} / {} / {} ms", ms(self.median()), ms(self.percentile(99)), ms(self.max()))
    }
}
