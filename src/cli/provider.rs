//! `notihub provider`: the state of providers, pausing and resuming them, and the list of adapters.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::{Client, Target};
use super::{Output, print};
use crate::error::Result;
use crate::provider::adapter::{Adapter, COMMON_OPTIONS};
use crate::provider::registry::ADAPTERS;

#[derive(Debug, Args)]
pub struct ProviderCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Lists all providers with their breakers, limits and pauses.
    List {
        #[command(flatten)]
        target: Target,
    },
    /// Pauses a provider: it is not called until it is resumed. Its deliveries wait without using attempts.
    Pause(ProviderArgs),
    /// Resumes a provider. One whose breaker is open is probed at once.
    Resume(ProviderArgs),
    /// Lists the adapters and their options, as --provider NAME=ADAPTER,OPTION=VALUE,… takes them.
    Adapters,
}

#[derive(Debug, Args)]
struct ProviderArgs {
    /// The provider's name in the settings; `notihub provider list` shows all.
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    target: Target,
}

/// `notihub provider`: calls a running hub as an operator, or lists the adapters. Returns the exit code.
///
/// # Errors
/// `Error::Answered` with the hub's problem if the hub refuses the request; `Error::Setup` if no hub answers.
pub async fn run(command: ProviderCommand, output: Output) -> Result<u8> {
    let answer = match &command.action {
        Action::List { target } => Client::operating(target)?.get("/v1/providers").await?,
        Action::Pause(one) => post_action(one, "pause").await?,
        Action::Resume(one) => post_action(one, "resume").await?,
        Action::Adapters => {
            print_adapters(output);
            return Ok(0);
        }
    };
    if output == Output::Json {
        print::json(&answer);
        return Ok(0);
    }
    match answer["items"].as_array() {
        Some(items) => items.iter().for_each(print_provider),
        None => print_provider(&answer),
    }
    Ok(0)
}

async fn post_action(one: &ProviderArgs, action: &str) -> Result<Value> {
    let name: String = form_urlencoded::byte_serialize(one.name.as_bytes()).collect();
    Client::operating(&one.target)?.post(&format!("/v1/providers/{name}/{action}"), &json!({})).await
}

/// Prints a provider as one line.
fn print_provider(provider: &Value) {
    let text = |value: &Value| print::printable(value.as_str().unwrap_or_default());
    let channels: Vec<&str> = provider["channels"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let status = text(&provider["status"]);
    let style = match status.as_str() {
        "UP" => print::GOOD,
        "OPEN" => print::BAD,
        _ => print::WARN,
    };
    let limit = &provider["limit"];
    let used = limit.is_object().then(|| {
        let (used, count, seconds) = (&limit["used"], &limit["count"], &limit["perSeconds"]);
        format!(", {used} used of {count} in {seconds} s")
    });
    let breaker = &provider["breaker"];
    let trouble =
        breaker.is_object().then(|| format!(", {} since {}", text(&breaker["reason"]), text(&breaker["since"])));
    let paused = provider["pausedBy"].as_str().map(|by| format!(", by {}", print::printable(by)));
    let more = [used, trouble, paused].into_iter().flatten().collect::<String>();
    let (name, channels) = (text(&provider["name"]), print::printable(&channels.join(" ")));
    anstream::println!("{name}  {}  {channels}{}", print::paint(style, &status), print::paint(print::DIM, &more));
}

fn print_adapters(output: Output) {
    if output == Output::Json {
        let named = |options: &[(&str, &str)]| -> Vec<Value> {
            options.iter().map(|(name, about)| json!({ "name": name, "about": about })).collect()
        };
        let of = |a: &Adapter| json!({ "name": a.name, "about": a.description, "options": named(a.options) });
        let all: Vec<Value> = ADAPTERS.iter().map(of).collect();
        return print::json(&json!({ "adapters": all, "options": named(COMMON_OPTIONS) }));
    }
    let list = |options: &[(&str, &str)]| {
        for (name, about) in options {
            anstream::println!("  {name:<18} {about}");
        }
    };
    for adapter in ADAPTERS {
        anstream::println!("{}  {}", print::paint(print::BOLD, adapter.name), adapter.description);
        list(adapter.options);
        anstream::println!();
    }
    anstream::println!("{}", print::paint(print::BOLD, "every adapter"));
    list(COMMON_OPTIONS);
    anstream::println!(
        "\nPut secrets into notihub.toml, where an account is a table:\n  [provider.main]\n  adapter = \"solapi\"\n  \
         api-key = \"…\""
    );
}
