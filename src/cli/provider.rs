//! `notihub provider`: accounts at vendors, and what they can be made of.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Output, print};
use crate::error::Result;
use crate::provider::adapter::{ADAPTERS, Adapter, OPTIONS};

#[derive(Debug, Args)]
pub struct ProviderCommand {
    #[command(subcommand)]
    deed: Deed,
}

#[derive(Debug, Subcommand)]
enum Deed {
    /// The adapters there are, and the options of each: what --provider NAME=ADAPTER,OPTION=VALUE,… takes.
    Adapters,
}

#[expect(clippy::unused_async, reason = "a command is awaited")]
pub async fn run(args: ProviderCommand, output: Output) -> Result<u8> {
    match args.deed {
        Deed::Adapters => adapters(output),
    }
    Ok(0)
}

fn adapters(output: Output) {
    if output == Output::Json {
        let named = |options: &[(&str, &str)]| -> Vec<Value> {
            options.iter().map(|(name, about)| json!({ "name": name, "about": about })).collect()
        };
        let of = |a: &Adapter| json!({ "name": a.name, "about": a.about, "options": named(a.options) });
        let all: Vec<Value> = ADAPTERS.iter().map(of).collect();
        return print::json(&json!({ "adapters": all, "options": named(OPTIONS) }));
    }
    let list = |options: &[(&str, &str)]| {
        for (name, about) in options {
            anstream::println!("  {name:<18} {about}");
        }
    };
    for adapter in ADAPTERS {
        anstream::println!("{}  {}", print::paint(print::BOLD, adapter.name), adapter.about);
        list(adapter.options);
        anstream::println!();
    }
    anstream::println!("{}", print::paint(print::BOLD, "every adapter"));
    list(OPTIONS);
    anstream::println!(
        "\nSecrets belong into notihub.toml, where an account is a table:\n  [provider.main]\n  adapter = \"solapi\"\n  \
         api-key = \"…\""
    );
}
