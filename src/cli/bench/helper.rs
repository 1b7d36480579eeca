//! A process of the load generator that takes commands on standard input, one a line, and answers each with a line of
//! JSON on standard output. It ends with its standard input.

use std::process::Stdio;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;

use super::super::print;
use crate::error::{Error, Result};

/// The lines of standard input. A thread of its own waits for them, while the process does its work.
pub fn commands() -> mpsc::Receiver<String> {
    let (sender, commands) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(std::io::Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    commands
}

/// Answers a command.
///
/// # Errors
/// `Error::Internal` if the answer does not serialise.
pub fn answer(answer: &impl Serialize) -> Result<()> {
    print::json(&serde_json::to_value(answer).map_err(|e| Error::Internal(e.to_string()))?);
    Ok(())
}

/// The process, as its parent sees it. It is killed when this is dropped.
pub struct Helper {
    name: &'static str,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Helper {
    /// Starts `notihub bench NAME` with these further arguments, and `token` in `NOTIHUB_TOKEN`.
    ///
    /// # Errors
    /// `Error::Setup` if the process cannot start.
    pub fn start(name: &'static str, args: &[&str], token: &str) -> Result<Helper> {
        let program = std::env::current_exe().map_err(|e| Error::Internal(format!("this program's path: {e}")))?;
        let mut child = Command::new(program)
            .args(["bench", name])
            .args(args)
            .env("NOTIHUB_TOKEN", token)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| Error::Setup(format!("bench {name} cannot start: {e}")))?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (commands, answers) = pipes.ok_or_else(|| Error::Internal(format!("bench {name} has no pipes")))?;
        Ok(Helper { name, commands, answers: BufReader::new(answers).lines(), _child: child })
    }

    /// Gives a command and waits for its answer.
    ///
    /// # Errors
    /// `Error::Internal` if the process ended or answered nonsense.
    pub async fn ask<A: DeserializeOwned>(&mut self, command: &str) -> Result<A> {
        let name = self.name;
        let lost = |e: std::io::Error| Error::Internal(format!("bench {name} was lost: {e}"));
        self.commands.write_all(format!("{command}\n").as_bytes()).await.map_err(lost)?;
        let line = self.answers.next_line().await.map_err(lost)?;
        let line = line.ok_or_else(|| Error::Internal(format!("bench {name} ended")))?;
        serde_json::from_str(&line).map_err(|e| Error::Internal(format!("bench {name} answered {line}: {e}")))
    }
}
