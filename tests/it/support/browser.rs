//! Chromium, driven by `tests/fixtures/browser.mjs`.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::laws::root;
use crate::support::programs::{is_there, node_library};
use crate::support::wait::wait_for;

/// A browser. Its tabs have numbers from 0.
pub struct Browser {
    _child: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// Of the pages that `open` shows.
    pub origin: String,
}

impl Browser {
    /// None on a machine without Chromium, or without Node and npm.
    pub async fn start() -> Option<Browser> {
        let library = node_library().filter(|_| is_there("chromium"))?;
        let script = root().join("tests/fixtures/browser.mjs");
        let mut child = Command::new("node")
            .arg(script)
            .args([library.as_str(), "/usr/bin/chromium"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("node starts");
        let commands = child.stdin.take().expect("a pipe");
        let mut answers = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let first = answers.next_line().await.expect("a line").expect("the browser starts");
        let first: Value = serde_json::from_str(&first).expect("JSON");
        let origin = first["origin"].as_str().expect("an origin").to_owned();
        Some(Browser { _child: child, commands, answers, origin })
    }

    /// The answer to a command of the script.
    pub async fn ask(&mut self, command: Value) -> Value {
        self.commands.write_all(format!("{command}\n").as_bytes()).await.expect("the browser runs");
        let line = self.answers.next_line().await.expect("a line").expect("the browser runs");
        let mut answer: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(answer["error"], Value::Null, "{command}");
        answer["value"].take()
    }

    /// Opens a tab with a page of any origin.
    pub async fn visit(&mut self, url: &str) {
        self.ask(json!({"visit": url})).await;
    }

    /// Runs the body of an asynchronous function in a tab.
    pub async fn run(&mut self, tab: usize, body: &str) -> Value {
        self.ask(json!({"tab": tab, "run": body})).await
    }

    /// Types a text where the focus of a tab is, key by key.
    pub async fn type_text(&mut self, tab: usize, text: &str) {
        self.ask(json!({"tab": tab, "type": text})).await;
    }

    /// Presses a key, or several together: `Shift+Enter`.
    pub async fn press(&mut self, tab: usize, key: &str) {
        self.ask(json!({"tab": tab, "press": key})).await;
    }

    /// Waits until the body of an asynchronous function returns this value in a tab.
    pub async fn shows(&mut self, tab: usize, body: &str, wanted: Value) {
        let browser = tokio::sync::Mutex::new(self);
        let what = format!("tab {tab}: {body} is {wanted}");
        wait_for(&what, async || (browser.lock().await.run(tab, body).await == wanted).then_some(())).await;
    }
}
