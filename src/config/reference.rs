//! The settings for the manual, read from the structs that clap parses.

use clap::builder::{ArgAction, Resettable};
use clap::{Arg, Args as _, Command, FromArgMatches as _};

use super::Settings;

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// The heading under which `--help` shows it.
    pub heading: String,
    /// Its name: the flag `--name`, and the line `name = …` in notihub.toml.
    pub name: String,
    /// Its environment variable.
    pub variable: String,
    /// The placeholder of its value in `--help`; `None` for a switch.
    pub value: Option<String>,
    pub default: Option<String>,
    /// The words it accepts, if it is limited to some: (word, meaning).
    pub words: Vec<(String, String)>,
    /// An example of its line in notihub.toml.
    pub line: String,
    /// Its description.
    pub text: String,
}

/// Every setting, in the order of `--help`.
pub fn reference() -> Vec<Setting> {
    let command = Settings::augment_args(Command::new("notihub"));
    command.get_arguments().filter_map(setting).collect()
}

/// The default settings; `None` if one has no default, which a test excludes.
pub fn defaults() -> Option<Settings> {
    let command = Settings::augment_args(Command::new("notihub").no_binary_name(true));
    let unset = command.mut_args(|arg| arg.env(Resettable::Reset));
    let matches = unset.try_get_matches_from(std::iter::empty::<&str>()).ok()?;
    Settings::from_arg_matches(&matches).ok()
}

fn setting(arg: &Arg) -> Option<Setting> {
    let (name, variable) = (arg.get_long()?, arg.get_env()?.to_str()?);
    let is_switch = matches!(arg.get_action(), ArgAction::SetTrue);
    let value = arg.get_value_names().and_then(<[_]>::first).filter(|_| !is_switch).map(ToString::to_string);
    let default = arg.get_default_values().first().and_then(|v| v.to_str()).filter(|_| !is_switch).map(str::to_owned);
    let shown = default.clone().or(value.clone()).unwrap_or_default();
    let line = match arg.get_action() {
        ArgAction::SetTrue => format!("{name} = true"),
        ArgAction::Append => format!("{name} = [\"{shown}\"]"),
        _ if shown.parse::<f64>().is_ok() => format!("{name} = {shown}"),
        _ => format!("{name} = \"{shown}\""),
    };
    let words = if is_switch { Vec::new() } else { arg.get_possible_values() };
    let words = words.iter().map(|word| (word.get_name().to_owned(), text(word.get_help()))).collect();
    Some(Setting {
        heading: arg.get_help_heading().unwrap_or_default().to_owned(),
        name: name.to_owned(),
        variable: variable.to_owned(),
        value,
        default,
        words,
        line,
        text: text(arg.get_long_help().or(arg.get_help())),
    })
}

fn text(help: Option<&clap::builder::StyledStr>) -> String {
    help.map(ToString::to_string).unwrap_or_default()
}
