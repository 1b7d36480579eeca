//! `notihub fsck`: every invariant is a query that must find nothing.

use clap::Args;
use serde_json::json;

use super::{Output, print, process};
use crate::clock::Clock;
use crate::config::{Database, Log};
use crate::error::Result;
use crate::flow;
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

pub async fn run(args: Fsck, output: Output) -> Result<u8> {
    telemetry::start_logs(&args.log)?;
    let store = process::open_store(&args.database, &process::database_url(&args.database)?)?;
    let progress = |name: &str, law: &str, found: usize| {
        if output == Output::Text {
            let mark = if found == 0 { print::paint(print::GOOD, "ok  ") } else { print::paint(print::BAD, "FAIL") };
            anstream::println!("{mark} {name:<10} {law}");
        }
    };
    let findings = flow::fsck::fsck(&store, Clock::system().now(), progress).await?;
    match output {
        Output::Json => {
            let rows: Vec<_> = findings
                .iter()
                .map(|f| json!({"invariant": f.invariant, "deliveryId": format!("{}-{}", f.message_id, f.no), "found": f.found}))
                .collect();
            print::json(&json!({"clean": rows.is_empty(), "findings": rows}));
        }
        Output::Text => {
            for name in findings.iter().map(|f| f.invariant).collect::<std::collections::BTreeSet<_>>() {
                let of_this = findings.iter().filter(|f| f.invariant == name);
                for finding in of_this.clone().take(args.most) {
                    anstream::println!("{name}: {}-{} {}", finding.message_id, finding.no, finding.found);
                }
                let rest = of_this.count().saturating_sub(args.most);
                if rest > 0 {
                    anstream::println!("{name}: and {rest} more");
                }
            }
            if findings.is_empty() {
                anstream::println!("clean");
            }
        }
    }
    Ok(u8::from(!findings.is_empty()))
}
