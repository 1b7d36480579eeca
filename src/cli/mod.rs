//! The program's commands, one file each. `--help` is their manual.

pub mod bench;
pub mod client;
mod demo;
mod docs;
mod doctor;
mod endpoints;
mod fsck;
mod health;
mod inbox;
mod key;
mod ledger;
mod migrate;
mod partner;
pub mod pg;
mod print;
mod process;
mod provider;
pub mod redrive;
mod send;
mod simulate;
mod stand_ins;
mod status;
mod tail;
mod up;
mod user;
mod webhook;
mod webhook_listen;
mod webhook_verify;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config;
use crate::error::{Error, Result};

pub use print::Output;

/// A self-hosted notification hub on PostgreSQL alone.
///
/// Domain services POST a message; it is stored with one delivery per recipient and channel in one transaction; workers
/// claim deliveries, call the providers, and record the outcomes. Every message ends in one explainable state.
#[derive(Debug, Parser)]
#[command(name = "notihub", version, max_term_width = 110)]
#[command(
    after_help = "Every setting is a flag, an environment variable NOTIHUB_… and a line in notihub.toml; a flag \
beats the environment, the environment beats the file.\n\nFirst steps:\n  notihub up --demo           the whole hub \
on this \
machine, with three example messages\n  notihub send --email a@example.com --subject Hi --body Hello --wait\n  notihub \
doctor              checks settings, database and providers\n  notihub docs                the documentation"
)]
struct Cli {
    /// The settings file [default: notihub.toml in the current folder, if it exists].
    #[arg(long, global = true, display_order = 990, env = "NOTIHUB_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The form of the output. With json, an error is a line of JSON on standard error, with the fields of the API's
    /// problems.
    #[arg(long, global = true, display_order = 991, default_value = "text", value_name = "FORM")]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the whole hub: a private PostgreSQL, the API, workers, and simulators for missing providers.
    ///
    /// Without --database-url it starts a private PostgreSQL from the programs installed on this machine, and stops it
    /// at the end. Without --smtp-host e-mail goes to a simulator, without --slack-destination Slack does: real servers
    /// on loopback that keep what they receive.
    Up(Box<up::Up>),
    /// Runs the API, which accepts messages and answers queries.
    ///
    /// Run as many as you like, on any host, against one database.
    Serve(Box<work::Serve>),
    /// Runs a worker, which claims deliveries and calls the providers.
    ///
    /// Run as many as you like, on any host, against one database. SIGTERM stops claiming at once, finishes the calls
    /// in flight, gives back deliveries that were not begun, and exits 0 within --shutdown-grace-ms.
    Work(Box<work::Work>),
    /// Updates the database's schema and rights.
    Migrate(migrate::Migrate),
    /// Runs a command with a temporary PostgreSQL, which is deleted afterwards.
    ///
    /// The command finds it in the variables DATABASE_URL and NOTIHUB_MIGRATE_DATABASE_URL (superuser) and
    /// NOTIHUB_DATABASE_URL (the hub's role). The exit code is the command's.
    #[command(after_help = "Example:\n  notihub pg -- psql -c 'select version()'")]
    Pg {
        #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
        command: Vec<std::ffi::OsString>,
    },
    /// Sends a message through a running hub.
    Send(send::Send),
    /// Shows a message with its timeline, or one delivery with its calls.
    Status(status::Status),
    /// Prints messages of a running hub as their status changes.
    Tail(tail::Tail),
    /// Sends dead letters again: one, or many at a limited rate.
    Redrive(Box<redrive::Redrive>),
    /// Manages partners, their limits and keys, at the database.
    Partner(partner::PartnerCommand),
    /// Shows, blocks, signs out and erases a partner's own people, at the database.
    User(user::UserCommand),
    /// Shows the inbox of a user, at the database.
    Inbox(inbox::Inbox),
    /// Manages keys of operators and admins, signing keys and encryption at rest, at the database.
    Key(key::KeyCommand),
    /// Checks settings, database, clock, partitions and providers, and prints remedies.
    ///
    /// It checks the settings and providers given to this command, not those of a running hub: run it with the hub's
    /// environment and notihub.toml.
    Doctor(Box<doctor::Doctor>),
    /// Checks whether a running hub is ready.
    Health(health::Health),
    /// Checks the invariants of all messages, deliveries and attempts in the database.
    Fsck(fsck::Fsck),
    /// Shows for each partner and day how many messages were accepted and how they ended, to the message.
    Ledger(ledger::Ledger),
    /// Measures the performance of the hub on this machine, with durability on.
    Bench(Box<bench::Bench>),
    /// Runs only the simulators of providers, for development.
    Simulate(simulate::Simulate),
    /// Shows, pauses and resumes providers, and lists the adapters.
    Provider(provider::ProviderCommand),
    /// Manages endpoints, which receive a partner's events by webhook.
    Webhook(webhook::WebhookCommand),
    /// Prints the documentation.
    Docs(docs::Docs),
}

/// Runs the program. Exit codes: 0 done, 1 failed, 2 wrong usage.
pub fn main() -> ExitCode {
    let (cli, origins) = match parse(std::env::args_os().collect()) {
        Ok(parsed) => parsed,
        Err(e) => {
            print::error(&e, Output::Text);
            return exit_code(&e);
        }
    };
    origins.unknown.iter().for_each(|text| print::warning(text, cli.output));
    raise_open_files();
    let Ok(runtime) = tokio::runtime::Builder::new_multi_thread().enable_all().build() else {
        let why = "the runtime cannot start: no threads or file descriptors left";
        print::error(&Error::Setup(why.into()), cli.output);
        return ExitCode::from(1);
    };
    // Fails only if a provider is installed already, which no other code does.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let _steps = crate::shutdown::steps_to_die_at();
    let output = cli.output;
    match runtime.block_on(run(cli)) {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            let notes =
                if matches!(e, Error::Usage(_) | Error::Setup(_)) { origins.notes(&e.to_string()) } else { Vec::new() };
            print::error(&e, output);
            if output == Output::Text {
                notes.iter().for_each(|note| anstream::eprintln!("{note}"));
            }
            exit_code(&e)
        }
    }
}

/// Raises the limit of open files to the highest that the system grants: each connection is one. If it cannot be
/// raised, the program runs within the limit that there is.
fn raise_open_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Nothing is logged: where logs go is not known yet.
        let _raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

fn exit_code(e: &Error) -> ExitCode {
    ExitCode::from(if matches!(e, Error::Usage(_)) { 2 } else { 1 })
}

/// Parses the arguments. The file's values become the defaults of the flags with their names, so that a flag overrides
/// the environment and the environment overrides the file. An empty variable counts as unset, because compose files
/// pass unset variables as empty texts.
fn parse(args: Vec<std::ffi::OsString>) -> Result<(Cli, SettingOrigins)> {
    let apart = args.iter().position(|a| a == "--config").and_then(|n| args.get(n + 1)).map(PathBuf::from);
    let joined = args.iter().find_map(|a| a.to_str()?.strip_prefix("--config=").map(PathBuf::from));
    let file = config::read_file(apart.or(joined).as_deref())?;
    let mut origins = SettingOrigins {
        given: args.iter().filter_map(|a| Some(a.to_str()?.to_owned())).collect(),
        ..SettingOrigins::default()
    };
    let mut command = Cli::command();
    origins.find_unknown(&command);
    for (name, config::FileSetting { values, at, accounts }) in file {
        let mut known = false;
        command = command.mut_subcommands(|c| set_default(c, &name, &values, &mut known, false));
        if !known {
            let all = settings(&command);
            let near = nearest(&name, all.iter().map(String::as_str));
            let near = near.map(|near| format!(", perhaps '{near}'")).unwrap_or_default();
            let text = format!("{at}: there is no setting '{name}'{near}; `notihub up --help` lists them");
            return Err(Error::Usage(text));
        }
        origins.file.insert(name, at);
        origins.accounts.extend(accounts);
    }
    let command = ignore_empty_variables(command);
    origins.read_environment(&command);
    let matches = command.try_get_matches_from(args).unwrap_or_else(|e| {
        let e = without_secret(e);
        if e.use_stderr() {
            origins.notes(&e.to_string()).iter().for_each(|note| anstream::eprintln!("{note}"));
            origins.unknown.iter().for_each(|text| print::warning(text, Output::Text));
        }
        e.exit()
    });
    Ok((Cli::from_arg_matches(&matches).map_err(|e| Error::Usage(e.to_string()))?, origins))
}

/// Sets the defaults of the setting `name` in a command and its subcommands. In subcommands a flag without a variable
/// is not a setting: the URL of an endpoint is not the hub's.
fn set_default(command: clap::Command, name: &str, values: &[String], known: &mut bool, below: bool) -> clap::Command {
    command
        .mut_args(|arg| {
            let mine = arg.get_long() == Some(name) && (!below || arg.get_env().is_some());
            *known |= mine;
            if mine { arg.default_values(values.to_vec()) } else { arg }
        })
        .mut_subcommands(|c| set_default(c, name, values, known, true))
}

fn ignore_empty_variables(command: clap::Command) -> clap::Command {
    command
        .mut_args(|arg| {
            let empty = arg.get_env().and_then(|name| name.to_str()).is_some_and(|name| !config::is_set(name));
            if empty { arg.env(clap::builder::Resettable::Reset) } else { arg }
        })
        .mut_subcommands(ignore_empty_variables)
}

/// The names of all settings with a variable, in a command and its subcommands.
fn settings(command: &clap::Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter(|arg| arg.get_env().is_some()).filter_map(clap::Arg::get_long);
    own.map(str::to_owned).chain(command.get_subcommands().flat_map(settings)).collect()
}

/// The variables of all settings, in a command and its subcommands.
fn variables(command: &clap::Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter_map(|arg| Some(arg.get_env()?.to_str()?.to_owned()));
    own.chain(command.get_subcommands().flat_map(variables)).collect()
}

/// The known name that is most similar to `name`, if one is similar enough.
fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let near = 1.max(name.len() / 4);
    known.map(|known| (distance(name, known), known)).filter(|(n, _)| *n <= near).min().map(|(_, known)| known)
}

/// The Levenshtein distance of two names.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (n, a) in one.bytes().enumerate() {
        let mut before = std::mem::replace(&mut row[0], n + 1);
        for (m, b) in other.bytes().enumerate() {
            let changes = (before + usize::from(a != b)).min(row[m] + 1).min(row[m + 1] + 1);
            before = std::mem::replace(&mut row[m + 1], changes);
        }
    }
    row[other.len()]
}

/// The origins of settings that are not flags of this call, for error messages.
#[derive(Debug, Default)]
struct SettingOrigins {
    /// The arguments of the call.
    given: Vec<String>,
    /// Setting → variable.
    environment: BTreeMap<String, String>,
    /// Setting → file and line.
    file: BTreeMap<String, String>,
    /// Account at a provider → file and line.
    accounts: BTreeMap<String, String>,
    /// Warnings about variables that look like a setting but are none.
    unknown: Vec<String>,
}

impl SettingOrigins {
    fn find_unknown(&mut self, command: &clap::Command) {
        const PREFIX: &str = "NOTIHUB_";
        let known = variables(command);
        for variable in config::variables().into_iter().filter(|variable| !known.contains(variable)) {
            let names = known.iter().filter_map(|known| known.strip_prefix(PREFIX));
            let near = variable.strip_prefix(PREFIX).and_then(|name| nearest(name, names));
            let hint = match near {
                Some(near) => format!("perhaps {PREFIX}{near} is meant"),
                None => "`notihub up --help` lists them".to_owned(),
            };
            self.unknown.push(format!("the variable {variable} belongs to no setting and has no effect; {hint}"));
        }
    }

    fn read_environment(&mut self, command: &clap::Command) {
        for arg in command.get_arguments() {
            let variable = arg.get_env().and_then(|name| name.to_str()).filter(|name| config::is_set(name));
            if let (Some(long), Some(variable)) = (arg.get_long(), variable) {
                self.environment.insert(long.to_owned(), variable.to_owned());
            }
        }
        command.get_subcommands().for_each(|c| self.read_environment(c));
    }

    /// A line for each setting that an error names and the call does not give: the origin of its value.
    fn notes(&self, error: &str) -> Vec<String> {
        let in_name = |c: char| c.is_ascii_lowercase() || c == '-';
        let words: BTreeSet<&str> =
            error.split(|c| !in_name(c)).map(|word| word.trim_matches('-')).filter(|word| !word.is_empty()).collect();
        let named: BTreeSet<&String> = self.environment.keys().chain(self.file.keys()).collect();
        let given = |name: &str| {
            self.given
                .iter()
                .any(|arg| arg.strip_prefix("--").is_some_and(|a| a == name || a.starts_with(&format!("{name}="))))
        };
        let note = |name: &&String| match (self.environment.get(*name), self.file.get(*name)) {
            _ if given(name) || !words.contains(name.as_str()) => None,
            (Some(variable), _) => Some(format!("  --{name} has its value from the variable {variable}")),
            (None, Some(at)) => Some(format!("  --{name} has its value from {at}")),
            (None, None) => None,
        };
        let account = self.accounts.iter().find(|(name, _)| error.contains(&format!("provider '{name}'")));
        match account.filter(|_| !given("provider") && !self.environment.contains_key("provider")) {
            Some((name, at)) => vec![format!("  provider '{name}' has its options from {at}")],
            None => named.iter().filter_map(note).collect(),
        }
    }
}

/// Hides the value of a secret in a usage error, which quotes the refused value.
fn without_secret(mut e: clap::Error) -> clap::Error {
    use clap::error::{ContextKind, ContextValue};
    if e.kind() == clap::error::ErrorKind::MissingRequiredArgument {
        // The usage line would list arguments that the environment gives. The error names the missing ones anyway.
        e.remove(ContextKind::Usage);
    }
    const SECRET: [&str; 8] = [
        "--provider",
        "--slack-destination",
        "--database-url",
        "--migrate-database-url",
        "--smtp-password",
        "--master-key",
        "--header",
        "--secret",
    ];
    let secret = |arg: &ContextValue| SECRET.iter().any(|s| arg.to_string().contains(s));
    if e.get(ContextKind::InvalidArg).is_some_and(secret) {
        e.insert(ContextKind::InvalidValue, ContextValue::String("(not shown)".into()));
    }
    e
}

async fn run(cli: Cli) -> Result<u8> {
    let output = cli.output;
    match cli.command {
        Command::Up(args) => up::run(*args, output).await,
        Command::Serve(args) => work::serve(*args).await,
        Command::Work(args) => work::work(*args, output).await,
        Command::Migrate(args) => migrate::run(args, output).await,
        Command::Pg { command } => {
            let code = pg::run_throw_away(command).await?;
            Ok(u8::try_from(code).unwrap_or(1))
        }
        Command::Send(args) => send::run(args, output).await,
        Command::Status(args) => status::run(&args, output).await,
        Command::Tail(args) => tail::run(args, output).await,
        Command::Redrive(args) => redrive::run(*args, output).await,
        Command::Partner(args) => partner::run(args, output).await,
        Command::User(args) => user::run(args, output).await,
        Command::Inbox(args) => inbox::run(args, output).await,
        Command::Key(args) => key::run(args, output).await,
        Command::Doctor(args) => doctor::run(*args, output).await,
        Command::Health(args) => health::run(args, output).await,
        Command::Fsck(args) => fsck::run(args, output).await,
        Command::Ledger(args) => ledger::run(args, output).await,
        Command::Bench(args) => bench::run(*args, output).await,
        Command::Simulate(args) => simulate::run(args, output).await,
        Command::Provider(args) => provider::run(args, output).await,
        Command::Webhook(args) => webhook::run(args, output).await,
        Command::Docs(args) => docs::run(args, output, &Cli::command()),
    }
}
