//! The environment variables that are set. Besides clap, only this file reads them.

use std::ffi::OsString;

/// Whether a variable has a value. An empty value counts as none.
pub fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty())
}

/// The command in `PAGER`, which shows long texts on a terminal; `None` if it is unset or empty.
pub fn pager() -> Option<OsString> {
    std::env::var_os("PAGER").filter(|command| !command.is_empty())
}

/// Sorted names of the variables that are set and begin with `NOTIHUB_`. Kubernetes sets some for a service called
/// notihub (`NOTIHUB_SERVICE_HOST`, `NOTIHUB_PORT_8080_TCP`, …); those are left out.
pub fn variables() -> Vec<String> {
    let ours = |(name, value): (OsString, OsString)| {
        Some(name.to_str()?.to_owned()).filter(|name| name.starts_with("NOTIHUB_") && !value.is_empty())
    };
    // `vars` would panic on a variable that is not UTF-8.
    let mut names: Vec<String> = std::env::vars_os().filter_map(ours).collect();
    names.push("NOTIHUB_SERVICE_HOST".into());
    let services: Vec<String> =
        names.iter().filter_map(|name| Some(name.strip_suffix("_SERVICE_HOST")?.to_owned())).collect();
    let of_a_service = |name: &str| {
        let rest = services.iter().filter_map(|service| name.strip_prefix(service.as_str()));
        rest.into_iter().any(|rest| rest == "_PORT" || rest.starts_with("_PORT_") || rest.starts_with("_SERVICE_"))
    };
    names.retain(|name| !of_a_service(name));
    names.sort();
    names
}
