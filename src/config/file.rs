//! The settings file, `notihub.toml`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::error::{Error, Result};

/// A setting in the file, with its values as text.
#[derive(Debug)]
pub struct FileSetting {
    pub values: Vec<String>,
    /// File and line, as `notihub.toml line 3`.
    pub at: String,
    /// For the setting `provider`: the place of each account, by name.
    pub accounts: BTreeMap<String, String>,
}

/// Reads the settings file: `named` (the flag --config), the variable `NOTIHUB_CONFIG`, or `notihub.toml` in the
/// current folder, which may be missing. Returns the settings by name.
///
/// # Errors
/// `Error::Usage` with file, line and fault. It never quotes a value, which may be a secret.
pub fn read_file(named: Option<&std::path::Path>) -> Result<BTreeMap<String, FileSetting>> {
    let env = std::env::var_os("NOTIHUB_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
    let asked = named.map(std::path::Path::to_path_buf).or(env);
    let path = asked.clone().unwrap_or_else(|| "notihub.toml".into());
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && asked.is_none() => return Ok(BTreeMap::new()),
        Err(e) => return Err(Error::Usage(format!("{} cannot be read: {e}", path.display()))),
    };
    let table: toml::Table = toml::from_str(&text).map_err(|e| {
        // The library's message quotes the line, which may hold a secret.
        let span = e.span().unwrap_or_default();
        let line = text[..span.start].matches('\n').count() + 1;
        let what = match e.message() {
            "duplicate key" => format!("'{}' is given twice; write a list as name = [\"…\", \"…\"]", &text[span]),
            message => format!("{message}; write a setting as name = \"text\", name = 3 or name = true"),
        };
        Error::Usage(format!("{} has a fault in line {line}: {what}", path.display()))
    })?;
    let written = |(name, value): (String, toml::Value)| {
        let place = |name: &str| format!("{} line {}", path.display(), line_of(&text, name));
        let at = place(&name);
        let accounts = value.as_table().into_iter().flat_map(toml::Table::keys);
        let accounts = accounts.map(|account| (account.clone(), place(&format!("{name}.{account}")))).collect();
        Ok((name.clone(), FileSetting { values: file_values(&at, &name, value)?, at, accounts }))
    };
    table.into_iter().map(written).collect()
}

/// The line, from 1, on which a setting begins: `name = …`, or the first `[name.…]`.
fn line_of(text: &str, name: &str) -> usize {
    let begins = |line: &str| {
        let line = line.trim_start().trim_start_matches(['[', '"', '\'']);
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['=', ' ', '\t', '.', ']', '"', '\'']))
    };
    text.lines().position(begins).map_or(1, |n| n + 1)
}

fn file_values(at: &str, name: &str, value: toml::Value) -> Result<Vec<String>> {
    match value {
        toml::Value::Table(accounts) if name == "provider" => {
            let account = |(account, options): (String, toml::Value)| {
                let wrong = || Error::Usage(format!("{at}: [provider.{account}] must be a table"));
                let toml::Value::Table(options) = options else { return Err(wrong()) };
                let plain = |(option, value): (String, toml::Value)| {
                    let values = file_values(at, &format!("provider.{account}.{option}"), value)?;
                    Ok((option, values.join("+")))
                };
                let options = options.into_iter().map(plain).collect::<Result<BTreeMap<String, String>>>()?;
                let json = serde_json::to_string(&options).map_err(|_| wrong())?;
                // A semicolon separates accounts; JSON can write it as an escape.
                Ok(format!("{account}={}", json.replace(';', "\\u003b")))
            };
            accounts.into_iter().map(account).collect()
        }
        toml::Value::String(text) => Ok(vec![text]),
        toml::Value::Integer(n) => Ok(vec![n.to_string()]),
        toml::Value::Float(x) => Ok(vec![x.to_string()]),
        toml::Value::Boolean(b) => Ok(vec![b.to_string()]),
        toml::Value::Array(items) => {
            let nested: Vec<Vec<String>> =
                items.into_iter().map(|item| file_values(at, name, item)).collect::<Result<_>>()?;
            Ok(nested.concat())
        }
        toml::Value::Table(_) => Err(Error::Usage(format!(
            "{at}: there is no table '{name}'; write accounts as tables [provider.NAME], and every other setting \
             before them as name = \"text\""
        ))),
        toml::Value::Datetime(_) => {
            Err(Error::Usage(format!("{at}: '{name}' must be a text, a number, true or false, or a list")))
        }
    }
}
