//! Figures, and their output as a line of JSON each or as a table.

use serde_json::json;

use super::super::{Output, print};

#[derive(Debug, Clone, Copy)]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

#[derive(Debug, Clone)]
pub struct Figure {
    pub scenario: &'static str,
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
    pub goal: Option<Goal>,
    /// The values of each second, if they are recorded.
    pub per_second: Vec<f64>,
}

impl Figure {
    /// A figure without a goal. `unit`: as printed after the value.
    pub fn new(scenario: &'static str, name: impl Into<String>, value: f64, unit: &'static str) -> Figure {
        Figure { scenario, name: name.into(), value, unit, goal: None, per_second: Vec::new() }
    }

    /// The figure with a goal.
    pub fn goal(mut self, goal: Goal) -> Figure {
        self.goal = Some(goal);
        self
    }

    /// The figure with its values of each second.
    pub fn over_time(mut self, per_second: Vec<f64>) -> Figure {
        self.per_second = per_second;
        self
    }

    /// Whether the goal was reached; none without a goal.
    pub fn reached(&self) -> Option<bool> {
        self.goal.map(|goal| match goal {
            Goal::AtLeast(x) => self.value >= x,
            Goal::AtMost(x) => self.value <= x,
        })
    }
}

/// Prints a figure as soon as it is known.
pub fn print_figure(figure: &Figure, output: Output) {
    if output == Output::Json {
        let goal = figure.goal.map(|g| match g {
            Goal::AtLeast(x) => json!({"atLeast": x}),
            Goal::AtMost(x) => json!({"atMost": x}),
        });
        print::json(&json!({
            "scenario": figure.scenario, "figure": figure.name, "value": figure.value, "unit": figure.unit,
            "goal": goal, "reached": figure.reached(), "perSecond": figure.per_second,
        }));
    }
}

/// A number for people, with as many digits as are useful.
pub fn number(x: f64) -> String {
    match x.abs() {
        n if n >= 100.0 => {
            let whole = format!("{x:.0}");
            let digits: Vec<char> = whole.chars().rev().collect();
            let grouped: Vec<String> = digits.chunks(3).map(|c| c.iter().collect()).collect();
            grouped.join(",").chars().rev().collect()
        }
        n if n >= 10.0 => format!("{x:.1}"),
        _ => format!("{x:.2}"),
    }
}

/// Prints all figures as a table.
pub fn table(figures: &[Figure]) {
    let mut last = "";
    for figure in figures {
        if figure.scenario != last {
            anstream::println!("\n{}", print::paint(print::BOLD, figure.scenario));
            last = figure.scenario;
        }
        let goal = match figure.goal {
            None => String::new(),
            Some(Goal::AtLeast(x)) => format!("goal ≥ {}", number(x)),
            Some(Goal::AtMost(x)) => format!("goal ≤ {}", number(x)),
        };
        let goal = match figure.reached() {
            None => goal,
            Some(true) => print::paint(print::GOOD, &goal),
            Some(false) => print::paint(print::WARN, &format!("{goal} (missed)")),
        };
        anstream::println!("  {:<44} {:>12} {:<10} {goal}", figure.name, number(figure.value), figure.unit);
    }
}
