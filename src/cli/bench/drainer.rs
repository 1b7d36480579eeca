//! A worker process with a provider that does nothing, for drains by several processes. It begins on a line on standard
//! input, and repeatedly prints on standard output how many deliveries it has settled.

use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use super::super::print;
use super::testbed::{self, Testbed};
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::worker::{self, Role};

/// The interval of the reports.
const SAY_EVERY: Duration = Duration::from_millis(10);

/// The worker process. It runs until it is killed.
///
/// # Errors
/// `Error::Usage` or `Error::Setup` if the hub cannot start.
pub async fn run(settings: Settings) -> Result<u8> {
    let url = super::super::process::database_url(&settings.database)?;
    let hub = testbed::noop_hub(&settings, &url, Vec::new()).await?.0;
    print::json(&0.into());
    // Blocking read: nothing else runs in this process yet.
    std::io::stdin().read_line(&mut String::new()).map_err(lost)?;
    worker::start(&hub, Role::Worker);
    // The parent kills the process.
    loop {
        tokio::time::sleep(SAY_EVERY).await;
        let settled = hub.metrics.settled.with_label_values(&["EMAIL", "SENT"]).get();
        print::json(&settled.into());
    }
}

/// Measures deliveries a second by `processes` worker processes, from their start until `target` deliveries are
/// settled.
///
/// # Errors
/// Any error of the testbed or the load. Figures that were added before stay.
pub async fn drain(bed: &Testbed, processes: usize, target: u64) -> Result<f64> {
    let mut drainers = Vec::new();
    for _ in 0..processes {
        drainers.push(Drainer::start(bed).await?);
    }
    let began = Instant::now();
    for drainer in &mut drainers {
        drainer.begin().await?;
    }
    while drainers.iter().map(|d| d.settled).sum::<u64>() < target {
        for drainer in &mut drainers {
            drainer.read_line().await?;
        }
        if began.elapsed() > Duration::from_secs(600) {
            return Err(Error::Internal("the processes do not come to an end".into()));
        }
    }
    Ok(target as f64 / began.elapsed().as_secs_f64())
}

struct Drainer {
    child: Child,
    says: BufReader<ChildStdout>,
    settled: u64,
}

fn lost(e: impl std::fmt::Display) -> Error {
    Error::Internal(format!("a drainer was lost: {e}"))
}

impl Drainer {
    async fn start(bed: &Testbed) -> Result<Drainer> {
        let program = std::env::current_exe().map_err(lost)?;
        let mut child = Command::new(program)
            .args(["bench", "--log", "error", "--database-url", &bed.database_url, "drainer"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(lost)?;
        let says = child.stdout.take().ok_or_else(|| lost("no output"))?;
        let mut drainer = Drainer { child, says: BufReader::new(says), settled: 0 };
        drainer.read_line().await?;
        Ok(drainer)
    }

    async fn begin(&mut self) -> Result<()> {
        let stdin = self.child.stdin.as_mut().ok_or_else(|| lost("no input"))?;
        stdin.write_all(b"begin\n").await.map_err(lost)
    }

    async fn read_line(&mut self) -> Result<()> {
        let mut line = String::new();
        self.says.read_line(&mut line).await.map_err(lost)?;
        self.settled = line.trim().parse().map_err(lost)?;
        Ok(())
    }
}
