//! Scenarios in processes of their own: each starts with the memory of a fresh program, and one that does not end is
//! killed after its bound while the others go on.

use std::ffi::{OsStr, OsString};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use super::super::Output;
use crate::error::{Error, Result};

/// A figure as `--output json` prints it.
#[derive(Debug, Clone, Deserialize)]
pub struct Printed {
    pub scenario: String,
    pub figure: String,
    pub value: f64,
    pub unit: String,
}

/// Flags of `bench` that are not for a child: how to print, where the server's files are, and those of `all` and
/// `compare`. Each takes a value.
const OWN: [&str; 4] = ["--output", "--data-dir", "--bound-minutes", "--pairs"];

/// This process's arguments without its scenario (`scenario` and what follows it that is no flag) and without its own
/// flags: for a child that runs another scenario on the same server.
pub fn arguments_without(scenario: &str) -> Vec<OsString> {
    without(std::env::args_os().skip(1), scenario)
}

fn without(mut args: impl Iterator<Item = OsString>, scenario: &str) -> Vec<OsString> {
    let (mut kept, mut behind) = (Vec::new(), false);
    while let Some(arg) = args.next() {
        let text = arg.to_string_lossy().into_owned();
        let own = |flag: &str| OWN.contains(&flag);
        match text.split_once('=') {
            _ if text == scenario => behind = true,
            Some((flag, _)) if own(flag) => (),
            None if own(&text) => drop(args.next()),
            // Flags that may stand behind the scenario take a value each.
            None if behind && text.starts_with("--") => kept.extend([Some(arg), args.next()].into_iter().flatten()),
            _ if behind && !text.starts_with("--") => (),
            _ => kept.push(arg),
        }
    }
    kept
}

fn command(program: &OsStr, args: &[OsString], url: &str, output: Output) -> Command {
    let mut command = Command::new(program);
    let form = if output == Output::Json { "json" } else { "text" };
    command.arg("--output").arg(form).args(args);
    command.env("NOTIHUB_DATABASE_URL", url).stdin(Stdio::null()).kill_on_drop(true);
    command
}

fn cannot_start(program: &OsStr, error: &std::io::Error) -> Error {
    Error::Setup(format!("{} cannot be started: {error}", program.to_string_lossy()))
}

/// Runs a program whose output goes where this one's goes. Returns whether it ended well within `bound`; it is killed
/// at its bound.
///
/// # Errors
/// `Error::Setup` if the program cannot be started.
pub async fn run(program: &OsStr, args: &[OsString], url: &str, output: Output, bound: Duration) -> Result<bool> {
    let mut child = command(program, args, url, output).spawn().map_err(|e| cannot_start(program, &e))?;
    match tokio::time::timeout(bound, child.wait()).await {
        Ok(status) => Ok(status.is_ok_and(|status| status.success())),
        Err(_) => Ok(false),
    }
}

/// Runs a program and reads the figures it prints. Its progress goes to this process's standard error.
///
/// # Errors
/// `Error::Setup` if the program cannot be started, fails, or does not end within `bound`; it is killed at its bound.
pub async fn figures(program: &OsStr, args: &[OsString], url: &str, bound: Duration) -> Result<Vec<Printed>> {
    let name = program.to_string_lossy().into_owned();
    let mut child = command(program, args, url, Output::Json)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| cannot_start(program, &e))?;
    let mut lines = BufReader::new(child.stdout.take().ok_or_else(|| Error::Internal("no output".into()))?).lines();
    let read = async {
        let mut figures = Vec::new();
        while let Ok(Some(line)) = lines.next_line().await {
            // A line that is no figure (`faults` prints its total) is not compared.
            figures.extend(serde_json::from_str::<Printed>(&line));
        }
        (figures, child.wait().await)
    };
    let (figures, status) = tokio::time::timeout(bound, read).await.map_err(|_| {
        Error::Setup(format!("{name} did not end within {} minutes: see --bound-minutes", bound.as_secs() / 60))
    })?;
    match status {
        Ok(status) if status.success() => Ok(figures),
        Ok(status) => Err(Error::Setup(format!("{name} failed ({status}); its last lines say why"))),
        Err(error) => Err(Error::Setup(format!("{name} was lost: {error}"))),
    }
}

/// CPU that other processes used in one second in which this one waits, in % of one core; 0 where the system does not
/// say.
pub async fn machine_busy() -> f64 {
    let before = busy_ticks();
    tokio::time::sleep(Duration::from_secs(1)).await;
    // A tick is a hundredth of a second.
    (busy_ticks() - before).max(0.0)
}

fn busy_ticks() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<f64> =
        text.lines().next().unwrap_or_default().split_whitespace().skip(1).flat_map(str::parse).collect();
    // user nice system idle iowait irq softirq steal
    fields.iter().take(8).enumerate().filter(|(n, _)| ![3, 4].contains(n)).map(|(_, ticks)| ticks).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_of_a_child_are_those_of_its_parent_without_scenario_and_own_flags() {
        let line = "bench --seconds 5 --output json --data-dir=/x --data-dir /y --rows=3 \
                    compare OTHER drain --pairs 5 --deliveries 7 --flood=1 intake";
        let kept = without(line.split_whitespace().map(OsString::from), "compare");
        assert_eq!(kept, ["bench", "--seconds", "5", "--rows=3", "--deliveries", "7", "--flood=1"]);
    }
}
