//! Two programs measured in turns on one server, so that what else the machine does weighs on both: pairs, the ratio
//! of each pair, the median of the ratios and how far they spread.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::super::{Output, print};
use super::child::{self, Printed};
use super::report::number;
use crate::error::{Error, Result};

/// What `bench compare` compares where no scenario is named: what every feature may slow down.
const DEFAULT: [&str; 4] = ["intake", "drain", "steady", "idle"];

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Compare {
    /// The other program: a notihub binary of another commit.
    #[arg(value_name = "OTHER_BINARY")]
    other: PathBuf,
    /// Scenarios to compare [default: intake, drain, steady, idle]
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
    /// Pairs of runs per scenario. Every second pair begins with the other program.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pairs: u32,
    /// Minutes after which a run is killed and the comparison ends.
    #[arg(long, default_value_t = 30, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    bound_minutes: u64,
}

/// One figure of one scenario, as each pair measured it.
#[derive(Debug, Clone, PartialEq)]
struct Compared {
    scenario: String,
    figure: String,
    unit: String,
    /// By pair.
    other: Vec<f64>,
    this: Vec<f64>,
}

impl Compared {
    /// This program's value divided by the other's, of each pair, sorted.
    fn ratios(&self) -> Vec<f64> {
        let pairs = self.this.iter().zip(&self.other);
        let mut ratios: Vec<f64> =
            pairs.filter(|(_, other)| **other != 0.0).map(|(this, other)| this / other).collect();
        ratios.sort_by(f64::total_cmp);
        ratios
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.get((sorted.len().max(1) - 1) / 2)?, sorted.get(sorted.len() / 2)?);
    Some(f64::midpoint(*low, *high))
}

/// A figure that a scenario prints again gets a number: `fsck findings`, `fsck findings (2)`.
fn numbered(mut figures: Vec<Printed>) -> Vec<Printed> {
    for n in (0..figures.len()).rev() {
        let (before, rest) = figures.split_at_mut(n);
        let same = before.iter().filter(|p| (&p.scenario, &p.figure) == (&rest[0].scenario, &rest[0].figure)).count();
        if same > 0 {
            rest[0].figure = format!("{} ({})", rest[0].figure, same + 1);
        }
    }
    figures
}

/// Adds a pair's figures. A figure that only one of the programs prints is left out.
fn add(compared: &mut Vec<Compared>, other: Vec<Printed>, this: Vec<Printed>) {
    let this = numbered(this);
    for one in numbered(other) {
        let Some(mine) = this.iter().find(|p| p.scenario == one.scenario && p.figure == one.figure) else { continue };
        let known = compared.iter().position(|c| c.scenario == one.scenario && c.figure == one.figure);
        let at = known.unwrap_or_else(|| {
            let (other, this) = (Vec::new(), Vec::new());
            compared.push(Compared { scenario: one.scenario, figure: one.figure, unit: one.unit, other, this });
            compared.len() - 1
        });
        compared[at].other.push(one.value);
        compared[at].this.push(mine.value);
    }
}

/// Runs the comparison on the server at `url` and prints its table, or a line of JSON for each figure.
///
/// # Errors
/// `Error::Setup` if a program cannot be started, fails, or exceeds the bound: there is nothing to compare then.
pub async fn run(compare: &Compare, url: &str, output: Output) -> Result<()> {
    let this = std::env::current_exe().map_err(|e| Error::Internal(format!("this program's path: {e}")))?;
    let flags = child::arguments_without("compare");
    let bound = Duration::from_secs(compare.bound_minutes * 60);
    let named: Vec<&str> = compare.scenarios.iter().map(String::as_str).collect();
    let mut busy = Vec::new();
    for scenario in if named.is_empty() { DEFAULT.as_slice() } else { &named } {
        let args: Vec<OsString> = flags.iter().cloned().chain([OsString::from(scenario)]).collect();
        let mut compared = Vec::new();
        for pair in 0..compare.pairs {
            let mut runs = [Vec::new(), Vec::new()];
            for turn in 0..2 {
                let which = usize::from((pair + turn) % 2 == 1);
                let program = if which == 0 { &compare.other } else { &this };
                busy.push(child::machine_busy().await);
                let name = if which == 0 { "other" } else { "this" };
                anstream::eprintln!("{scenario}: pair {} of {}, {name} program", pair + 1, compare.pairs);
                runs[which] = child::figures(program.as_os_str(), &args, url, bound).await?;
            }
            let [other, this] = runs;
            add(&mut compared, other, this);
        }
        if compared.is_empty() {
            return Err(Error::Setup(format!("{scenario}: the programs print no figure of the same name")));
        }
        compared.iter().for_each(|figure| show(figure, output));
    }
    let highest = busy.iter().copied().fold(0.0, f64::max);
    let middle = median(&busy).unwrap_or(0.0);
    match output {
        Output::Json => print::json(
            &json!({"machineBusyBeforeRuns": {"median": middle, "highest": highest, "unit": "% of one core"}}),
        ),
        Output::Text => anstream::println!(
            "\nOther processes used {middle:.0} % of one core before the runs (median), {highest:.0} % at most."
        ),
    }
    Ok(())
}

fn show(compared: &Compared, output: Output) {
    let Compared { scenario, figure, unit, other, this } = compared;
    let ratios = compared.ratios();
    let (ratio, low, high) = (median(&ratios), ratios.first(), ratios.last());
    match output {
        Output::Json => print::json(&json!({
            "scenario": scenario, "figure": figure, "unit": unit, "other": other, "this": this,
            "ratio": ratio, "lowestRatio": low, "highestRatio": high,
        })),
        Output::Text => {
            let value = |values: &[f64]| median(values).map_or_else(String::new, number);
            let spread = match (ratio, low, high) {
                (Some(ratio), Some(low), Some(high)) => format!("{ratio:.3} ({low:.3}–{high:.3})"),
                _ => "–".to_owned(),
            };
            let (other, this) = (value(other), value(this));
            anstream::println!("{scenario:<12} {figure:<42} {other:>11} → {this:>11} {unit:<9} {spread}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(figure: &str, value: f64) -> Printed {
        Printed { scenario: "drain".into(), figure: figure.into(), value, unit: "/s".into() }
    }

    #[test]
    fn pairs_compared_give_the_median_of_their_ratios_and_its_spread() {
        let mut compared = Vec::new();
        for (other, this) in [(100.0, 110.0), (200.0, 180.0), (50.0, 60.0)] {
            let only_here = printed("new", 1.0);
            let twice = |value| vec![printed("drained", value), printed("drained", 1.0)];
            add(&mut compared, twice(other), [twice(this), vec![only_here]].concat());
        }
        let figures: Vec<&str> = compared.iter().map(|c| c.figure.as_str()).collect();
        assert_eq!(figures, ["drained", "drained (2)"], "a figure of one program alone is left out");
        assert_eq!(compared[0].ratios(), [0.9, 1.1, 1.2]);
        assert_eq!(median(&compared[0].ratios()), Some(1.1));
        assert_eq!(median(&[1.0, 3.0]), Some(2.0));
        assert_eq!(median(&[]), None);
        let nothing = Compared { other: vec![0.0], this: vec![1.0], ..compared[0].clone() };
        assert_eq!(nothing.ratios(), [0.0; 0], "nothing is a multiple of zero");
    }
}
