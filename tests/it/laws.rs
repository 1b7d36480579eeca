//! The laws of the project's structure, checked on its sources: the layers, the libraries and calls that belong to one
//! place, the circles of files, the form of SQL files, and the settings and commands of compose.yaml.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use notihub::config::Settings;
use sqlx::{Connection as _, PgConnection};

use crate::support::database::fresh_database;

/// Each layer with its modules, from the ground up. A module names only modules of the layers below it; in layers 0
/// and 5 also modules of its own layer.
const LAYERS: [(&str, &[&str]); 8] = [
    ("0", &["config", "error", "id", "clock", "limits", "crypt", "shutdown", "telemetry", "docs"]),
    ("1", &["model"]),
    ("2", &["store", "provider"]),
    ("3a", &["hub"]),
    ("3b", &["flow"]),
    ("4a", &["http"]),
    ("4b", &["api", "live", "ui", "worker"]),
    ("5", &["cli", "main"]),
];

/// (names, the only places that may name them). A folder ends with a slash.
const EXCLUSIVE: [(&[&str], &[&str]); 8] = [
    (&["sqlx"], &["store/"]),
    // The simulators and `webhook listen` are servers, too.
    (&["axum"], &["http/", "api/", "live/", "ui/", "provider/simulator/", "cli/webhook_listen.rs"]),
    // Answers are described shapes; `http::answer::ok` takes no others.
    (&["utoipa", "utoipa_axum"], &["http/", "api/"]),
    (&["reqwest", "lettre"], &["provider/", "cli/client.rs"]),
    (&["clap"], &["config/", "cli/"]),
    (&["tokio::spawn", "tokio::task::spawn", "tokio::task::spawn_local"], &["shutdown.rs"]),
    (&["Utc::now", "Local::now", "SystemTime::now"], &["clock.rs"]),
    (&["env::var", "env::var_os", "env::vars", "env::vars_os"], &["config/"]),
];

/// Names that `model` may not use: it does not wait, do I/O, read a clock or draw random numbers.
const IMPURE: [&str; 11] = [
    "async",
    "await",
    "tokio",
    "rand",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::env",
    "Instant::now",
    "Clock",
];

/// (place, name, reason). A test fails on an exception that is no longer needed.
const EXCEPTIONS: [(&str, &str, &str); 3] = [
    ("api/mod.rs", "crate::ui", "every route is on its page, also those of pages for people"),
    ("config/", "crate::model", "a setting's value may be a word of the model: a channel, a policy"),
    ("cli/pg.rs", "std::env::var_os", "PATH is the shell's answer to \"which postgres?\", and must be the same answer"),
];

/// The folder of the project.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files below a folder of the project whose names end with `ending`, sorted.
pub fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_str().unwrap().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The text of a file; panics with its path if it cannot be read.
pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// `src/flow/partner.rs` as `flow/partner.rs`.
pub fn within<'p>(path: &'p Path, folder: &str) -> &'p str {
    path.strip_prefix(root().join(folder)).unwrap().to_str().unwrap()
}

/// The tokens of a Rust source, without comments, string and character literals. `::` is one token, every other sign
/// is one per character.
fn tokens(source: &str) -> Vec<String> {
    let chars: Vec<char> = source.chars().collect();
    let (mut tokens, mut i) = (Vec::new(), 0);
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    while i < chars.len() {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        match (at(i), at(i + 1)) {
            ('/', '/') => i += chars[i..].iter().take_while(|c| **c != '\n').count(),
            ('/', '*') => {
                let mut depth = 0;
                loop {
                    match (at(i), at(i + 1)) {
                        ('/', '*') => (depth, i) = (depth + 1, i + 2),
                        ('*', '/') => (depth, i) = (depth - 1, i + 2),
                        _ => i += 1,
                    }
                    if depth == 0 || i >= chars.len() {
                        break;
                    }
                }
            }
            ('"', _) => i = after_text(&chars, i + 1),
            ('r', '"' | '#') | ('b', '"' | 'r') if raw(&chars, i).is_some() => i = raw(&chars, i).unwrap(),
            ('b', '"') => i = after_text(&chars, i + 2),
            ('\'', '\\') => i += 3 + chars[i + 3..].iter().take_while(|c| **c != '\'').count(),
            ('\'', _) if at(i + 2) == '\'' => i += 3,
            (':', ':') => {
                tokens.push("::".to_owned());
                i += 2;
            }
            (c, _) if word(c) => {
                let length = chars[i..].iter().take_while(|c| word(**c)).count();
                tokens.push(chars[i..i + length].iter().collect());
                i += length;
            }
            (c, _) => {
                if !c.is_whitespace() {
                    tokens.push(c.to_string());
                }
                i += 1;
            }
        }
    }
    tokens
}

fn after_text(chars: &[char], mut i: usize) -> usize {
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// The position after the raw string literal that begins at `start`; none where no raw string begins.
fn raw(chars: &[char], start: usize) -> Option<usize> {
    let mut i = start + usize::from(chars[start] == 'b');
    if chars.get(i) != Some(&'r') {
        return None;
    }
    i += 1;
    let hashes = chars[i..].iter().take_while(|c| **c == '#').count();
    i += hashes;
    if chars.get(i) != Some(&'"') {
        return None;
    }
    let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let length = chars[i + 1..].windows(end.len()).position(|w| w == end)?;
    Some(i + 1 + length + end.len())
}

/// The paths that a file names, in `use` or elsewhere, from the root of the crate: `crate::store::message::insert`.
fn paths(file: &str, source: &str) -> BTreeSet<String> {
    let (mut used, passing) = named(file, &tokens(source));
    used.extend(passing);
    used
}

/// The paths that a file names: (in `use`, elsewhere).
fn named(file: &str, tokens: &[String]) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut here: Vec<String> = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    here.retain(|part| !matches!(part.as_str(), "mod" | "lib" | "main"));
    let (mut used, mut passing) = (BTreeSet::new(), BTreeSet::new());
    let (mut modules, mut depth, mut i) = (Vec::<(String, usize)>::new(), 0, 0);
    while i < tokens.len() {
        let next = |n: usize| tokens.get(i + n).map_or("", String::as_str);
        match tokens[i].as_str() {
            "mod" if next(2) == "{" => modules.push((next(1).to_owned(), depth)),
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                modules.retain(|(_, opened)| *opened < depth);
            }
            _ => (),
        }
        let module: Vec<String> = here.iter().cloned().chain(modules.iter().map(|m| m.0.clone())).collect();
        if tokens[i] == "use" {
            let mut found = Vec::new();
            i = tree(tokens, i + 1, &[], &mut found);
            used.extend(found.iter().map(|path| absolute(&module, path)));
        } else if is_name(&tokens[i]) && next(1) == "::" {
            let mut path = vec![tokens[i].clone()];
            i += 1;
            while tokens.get(i).is_some_and(|t| t == "::") && tokens.get(i + 1).is_some_and(|t| is_name(t)) {
                path.push(tokens[i + 1].clone());
                i += 2;
            }
            passing.insert(absolute(&module, &path));
        } else {
            i += 1;
        }
    }
    (used, passing)
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Reads one branch of a `use` into `found`; returns the position after it.
fn tree(tokens: &[String], mut i: usize, before: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let mut path = before.to_vec();
    while let Some(token) = tokens.get(i) {
        match token.as_str() {
            "{" => {
                i += 1;
                while tokens.get(i).is_some_and(|t| t != "}") {
                    i = tree(tokens, i, &path, found);
                    i += usize::from(tokens.get(i).is_some_and(|t| t == ","));
                }
                return i + 1;
            }
            ";" | "," | "}" => break,
            "as" => i += 1,
            "::" => (),
            "self" if !path.is_empty() => (),
            name => path.push(name.to_owned()),
        }
        i += 1;
    }
    found.push(path);
    i
}

fn absolute(module: &[String], path: &[String]) -> String {
    let mut base: Vec<&str> = Vec::new();
    let mut rest = path.iter().map(String::as_str).peekable();
    match rest.peek() {
        Some(&("crate" | "notihub")) => {
            rest.next();
            base.push("crate");
        }
        Some(&("self" | "super")) => {
            base.push("crate");
            base.extend(module.iter().map(String::as_str));
            while let Some(&step) = rest.peek().filter(|s| matches!(**s, "self" | "super")) {
                if step == "super" && base.len() > 1 {
                    base.pop();
                }
                rest.next();
            }
        }
        _ => (),
    }
    base.extend(rest);
    base.join("::")
}

/// Whether a file is at a place: a file, or a folder that ends with a slash.
fn is_in(file: &str, place: &str) -> bool {
    if place.ends_with('/') { file.starts_with(place) } else { file == place }
}

fn layer(module: &str) -> Option<&'static str> {
    LAYERS.iter().find(|(_, modules)| modules.contains(&module)).map(|(layer, _)| *layer)
}

/// The names in a file that break a law: (name, broken law).
fn broken(file: &str, source: &str) -> Vec<(String, String)> {
    let mine = file.split(['/', '.']).next().unwrap();
    let mine = if mine == "lib" { "main" } else { mine };
    let Some(my_layer) = layer(mine) else { return vec![(mine.to_owned(), "is in no layer".to_owned())] };
    let mut wrong = Vec::new();
    for path in paths(file, source) {
        let target = path.strip_prefix("crate::").map(|rest| rest.split("::").next().unwrap());
        if let Some(target) = target.filter(|t| *t != mine && layer(t).is_some()) {
            let theirs = layer(target).unwrap();
            let together = theirs == my_layer && matches!(my_layer, "0" | "5");
            if theirs >= my_layer && !together {
                wrong.push((path.clone(), format!("layer {my_layer} names layer {theirs}")));
            }
        }
        for (names, places) in EXCLUSIVE {
            let may = places.iter().any(|place| is_in(file, place));
            if !may && names.iter().any(|name| is_or_ends(&path, name)) {
                wrong.push((path.clone(), format!("only {} may", places.join(", "))));
            }
        }
    }
    if mine == "model" {
        let words: BTreeSet<String> = tokens(source).into_iter().collect();
        let named = paths(file, source);
        let impure =
            IMPURE.into_iter().filter(|name| words.contains(*name) || named.iter().any(|p| is_or_ends(p, name)));
        wrong.extend(impure.map(|name| (name.to_owned(), "the model is pure".to_owned())));
    }
    wrong
}

/// Whether a path is that name, begins with it, or ends with it: `sqlx`, `tokio::spawn`, `chrono::Utc::now`.
fn is_or_ends(path: &str, name: &str) -> bool {
    let path = format!("::{path}::");
    path.starts_with(&format!("::{name}::")) || (name.contains("::") && path.contains(&format!("::{name}::")))
}

/// S2-1, S4-1, S4-6, S0-7: a module names only layers below it, and a name of `EXCLUSIVE` is in its places alone.
#[test]
fn module_names_only_layers_below() {
    let (mut wrong, mut excused, mut read_paths) = (Vec::new(), BTreeSet::new(), 0);
    for path in files("src", ".rs") {
        let (file, source) = (within(&path, "src").to_owned(), read(&path));
        read_paths += paths(&file, &source).len();
        for (named, why) in broken(&file, &source) {
            match EXCEPTIONS.iter().position(|e| is_in(&file, e.0) && is_or_ends(&named, e.1)) {
                Some(n) => drop(excused.insert(n)),
                None => wrong.push(format!("src/{file}: {named}: {why}")),
            }
        }
    }
    assert!(read_paths > 1000, "only {read_paths} paths were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (n, (file, named, _)) in EXCEPTIONS.iter().enumerate() {
        assert!(excused.contains(&n), "src/{file} no longer names {named}: remove the exception");
    }
}

/// `broken` finds each kind of breach in each notation, and none in comments and string literals.
#[test]
fn broken_law_in_any_notation_is_found() {
    for (file, source, named) in [
        ("model/x.rs", "use crate::store::message;", "crate::store::message"),
        ("model/x.rs", "use super::super::hub::Hub;", "crate::hub::Hub"),
        ("model/x.rs", "pub async fn f() {}", "async"),
        ("model/x.rs", "fn f() { std::fs::read(p); }", "std::fs"),
        ("model/x.rs", "fn f() -> f64 { rand::random() }", "rand"),
        ("error.rs", "fn f() { crate::model::event::x() }", "crate::model::event::x"),
        ("store/x.rs", "use crate::{error::Result, provider::{self as p, Letter}};", "crate::provider"),
        ("provider/x.rs", "use crate::store::Store;", "crate::store::Store"),
        ("provider/x/y.rs", "mod tests { use super::super::super::super::flow::z; }", "crate::flow::z"),
        ("flow/x.rs", "use crate::{api, error};", "crate::api"),
        ("hub/x.rs", "fn f(w: &mut crate::worker::Loop) {}", "crate::worker::Loop"),
        ("hub/mod.rs", "use crate::flow::intake::accept::accept;", "crate::flow::intake::accept::accept"),
        ("api/x.rs", "pub use crate::worker::deliver as d;", "crate::worker::deliver"),
        ("worker/x.rs", "use crate::api::{message::{self, time}, page};", "crate::api::message"),
        ("api/x.rs", "fn f() { crate::cli::main(); }", "crate::cli::main"),
        ("http/x.rs", "use crate::api::message;", "crate::api::message"),
        ("flow/x.rs", "use crate::http::problem::Problem;", "crate::http::problem::Problem"),
        ("flow/x.rs", "async fn f() { sqlx::query(\"x\"); }", "sqlx::query"),
        ("flow/x.rs", "use sqlx;", "sqlx"),
        ("flow/x.rs", "use ::sqlx::PgPool;", "sqlx::PgPool"),
        ("worker/x.rs", "use axum::http::StatusCode;", "axum::http::StatusCode"),
        ("flow/x.rs", "fn f(u: reqwest::Url) {}", "reqwest::Url"),
        ("model/x.rs", "#[derive(utoipa::ToSchema)] struct X;", "utoipa::ToSchema"),
        ("cli/send.rs", "use lettre::Address;", "lettre::Address"),
        ("telemetry.rs", "#[derive(clap::Args)] struct X;", "clap::Args"),
        ("flow/x.rs", "fn f() { tokio::spawn(g()); }", "tokio::spawn"),
        ("flow/x.rs", "use tokio::{sync, task::spawn};", "tokio::task::spawn"),
        ("flow/x.rs", "use chrono::Utc; fn f() { Utc::now(); }", "Utc::now"),
        ("flow/x.rs", "fn f() { std::time::SystemTime::now(); }", "std::time::SystemTime::now"),
        ("cli/up.rs", "use std::env; fn f() { env::var(\"X\"); }", "env::var"),
        ("worker/x.rs", "fn f() { std::env::var_os(\"X\"); }", "std::env::var_os"),
        ("nowhere.rs", "", "nowhere"),
    ] {
        let found: Vec<String> = broken(file, source).into_iter().map(|w| w.0).collect();
        assert!(found.iter().any(|f| f == named), "{file}: {source}: {found:?}");
    }
    for (file, source) in [
        ("flow/x.rs", "// use crate::api;\n/* sqlx::query /* axum::x */ */ /// crate::cli\nfn f() {}"),
        (
            "flow/x.rs",
            "const A: &str = \"crate::api::x\"; const B: &str = r#\"sqlx::\"x\" \"#; const C: &[u8] = b\"axum::x\";",
        ),
        ("flow/x.rs", "fn f<'a>(x: &'a str, c: char) -> bool { c == '\"' || c == '\\'' || x == \"crate::cli::x\" }"),
        ("flow/x.rs", "use crate::{store, provider::Letter, model::delivery::{self, Key}}; use crate::hub::Hub;"),
        ("flow/x.rs", "use crate::hub::intake_queue::Requests;"),
        ("hub/x.rs", "use crate::{store::Store, provider::Providers, model::concurrency::EndpointConcurrency};"),
        ("clock.rs", "fn f() { Utc::now(); }"),
        ("http/x.rs", "use axum::Router; use crate::{flow, hub::Hub};"),
        ("live/x.rs", "use crate::http::server;"),
        ("config/file.rs", "fn f() { std::env::var(\"X\"); env!(\"CARGO_PKG_VERSION\"); }"),
        ("cli/x.rs", "fn f() { std::env::args_os(); std::time::Instant::now(); shutdown.spawn(g()); }"),
        ("store/x.rs", "mod tests { use super::*; use super::super::Db; } use sqlx::PgPool;"),
    ] {
        assert_eq!(broken(file, source), [], "{file}: {source}");
    }
}

/// The files of a tree by module, with the paths that each names outside of its tests.
struct Files(BTreeMap<String, Named>);

struct Named {
    file: String,
    used: BTreeSet<String>,
    passing: BTreeSet<String>,
}

impl Files {
    fn of(sources: impl IntoIterator<Item = (String, String)>) -> Files {
        Files(
            sources
                .into_iter()
                .map(|(file, source)| {
                    let (used, passing) = named(&file, &without_tests(tokens(&source)));
                    let path = file.trim_end_matches(".rs").replace('/', "::");
                    let path = path.strip_suffix("::mod").unwrap_or(&path);
                    let module = if path == "lib" { "crate".to_owned() } else { format!("crate::{path}") };
                    (module, Named { file, used, passing })
                })
                .collect(),
        )
    }

    /// A path that `module` names, from the root of the crate. Its first name may be a module below `module`, or one
    /// that `module` imports.
    fn full(&self, module: &str, path: &str) -> Option<String> {
        let (first, rest) = path.split_once("::").unwrap_or((path, ""));
        if first == "crate" {
            return Some(path.to_owned());
        }
        let below = Some(format!("{module}::{first}")).filter(|below| self.0.contains_key(below));
        let base = below.or_else(|| {
            let ending = format!("::{first}");
            self.0[module].used.iter().find(|used| self.0.contains_key(*used) && used.ends_with(&ending)).cloned()
        })?;
        Some(if rest.is_empty() { base } else { format!("{base}::{rest}") })
    }

    /// The module that a path leads to. For an item that a `mod.rs` re-exports this is the module of its definition,
    /// through at most `steps` re-exports.
    fn home(&self, path: &str, steps: u8) -> Option<&str> {
        let mut module = path;
        while !self.0.contains_key(module) {
            module = module.rsplit_once("::")?.0;
        }
        let (module, named) = self.0.get_key_value(module)?;
        let rest = path[module.len()..].trim_start_matches("::");
        let (first, after) = rest.split_once("::").unwrap_or((rest, ""));
        let passes_on = steps > 0 && named.file.ends_with("mod.rs");
        let mut passed_on = named.used.iter().filter(|_| passes_on).filter_map(|used| {
            let at = self.full(module, used).filter(|at| at != path && at.ends_with(&format!("::{first}")))?;
            self.home(&if after.is_empty() { at } else { format!("{at}::{after}") }, steps - 1)
        });
        passed_on.next().or(Some(module))
    }

    /// The modules that a module needs: the homes of the items that its paths name. The path of a module alone is no
    /// need.
    fn needs(&self, module: &str) -> BTreeSet<&str> {
        let named = &self.0[module];
        let paths = named.used.iter().chain(&named.passing).filter_map(|path| self.full(module, path));
        let items = paths.filter(|path| !self.0.contains_key(path));
        let homes = items.filter_map(|path| self.home(path.trim_end_matches("::*"), 3).map(str::to_owned));
        let homes: BTreeSet<String> = homes.collect();
        self.0.keys().map(String::as_str).filter(|key| *key != module && homes.contains(*key)).collect()
    }

    /// Every circle, sorted: files that all need each other, directly or through others.
    fn circles(&self) -> BTreeSet<Vec<&str>> {
        let needs: BTreeMap<&str, BTreeSet<&str>> = self.0.keys().map(|m| (m.as_str(), self.needs(m))).collect();
        let reached: BTreeMap<&str, BTreeSet<&str>> = needs.keys().map(|m| (*m, reached(&needs, m))).collect();
        let circle = |(module, from_it): (&&str, &BTreeSet<&str>)| {
            let back = from_it.iter().filter(|other| reached[**other].contains(module));
            let files: BTreeSet<&str> = back.map(|module| self.0[*module].file.as_str()).collect();
            files.into_iter().collect::<Vec<_>>()
        };
        reached.iter().map(circle).filter(|files| files.len() > 1).collect()
    }
}

/// All modules that `from` needs, directly or through others.
fn reached<'m>(needs: &BTreeMap<&'m str, BTreeSet<&'m str>>, from: &'m str) -> BTreeSet<&'m str> {
    let (mut found, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(module) = next.pop() {
        next.extend(needs[module].iter().filter(|needed| found.insert(**needed)));
    }
    found
}

/// The tokens without those of `mod tests`: a file's tests may name modules of layers above it.
fn without_tests(tokens: Vec<String>) -> Vec<String> {
    let (mut kept, mut depth, mut tests) = (Vec::new(), 0, None);
    for token in tokens {
        depth += i32::from(token == "{");
        if tests.is_none() && token == "{" && kept.ends_with(&["mod".to_owned(), "tests".to_owned()]) {
            tests = Some(depth);
        }
        let ends = token == "}" && tests == Some(depth);
        depth -= i32::from(token == "}");
        if tests.is_none() {
            kept.push(token);
        } else if ends {
            tests = None;
        }
    }
    kept
}

/// No file needs a file that needs it in turn, directly or through others: so files can be read one after the other.
#[test]
fn file_imports_form_no_circle() {
    let sources: Vec<(String, String)> =
        files("src", ".rs").iter().map(|path| (within(path, "src").to_owned(), read(path))).collect();
    let all = Files::of(sources.into_iter().filter(|(file, _)| file != "main.rs"));
    let needs: usize = all.0.keys().map(|module| all.needs(module).len()).sum();
    assert!(needs > 1000, "only {needs} needs were found");
    let found = all.circles();
    let circles: Vec<String> = found
        .iter()
        .flat_map(|circle| {
            let modules = all.0.iter().filter(|(_, named)| circle.contains(&named.file.as_str()));
            modules.map(|(module, named)| {
                let needs = all.needs(module).into_iter().map(|needed| all.0[needed].file.as_str());
                let needs: Vec<&str> = needs.filter(|needed| circle.contains(needed)).collect();
                format!("src/{}: needs {}", named.file, needs.join(", "))
            })
        })
        .collect();
    assert!(circles.is_empty(), "these files need each other in a circle:\n{}", circles.join("\n"));
}

/// `circles` finds a circle in each notation of a path, and none where there is none.
#[test]
fn circle_in_any_notation_is_found() {
    let circles = |sources: &[(&str, &str)]| {
        let sources = sources.iter().map(|(file, source)| ((*file).to_owned(), (*source).to_owned()));
        let all = Files::of(sources.chain([("lib.rs".to_owned(), String::new())]));
        let found: Vec<String> = all.circles().into_iter().map(|circle| circle.join(" ")).collect();
        found.join("; ")
    };
    for (sources, circle) in [
        (&[("a.rs", "use crate::b::B;"), ("b.rs", "fn f() { crate::a::f() }")][..], "a.rs b.rs"),
        (&[("a.rs", "use crate::b; fn f() { b::f() }"), ("b.rs", "use crate::{a::{self, A}};")], "a.rs b.rs"),
        (
            &[("a/b.rs", "use super::c::C;"), ("a/c.rs", "use super::d::*;"), ("a/d.rs", "fn f(b: super::b::B) {}")],
            "a/b.rs a/c.rs a/d.rs",
        ),
        (&[("a/mod.rs", "mod b; fn f() { b::f() }"), ("a/b.rs", "use super::f;")], "a/b.rs a/mod.rs"),
        (&[("a/mod.rs", "pub mod b; pub use b::B;"), ("a/b.rs", "use crate::c::C;"), ("c.rs", "use crate::a::B;")], {
            "a/b.rs c.rs"
        }),
        (&[("a.rs", "use crate::b::B;"), ("b.rs", "use crate::c::C;"), ("c.rs", "use crate::b::D;")], "b.rs c.rs"),
    ] {
        assert_eq!(circles(sources), circle, "{sources:?}");
    }
    for sources in [
        &[("a.rs", "use crate::b::B;"), ("b.rs", "// crate::a\nmod tests { use crate::a::A; } fn g() {}")][..],
        &[("a/mod.rs", "pub mod b; pub mod c; pub use b::B;"), ("a/b.rs", ""), ("a/c.rs", "use super::B;")],
        &[("a/mod.rs", "pub mod b; use b::B; fn f() {}"), ("a/b.rs", "use crate::c; fn f() { c::f() }"), ("c.rs", "")],
        &[("a.rs", "use crate::b::B; use crate::c::C;"), ("b.rs", "use crate::c::C;"), ("c.rs", "")],
    ] {
        assert_eq!(circles(sources), "", "{sources:?}");
    }
}

/// S3-28: each SQL file is used by `store`, begins with a comment that names each parameter, takes its time as a
/// parameter, and can be prepared by PostgreSQL on the migrated schema.
#[tokio::test]
async fn sql_file_is_used_commented_and_prepared() {
    let mut used = BTreeSet::new();
    for path in files("src/store", ".rs") {
        let source = read(&path);
        let pieces = source.split("\"sql/").skip(1);
        used.extend(pieces.map(|piece| format!("sql/{}", piece.split('"').next().unwrap())));
    }
    let mut conn = PgConnection::connect(&fresh_database().await).await.unwrap();
    let mut wrong = Vec::new();
    let all = files("sql", ".sql");
    assert!(all.len() > 40, "only {} files were found", all.len());
    for path in all {
        let name = format!("sql/{}", within(&path, "sql"));
        let text = read(&path);
        if !used.remove(&name) {
            wrong.push(format!("{name}: nothing in src/store uses it"));
        }
        let comment: String = text.lines().take_while(|l| l.starts_with("--")).collect::<Vec<_>>().join("\n");
        let statement = text[comment.len()..].to_owned();
        if comment.len() < 10 {
            wrong.push(format!("{name}: does not begin with a comment"));
        }
        let mentioned = parameters(&comment);
        for n in parameters(&statement).difference(&mentioned) {
            wrong.push(format!("{name}: the comment does not name ${n}"));
        }
        let lower = statement.to_lowercase();
        if ["now()", "current_timestamp", "localtimestamp"].iter().any(|clock| has_word(&lower, clock)) {
            wrong.push(format!("{name}: reads the clock; time is a parameter"));
        }
        let prepare = sqlx::AssertSqlSafe(format!("prepare law as {statement}"));
        match sqlx::raw_sql(prepare).execute(&mut conn).await {
            Ok(_) => drop(sqlx::raw_sql("deallocate law").execute(&mut conn).await.unwrap()),
            Err(e) => wrong.push(format!("{name}: {e}")),
        }
    }
    wrong.extend(used.into_iter().map(|name| format!("{name} is used and does not exist")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The numbers of the parameters in a text: `$1`; `$2 to $4` includes `$3`.
fn parameters(text: &str) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut last = None;
    for (n, piece) in text.split('$').enumerate() {
        let digits: String = piece.chars().take_while(char::is_ascii_digit).collect();
        if let (1.., Ok(number)) = (n, digits.parse::<u32>()) {
            let first = last.take().unwrap_or(number);
            found.extend(first..=number);
            last = (piece[digits.len()..].trim() == "to").then_some(number);
        }
    }
    found
}

fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// S3-29: compose.yaml can be read, runs PostgreSQL, an API and two workers by commands of the program, and names only
/// settings of the program.
#[test]
fn compose_file_names_existing_settings_and_commands() {
    let text = read(&root().join("compose.yaml"));
    let command = <Settings as clap::Args>::augment_args(clap::Command::new("test"));
    let settings: BTreeSet<String> =
        command.get_arguments().filter_map(|a| a.get_env()?.to_str().map(str::to_owned)).collect();
    let mut names = 0;
    for piece in text.split("NOTIHUB_").skip(1) {
        let name: String = piece.chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect();
        assert!(settings.contains(&format!("NOTIHUB_{name}")), "there is no setting NOTIHUB_{name}");
        names += 1;
    }
    assert!(names >= 3, "compose.yaml sets nothing");

    let mut section = "";
    let mut services: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut service = "";
    for line in text.lines().filter(|l| !l.trim().is_empty() && !l.trim_start().starts_with('#')) {
        let indent = line.len() - line.trim_start().len();
        assert!(!line.contains('\t') && indent % 2 == 0, "YAML is indented by pairs of blanks: {line}");
        let key = line.trim().split(':').next().unwrap();
        match indent {
            0 => section = key,
            2 if section == "services" => service = key,
            _ if section == "services" => services.entry(service).or_default().push(line.trim()),
            _ => (),
        }
        for alias in line.split('*').skip(1).filter(|_| line.contains(": *")) {
            assert!(text.contains(&format!("&{}", alias.trim())), "there is no anchor for *{alias}");
        }
    }
    assert_eq!(services.keys().copied().collect::<Vec<_>>(), ["migrate", "postgres", "serve", "work"]);
    for (service, lines) in services {
        let value = |name: &str| lines.iter().find_map(|l| l.strip_prefix(name)).map(str::trim);
        match service {
            "postgres" => assert!(value("image:").unwrap().starts_with("postgres:"), "{lines:?}"),
            _ => {
                let words: Vec<String> = serde_json::from_str(value("command:").unwrap()).unwrap();
                let help = Command::new(env!("CARGO_BIN_EXE_notihub")).args(&words).arg("--help").output().unwrap();
                assert!(help.status.success(), "notihub {words:?}");
            }
        }
        if service == "work" {
            assert_eq!(value("deploy:"), Some("{ replicas: 2 }"));
        }
    }
}

/// The modules that a `mod.rs` lists, each with the number of its group; blank lines end groups.
fn listed(source: &str) -> BTreeMap<String, usize> {
    let (mut listed, mut group) = (BTreeMap::new(), 0);
    for line in source.lines() {
        match line.strip_prefix("pub mod ").and_then(|line| line.strip_suffix(';')) {
            Some(module) => drop(listed.insert(module.to_owned(), group)),
            None => group += usize::from(line.is_empty()),
        }
    }
    listed
}

/// The paths in a flow whose modules are not listed in a group above its own. `lists`: the modules of each `mod.rs`
/// with their groups, by folder.
fn out_of_order(lists: &BTreeMap<String, BTreeMap<String, usize>>, file: &str, source: &str) -> BTreeSet<String> {
    let mine: Vec<&str> = file.trim_end_matches(".rs").split('/').collect();
    let is_above = |theirs: &[&str]| {
        let depth = theirs.iter().zip(&mine).take_while(|(theirs, mine)| theirs == mine).count();
        let (Some(theirs), Some(mine)) = (theirs.get(depth), mine.get(depth)) else { return true };
        let list = &lists["flow"];
        let list = if depth == 1 { list } else { lists.get(&file[..file.rfind('/').unwrap()]).unwrap_or(list) };
        list.get(*theirs).is_none_or(|theirs| *theirs < list[*mine])
    };
    let named = paths(file, source).into_iter().filter_map(|path| Some(path.strip_prefix("crate::")?.to_owned()));
    named.filter(|path| path.starts_with("flow::") && !is_above(&path.split("::").collect::<Vec<_>>())).collect()
}

/// L3: a flow names only flows of a group above its own in `flow/mod.rs`, or in the `mod.rs` of their common folder.
#[test]
fn flow_names_only_flows_listed_above_it() {
    let all = files("src/flow", ".rs");
    let all = all.iter().map(|path| (within(path, "src").to_owned(), read(path)));
    let (lists, flows): (Vec<_>, Vec<_>) = all.partition(|(file, _)| file.ends_with("/mod.rs"));
    let lists =
        lists.iter().map(|(file, source)| (file.trim_end_matches("/mod.rs").to_owned(), listed(source))).collect();
    let wrong: Vec<String> = flows
        .iter()
        .flat_map(|(file, source)| out_of_order(&lists, file, source).into_iter().map(move |named| (file, named)))
        .map(|(file, named)| format!("src/{file}: {named} is not listed in a group above it"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    for (file, source, seen) in [
        ("flow/publish.rs", "use super::delivery::settle::end;", "flow::delivery::settle::end"),
        ("flow/publish.rs", "use super::intake::accept;", "flow::intake::accept"),
        ("flow/channel/webhook.rs", "fn f() { crate::flow::erase::erase() }", "flow::erase::erase"),
        ("flow/delivery/claim.rs", "use super::call::{self, call};", "flow::delivery::call"),
        ("flow/delivery/claim.rs", "use crate::flow::erase::Erased;", "flow::erase::Erased"),
    ] {
        assert!(out_of_order(&lists, file, source).contains(seen), "{file}: {source}");
    }
    for (file, source) in [
        ("flow/erase.rs", "use super::delivery::settle::end; use super::intake::prepare::key_hash;"),
        ("flow/delivery/call.rs", "use super::{claim, hold::Held}; use crate::flow::channel; use crate::hub::Hub;"),
    ] {
        assert_eq!(out_of_order(&lists, file, source), BTreeSet::new(), "{file}: {source}");
    }
}

/// The types that hold a caller's rights, and their variants.
const ROLE_TYPES: [&str; 3] = ["Role", "StaffRole", "Principal"];
const ROLE_WORDS: [&str; 4] = ["Partner", "Staff", "Operator", "Admin"];

/// The position of the bracket that closes the one at `open`.
fn closing(tokens: &[String], open: usize) -> usize {
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate().skip(open) {
        depth += i32::from(matches!(token.as_str(), "(" | "[" | "{"));
        depth -= i32::from(matches!(token.as_str(), ")" | "]" | "}"));
        if depth == 0 {
            return i;
        }
    }
    tokens.len()
}

/// The roles that a file compares one by one: by `==` or `!=`, by `matches!`, by `if let` or `let … else`.
fn compared_roles(source: &str) -> Vec<String> {
    let tokens = tokens(source);
    let token = |i: usize| tokens.get(i).map_or("", String::as_str);
    let asks = |i: usize| matches!((token(i), token(i + 1)), ("=" | "!", "="));
    let matched: Vec<(usize, usize)> = (0..tokens.len())
        .filter(|i| token(*i) == "matches" && token(i + 1) == "!")
        .map(|i| (i, closing(&tokens, i + 2)))
        .collect();
    let mut found = Vec::new();
    for i in 0..tokens.len() {
        if !(ROLE_TYPES.contains(&token(i)) && token(i + 1) == "::" && ROLE_WORDS.contains(&token(i + 2))) {
            continue;
        }
        let mut first = i;
        while first >= 2 && token(first - 1) == "::" && is_name(token(first - 2)) {
            first -= 2;
        }
        let after = if token(i + 3) == "(" { closing(&tokens, i + 3) + 1 } else { i + 3 };
        let before = |n: usize| first.checked_sub(n).map_or("", token);
        let compared = first >= 2 && asks(first - 2) || asks(after);
        let is_let = before(1) == "let" || before(1) == "&" && before(2) == "let";
        let in_matches = matched.iter().any(|(from, to)| (*from..*to).contains(&i));
        if compared || is_let || in_matches {
            found.push(format!("{}::{}", token(i), token(i + 2)));
        }
    }
    found
}

/// L6: a caller's rights are decided in `model/access`, or by a `match` without a rest that the compiler checks when a
/// kind of caller is added. A comparison with one role lets every other role pass, also one that is added later.
/// (`worker::Role` is the role of a process; it has none of these variants.)
#[test]
fn role_is_matched_and_not_compared() {
    let mut wrong = Vec::new();
    for path in files("src", ".rs") {
        let file = within(&path, "src");
        if !file.starts_with("model/access/") {
            wrong.extend(compared_roles(&read(&path)).into_iter().map(|role| format!("src/{file}: asks for {role}")));
        }
    }
    assert!(wrong.is_empty(), "use a match without a rest, or take a permit:\n{}", wrong.join("\n"));
    for source in [
        "fn f(a: &Actor) { if a.role == Role::Partner { g() } }",
        "fn f(a: &Actor) { if a.role != role::Role::Staff(StaffRole::Admin) { g() } }",
        "fn f(a: &Actor) -> bool { Role::Partner == a.role }",
        "fn f(a: &Actor) -> bool { Role::Staff(StaffRole::Admin) != a.role }",
        "fn f(a: &Actor) -> bool { matches!(a.principal, Principal::Staff(_)) }",
        "fn f(a: &Actor) { if let Principal::Partner(own) = &a.principal { g(own) } }",
        "fn f(a: &Actor) { let crate::model::access::principal::Principal::Partner(own) = a.p else { return }; }",
    ] {
        assert!(!compared_roles(source).is_empty(), "{source}");
    }
    for source in [
        "fn f(a: &Actor) { match &a.principal { Principal::Partner(_) => g(), Principal::Staff(_) => h() } }",
        "fn f() -> Principal { let staff = Principal::Staff(StaffRole::Admin); staff }",
        "fn f(a: &Args) { if a.role == Role::Worker && a.n == 1 { g(Role::Partner) } }",
        "fn f(c: Channel) -> bool { matches!(c, Channel::Email) && g(Principal::Staff(StaffRole::Admin)) }",
    ] {
        assert_eq!(compared_roles(source), [""; 0], "{source}");
    }
}

/// The types of `model` and `store` inside the types that derive `Serialize` or `ToSchema` in a file.
fn inner_shapes(file: &str, source: &str) -> Vec<String> {
    let tokens = without_tests(tokens(source));
    let (used, _) = named(file, &tokens);
    let token = |i: usize| tokens.get(i).map_or("", String::as_str);
    // The original names of renamed imports, by the name in this file.
    let renamed: BTreeMap<&str, &str> =
        (1..tokens.len()).filter(|i| token(*i) == "as").map(|i| (token(i + 1), token(i - 1))).collect();
    let mut found = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        if !(token(i) == "derive" && token(i + 1) == "(") {
            i += 1;
            continue;
        }
        let end = closing(&tokens, i + 1);
        let is_shape = tokens[i..end].iter().any(|t| t == "Serialize" || t == "ToSchema");
        // The body of the item comes after its other attributes and its name, in brackets of any kind.
        let mut body = end + 1;
        while !matches!(token(body), "{" | "(" | ";" | "") {
            body = if token(body) == "#" { closing(&tokens, body + 1) + 1 } else { body + 1 };
        }
        let last = if matches!(token(body), "{" | "(") { closing(&tokens, body) } else { body };
        i = end;
        if !is_shape {
            continue;
        }
        let is_enum = tokens[end..body].iter().any(|t| t == "enum");
        let (mut at, mut depth) = (body, 0);
        while at < last {
            depth += i32::from(matches!(token(at), "(" | "[" | "{")) - i32::from(matches!(token(at), ")" | "]" | "}"));
            // A name before a colon is a field, a name directly inside an enum is a variant.
            if !is_name(token(at)) || token(at + 1) == ":" || is_enum && depth == 1 {
                at += 1;
                continue;
            }
            let mut path = vec![tokens[at].clone()];
            while token(at + 1) == "::" && is_name(token(at + 2)) {
                path.push(tokens[at + 2].clone());
                at += 2;
            }
            at += 1;
            let (first, rest) = (path[0].as_str(), &path[1..]);
            if renamed.values().any(|original| *original == first) {
                continue;
            }
            let ending = format!("::{}", renamed.get(first).unwrap_or(&first));
            let full = match used.iter().find(|used| used.ends_with(&ending)) {
                Some(used) => std::iter::once(used.as_str()).chain(rest.iter().map(String::as_str)).collect::<Vec<_>>(),
                None => path.iter().map(String::as_str).collect(),
            };
            let full = full.join("::");
            if ["crate::model::", "crate::store::"].iter().any(|room| full.starts_with(room)) {
                found.push(full);
            }
        }
    }
    found
}

/// L9: outside shapes are the API's own. A field that is added to a type of `model` or `store` would otherwise be
/// shown to callers, and one that is renamed would break them. Words are no exception: a shape has the text, and names
/// the list of words that describes it (`ChannelWord`).
#[test]
fn api_shape_holds_no_type_of_model_or_store() {
    let (mut wrong, mut shapes) = (Vec::new(), 0);
    for path in files("src/api", ".rs").into_iter().chain(files("src/http", ".rs")) {
        let (file, source) = (within(&path, "src"), read(&path));
        shapes += source.matches("Serialize, ToSchema)").count();
        wrong.extend(inner_shapes(file, &source).into_iter().map(|named| format!("src/{file}: {named}")));
    }
    assert!(shapes > 50, "only {shapes} shapes were found");
    assert!(wrong.is_empty(), "these inner types are serialised to callers:\n{}", wrong.join("\n"));
    for (source, seen) in [
        ("use crate::model::message::Content; #[derive(Serialize)] struct X { contents: Vec<Content> }", "Content"),
        (
            "use crate::{model::channel::Channel, id}; #[derive(ToSchema)] #[serde(a = \"b\")] struct X(Channel);",
            "Channel",
        ),
        ("use crate::store::delivery::Row as Kept; #[derive(Serialize)] struct X { kept: Kept }", "Row"),
        ("use crate::store::delivery; #[derive(Debug, Serialize)] enum X { A(delivery::Row), B }", "Row"),
        ("#[derive(Serialize)] struct X { #[serde(flatten)] a: Option<Box<crate::model::message::Fallback>> }", {
            "Fallback"
        }),
    ] {
        let found = inner_shapes("api/x.rs", source);
        assert!(found.len() == 1 && found[0].ends_with(seen), "{source}: {found:?}");
    }
    for source in [
        "use crate::model::message::Content; #[derive(Serialize)] struct X { body: String } fn f(c: Content) {}",
        "use crate::model::message::Content; #[derive(Clone)] struct X { kept: Content }",
        "use crate::model::idempotency::Accepted; #[derive(Serialize)] enum X { Accepted(MessageAccepted), Dry }",
        "use crate::model::breaker::Breaker as Standing; #[derive(Serialize)] struct X { breaker: Option<Breaker> }",
        "use super::shape::ChannelWord; #[derive(Serialize)] struct X { #[schema(v = ChannelWord)] c: &'static str }",
        "use crate::model::channel::Channel; #[derive(Serialize)] struct X; impl X { fn of(c: Channel) -> X { X } }",
    ] {
        assert_eq!(inner_shapes("api/x.rs", source), [""; 0], "{source}");
    }
}

/// The channels that a file names, and each of its names that contains `webhook`.
fn channels_named(source: &str) -> BTreeSet<String> {
    let tokens = without_tests(tokens(source));
    let variant = |w: &&[String]| w[0] == "Channel" && w[1] == "::" && w[2].starts_with(char::is_uppercase);
    let variants = tokens.windows(3).filter(variant).map(|w| w.concat());
    let words = tokens.iter().filter(|token| token.to_lowercase().contains("webhook")).cloned();
    variants.chain(words).collect()
}

/// The engine and the workers name no channel. The steps of a channel beyond the call of its provider are in
/// `flow::channel`, so that a new channel is entered in one place.
#[test]
fn engine_names_no_channel() {
    let (mut wrong, mut read_files) = (Vec::new(), 0);
    for path in ["src/flow/delivery", "src/worker"].iter().flat_map(|folder| files(folder, ".rs")) {
        read_files += 1;
        let named = channels_named(&read(&path));
        wrong.extend(named.into_iter().map(|named| format!("src/{}: names {named}", within(&path, "src"))));
    }
    assert!(read_files > 15, "only {read_files} files were read");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    for (source, seen) in [
        ("fn f(c: Channel) -> bool { c == Channel::Webhook }", "Channel::Webhook"),
        ("use crate::model::channel; fn f() { g(channel::Channel::Email) }", "Channel::Email"),
        ("use crate::flow::channel::webhook;", "webhook"),
        ("fn f(hub: &Hub) { hub.store.webhooks(); }", "webhooks"),
    ] {
        assert!(channels_named(source).contains(seen), "{source}");
    }
    let source =
        "// Channel::Webhook\nuse crate::flow::channel; fn f(c: Channel) { channel::followers(\"webhook\", c) }";
    assert_eq!(channels_named(source), BTreeSet::new());
}

/// Lines of code, statements and tests are read side by side: none is wider than this.
const COLUMNS: usize = 120;

/// L10: no line of src, sql and tests is wider than 120 columns.
#[test]
fn line_is_at_most_120_columns_wide() {
    let mut wide = Vec::new();
    let mut lines = 0;
    for (folder, ending) in [("src", ".rs"), ("sql", ".sql"), ("tests/it", ".rs")] {
        for path in files(folder, ending) {
            for (n, line) in read(&path).lines().enumerate() {
                lines += 1;
                if line.chars().count() > COLUMNS {
                    wide.push(format!("{}:{}", path.display(), n + 1));
                }
            }
        }
    }
    assert!(lines > 50_000, "only {lines} lines were read");
    assert!(wide.is_empty(), "wider than {COLUMNS} columns:\n{}", wide.join("\n"));
}

/// Public functions of a source without documentation, and those that return a `Result` without a section `# Errors`.
/// The part behind `#[cfg(test)]` is not read.
fn undocumented(source: &str) -> Vec<String> {
    let lines: Vec<&str> = source.lines().take_while(|line| *line != "#[cfg(test)]").collect();
    let mut wrong = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        let Some(rest) = line.trim_start().strip_prefix("pub ") else { continue };
        let words: Vec<&str> = rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect();
        let Some(at) = words.iter().position(|word| *word == "fn") else { continue };
        if !words[..at].iter().all(|word| ["const", "async", "unsafe"].contains(word)) {
            continue;
        }
        let name = words[at + 1];
        let mut above = lines[..n].iter().rev().map(|line| line.trim()).skip_while(|line| {
            // Attributes, also those of several lines.
            line.starts_with("#[")
                || line.starts_with(')')
                || (!line.is_empty() && !line.starts_with("///"))
                    && !line.ends_with('}')
                    && !line.ends_with('{')
                    && !line.ends_with(';')
        });
        let doc: Vec<&str> = above.by_ref().take_while(|line| line.starts_with("///")).collect();
        let signature: String = lines[n..]
            .iter()
            .take(40)
            .map(|l| l.trim())
            .scan(false, |ended, line| {
                let is_first_after = *ended;
                *ended = line.ends_with('{') || line.ends_with(';') || line.ends_with('}');
                (!is_first_after).then(|| format!("{line} "))
            })
            .collect();
        let returns = signature.split_once("->").map_or("", |(_, returns)| returns);
        let is_result = returns.contains("Result<");
        match doc.is_empty() {
            true => wrong.push(format!("{}: fn {name} has no documentation", n + 1)),
            false if is_result && !doc.contains(&"/// # Errors") => {
                wrong.push(format!("{}: fn {name} returns a Result and has no section `# Errors`", n + 1));
            }
            false => (),
        }
    }
    wrong
}

/// L10: each public function says what it does, and what its errors mean and leave behind.
#[test]
fn public_function_is_documented_with_its_errors() {
    let mut wrong = Vec::new();
    for path in files("src", ".rs") {
        let name = within(&path, "src").to_owned();
        wrong.extend(undocumented(&read(&path)).into_iter().map(|what| format!("src/{name}:{what}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The reader of documentation sees what is missing, and nothing where nothing is.
#[test]
fn undocumented_function_is_seen() {
    for (source, expected) in [
        ("pub fn a() {}", "1: fn a has no documentation"),
        ("/// Does.\npub async fn a() -> u8 {}", ""),
        ("/// Does.\npub fn a(\n  b: u8,\n) -> Result<u8> {", "2: fn a returns a Result and has no section `# Errors`"),
        ("/// Does.\n/// # Errors\n/// None.\n#[must_use]\npub fn a() -> Result<u8> {", ""),
        ("/// Does.\n#[utoipa::path(\n  get,\n)]\npub async fn a() {}", ""),
        ("}\n\n  pub const fn a() {}", "3: fn a has no documentation"),
        ("pub(crate) fn a() {}\nfn b() {}\n#[cfg(test)]\npub fn c() {}", ""),
    ] {
        assert_eq!(undocumented(source).join("\n"), expected, "{source}");
    }
}

/// Constructions that hide who does what, each of which a plain sentence replaces.
const RIDDLES: [&str; 10] = [
    "whoever",
    "somebody",
    "nobody",
    "everybody",
    "what came of",
    "what became of",
    "by and by",
    "the deed",
    "is told",
    "are told",
];

/// The comments of a Rust source or a statement that use one of `RIDDLES`.
fn riddles(source: &str) -> Vec<String> {
    let comment = |line: &str| line.trim_start().starts_with("//") || line.starts_with("--");
    let found = source.lines().enumerate().filter(|(_, line)| comment(line)).flat_map(|(n, line)| {
        let lower = line.to_lowercase();
        let used = RIDDLES.into_iter().filter(move |riddle| has_word_of_its_own(&lower, riddle));
        used.map(move |riddle| format!("{}: \"{riddle}\"", n + 1))
    });
    found.collect()
}

fn has_word_of_its_own(text: &str, word: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(word)
        .any(|(at, _)| !is_part(text[..at].chars().next_back()) && !is_part(text[at + word.len()..].chars().next()))
}

/// Comments have a subject: a reader who sees this file alone knows who does what.
#[test]
fn comment_names_its_subject() {
    let mut wrong = Vec::new();
    for (folder, ending) in [("src", ".rs"), ("sql", ".sql")] {
        for path in files(folder, ending) {
            let name = within(&path, folder).to_owned();
            wrong.extend(riddles(&read(&path)).into_iter().map(|what| format!("{folder}/{name}:{what}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(
        riddles("// Nobody_knows, `is told`.\nlet nobody = 1;\n-- Somebody").join(" "),
        "1: \"is told\" 3: \"somebody\""
    );
}
