//! `notihub fsck`: every invariant is a query that must find nothing.

use std::io::IsTerminal as _;

use clap::Args;
use serde_json::json;

use super::{Output, print, process};
use crate::clock::Clock;
use crate::config::{Database, Log};
use crate::error::Result;
use crate::flow;
use crate::flow::fsck::Progress;
use crate::store::fsck::Finding;
use crate::telemetry;

#[derive(Debug, Args)]
pub struct Fsck {
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    log: Log,
    /// Findings shown of each invariant.
    #[arg(long, default_value_t = 10, value_name = "N")]
    most: usize,
}

/// Runs `notihub fsck`. Returns the exit code: 0 when nothing was found, 1 otherwise.
///
/// # Errors
/// `Error::Setup` for settings, `Error::Unavailable` if the database cannot be reached.
pub async fn run(args: Fsck, output: Output) -> Result<u8> {
    telemetry::start_logs(&args.log)?;
    let store = process::reading_store(&args.database, &process::database_url(&args.database)?).await?;
    let mut checked: Vec<(&str, &str, u64)> = Vec::new();
    let on_terminal = output == Output::Text && std::io::stderr().is_terminal();
    let progress = |progress| match progress {
        Progress::Checking { invariant, slice, of } if on_terminal => {
            anstream::eprint!("\r\x1b[K{invariant}: slice {slice} of {of}");
        }
        Progress::Checking { .. } => (),
        Progress::Checked { invariant, law, rows } => {
            if on_terminal {
                anstream::eprint!("\r\x1b[K");
            }
            if output == Output::Text {
                let mark = if rows == 0 { print::paint(print::GOOD, "ok  ") } else { print::paint(print::BAD, "FAIL") };
                anstream::println!("{mark} {invariant:<10} {law}");
            }
            checked.push((invariant, law, rows));
        }
    };
    let findings = flow::fsck::fsck(&store, Clock::system().now(), progress).await?;
    let clean = checked.iter().all(|(_, _, rows)| *rows == 0);
    match output {
        Output::Json => {
            let row = |f: &Finding| {
                let delivery_id = format!("{}-{}", f.message_id, f.no);
                json!({"invariant": f.invariant, "deliveryId": delivery_id, "found": f.found})
            };
            let findings: Vec<_> = findings.iter().map(row).collect();
            let checked: Vec<_> = checked
                .iter()
                .map(|(invariant, law, rows)| json!({"invariant": invariant, "law": law, "rows": rows}))
                .collect();
            print::json(&json!({"clean": clean, "invariants": checked, "findings": findings}));
        }
        Output::Text => {
            for (name, _, rows) in checked.iter().filter(|(_, _, rows)| *rows > 0) {
                let shown = findings.iter().filter(|f| f.invariant == *name).take(args.most);
                let mut rest = *rows;
                for finding in shown {
                    rest -= 1;
                    anstream::println!("{name}: {}-{} {}", finding.message_id, finding.no, finding.found);
                }
                if rest > 0 {
                    anstream::println!("{name}: and {rest} more");
                }
            }
            if clean {
                anstream::println!("clean");
            }
        }
    }
    Ok(u8::from(!clean))
}
