//! `notihub docs`: prints the documents.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::{Command as Process, Stdio};

use anstream::adapter::strip_str;
use anstyle::{AnsiColor, Style};
use clap::{Args, Command};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use serde_json::json;

use super::{Output, print};
use crate::config;
use crate::config::reference::reference;
use crate::docs;
use crate::error::{Error, Result};
use crate::ui::generated;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  notihub docs                     all topics\n  notihub docs quickstart          one \
topic, through $PAGER on a terminal\n  notihub docs errors | grep -A2 E004\n\nA running hub serves the documents at \
/docs."
)]
pub struct Docs {
    /// The topic; left out: the list of topics.
    topic: Option<String>,
    /// Writes the parts that are kept in the repository into this folder: src/docs.
    #[arg(long, hide = true, value_name = "FOLDER")]
    generate: Option<PathBuf>,
}

/// Prints a topic, or the list of topics.
///
/// # Errors
/// `Error::Usage` if there is no such topic.
pub fn run(args: Docs, output: Output, commands: &Command) -> Result<u8> {
    if let Some(folder) = args.generate {
        let file = folder.join("commands.txt");
        std::fs::write(&file, commands_as_markdown(commands))
            .map_err(|e| Error::Setup(format!("{} cannot be written: {e}", file.display())))?;
        return Ok(0);
    }
    let Some(name) = args.topic else {
        list(output);
        return Ok(0);
    };
    let Some(topic) = docs::find(&name) else {
        let names: Vec<&str> = docs::topics().map(|topic| topic.name).collect();
        return Err(Error::Usage(format!("there is no topic '{name}'; the topics are {}", names.join(", "))));
    };
    let text = generated::text(topic);
    match output {
        Output::Text => show(&render_for_terminal(&text)),
        Output::Json => print::json(&json!({"topic": topic.name, "title": topic.title(), "text": text})),
    }
    Ok(0)
}

fn list(output: Output) {
    if output == Output::Json {
        let topic =
            |topic: &docs::Topic| json!({"topic": topic.name, "title": topic.title(), "summary": topic.summary()});
        return print::json(&json!({"topics": docs::topics().map(topic).collect::<Vec<_>>()}));
    }
    for group in &docs::GROUPS {
        anstream::println!("{}", print::paint(print::BOLD, group.title));
        for topic in group.topics {
            anstream::println!("  {CODE}{:<22}{CODE:#} {}", topic.name, topic.title());
        }
        anstream::println!();
    }
    anstream::println!("`notihub docs TOPIC` shows a topic; a running hub serves them at /docs.");
}

/// Prints a text, on a terminal through a pager.
fn show(text: &str) {
    let stdout = std::io::stdout();
    if stdout.is_terminal() {
        let coloured = anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never;
        let text = if coloured { text.to_owned() } else { strip_str(text).to_string() };
        if show_in_pager(&text) {
            return;
        }
    }
    anstream::print!("{text}");
}

/// `less -F` ends at once if the text fits the screen.
const LESS: &str = "if command -v less >/dev/null; then exec less -FRX; else exec cat; fi";

/// Shows the text in a pager. Returns whether that worked.
fn show_in_pager(text: &str) -> bool {
    let command = config::pager().unwrap_or_else(|| LESS.into());
    let started = Process::new("sh").arg("-c").arg(command).stdin(Stdio::piped()).spawn();
    let Ok(mut pager) = started else { return false };
    if let Some(mut pipe) = pager.stdin.take() {
        // Fails when the reader closes the pager early.
        let _closed_early = pipe.write_all(text.as_bytes());
    }
    pager.wait().is_ok_and(|status| status.success())
}

const WIDTH: usize = 80;
const CODE: Style = AnsiColor::Cyan.on_default();
const TITLE: Style = AnsiColor::Green.on_default().bold();
const PLAIN: Style = Style::new();

/// A word with its styles, which change within a word such as `--name`s.
type Word = Vec<(Style, String)>;

/// A document laid out for a terminal of 80 columns, with colours.
struct Layout {
    out: String,
    /// The beginning of each line: the indent of the surrounding lists and quotes.
    indent: String,
    /// The beginning of the next line only: the dash or number of a list item.
    mark: Option<String>,
    /// The number of the next item, for each surrounding list.
    lists: Vec<Option<u64>>,
    words: Vec<Word>,
    /// The next text continues the last word.
    joined: bool,
    style: Style,
    target: Option<(String, String)>,
    code_block: bool,
    rows: Vec<Vec<Vec<Word>>>,
}

fn render_for_terminal(text: &str) -> String {
    let mut layout = Layout {
        out: String::with_capacity(text.len() * 2),
        indent: String::new(),
        mark: None,
        lists: Vec::new(),
        words: Vec::new(),
        joined: false,
        style: PLAIN,
        target: None,
        code_block: false,
        rows: Vec::new(),
    };
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        layout.take(event);
    }
    layout.out
}

impl Layout {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.open(tag),
            Event::End(tag) => self.close(tag),
            Event::Text(text) if self.code_block => {
                for line in text.lines() {
                    let line = if line.is_empty() {
                        String::new()
                    } else {
                        format!("{}    {CODE}{line}{CODE:#}", self.indent)
                    };
                    self.out.push_str(&line);
                    self.out.push('\n');
                }
            }
            Event::Text(text) | Event::Html(text) | Event::InlineHtml(text) => {
                if let Some((_, title)) = &mut self.target {
                    title.push_str(&text);
                }
                self.text(self.style, &text);
            }
            Event::Code(text) => {
                if let Some((_, title)) = &mut self.target {
                    title.push_str(&text);
                }
                // Code is not broken at its blanks.
                self.push(CODE, &text);
                self.joined = true;
            }
            Event::SoftBreak | Event::HardBreak => self.joined = false,
            _ => (),
        }
    }

    fn open(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Heading { .. } => self.style = TITLE,
            Tag::List(first) => {
                self.flush();
                self.lists.push(first);
            }
            Tag::Item => {
                let mark = match self.lists.last_mut() {
                    Some(Some(number)) => {
                        *number += 1;
                        format!("{}. ", *number - 1)
                    }
                    _ => "- ".to_owned(),
                };
                self.indent.push_str(&" ".repeat(mark.len()));
                self.mark = Some(mark);
            }
            Tag::CodeBlock(_) => {
                self.flush();
                self.code_block = true;
            }
            Tag::Strong => self.style = print::BOLD,
            Tag::Link { dest_url, .. } => self.target = Some((dest_url.into_string(), String::new())),
            Tag::Table(_) => self.rows.clear(),
            Tag::TableHead | Tag::TableRow => self.rows.push(Vec::new()),
            _ => (),
        }
    }

    fn close(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(_) => {
                self.style = PLAIN;
                self.flush();
                self.out.push('\n');
            }
            TagEnd::Paragraph => {
                self.flush();
                self.out.push('\n');
            }
            TagEnd::List(_) => {
                self.flush();
                self.lists.pop();
                if self.lists.is_empty() {
                    self.out.push('\n');
                }
            }
            TagEnd::Item => {
                self.flush();
                let deep = self.indent.len().saturating_sub(match self.lists.last() {
                    Some(Some(number)) => format!("{}. ", number - 1).len(),
                    _ => 2,
                });
                self.indent.truncate(deep);
            }
            TagEnd::CodeBlock => {
                self.code_block = false;
                self.out.push('\n');
            }
            TagEnd::Strong => self.style = PLAIN,
            TagEnd::Link => {
                if let Some((target, title)) = self.target.take() {
                    self.push_link_target(&target, &title);
                }
            }
            TagEnd::TableCell => {
                let cell = std::mem::take(&mut self.words);
                self.joined = false;
                self.rows.last_mut().into_iter().for_each(|row| row.push(cell.clone()));
            }
            TagEnd::Table => self.table(),
            _ => (),
        }
    }

    /// Writes the target of a link after its text.
    fn push_link_target(&mut self, target: &str, title: &str) {
        let topic = target.split('#').next().and_then(|file| file.strip_suffix(".md"));
        match topic.and_then(docs::find) {
            Some(topic) if topic.name == title || topic.title() == title && topic.name == title.to_lowercase() => (),
            Some(topic) => self.text(print::DIM, &format!(" [{}]", topic.name)),
            None if target.starts_with('#') || target == title => (),
            None => self.text(print::DIM, &format!(" <{target}>")),
        }
    }

    fn text(&mut self, style: Style, text: &str) {
        self.joined &= !text.starts_with(char::is_whitespace);
        for (n, word) in text.split_whitespace().enumerate() {
            self.joined &= n == 0;
            self.push(style, word);
            self.joined = true;
        }
        self.joined &= !text.ends_with(char::is_whitespace);
    }

    fn push(&mut self, style: Style, word: &str) {
        match self.words.last_mut().filter(|_| self.joined) {
            Some(last) => last.push((style, word.to_owned())),
            None => self.words.push(vec![(style, word.to_owned())]),
        }
    }

    /// Writes the words as lines.
    fn flush(&mut self) {
        self.joined = false;
        let words = std::mem::take(&mut self.words);
        if words.is_empty() {
            return;
        }
        let first = match self.mark.take() {
            Some(mark) => format!("{}{mark}", &self.indent[..self.indent.len().saturating_sub(mark.len())]),
            None => self.indent.clone(),
        };
        self.lines(&first, &words);
    }

    fn lines(&mut self, first: &str, words: &[Word]) {
        let (mut line, mut used, mut begun) = (first.to_owned(), first.chars().count(), false);
        for word in words {
            let width = width_of(word);
            if begun && used + 1 + width > WIDTH {
                self.out.push_str(&line);
                self.out.push('\n');
                (line, used, begun) = (self.indent.clone(), self.indent.len(), false);
            }
            if begun {
                line.push(' ');
                used += 1;
            }
            word.iter().for_each(|(style, text)| line.push_str(&print::paint(*style, text)));
            (used, begun) = (used + width, true);
        }
        self.out.push_str(&line);
        self.out.push('\n');
    }

    /// Writes a table as columns if they fit, otherwise each row as a paragraph with the column titles before the
    /// cells.
    fn table(&mut self) {
        let rows = std::mem::take(&mut self.rows);
        let columns = rows.first().map_or(0, Vec::len);
        let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| width_of_cell(cell)).max();
        let widths: Vec<usize> = (0..columns).filter_map(width).collect();
        let fixed: usize = widths.iter().take(columns.saturating_sub(1)).map(|width| width + 2).sum();
        let fits = fixed + widths.last().map_or(0, |last| (*last).min(24)) <= WIDTH;
        let indent = std::mem::take(&mut self.indent);
        for (n, row) in rows.iter().enumerate() {
            if fits {
                let mut first = indent.clone();
                for (cell, width) in row.iter().zip(&widths).take(columns - 1) {
                    first.push_str(&painted_cell(cell));
                    first.push_str(&" ".repeat(width - width_of_cell(cell) + 2));
                }
                self.indent = format!("{indent}{}", " ".repeat(fixed));
                let plain = self.indent.clone();
                let at = self.out.len();
                self.lines(&plain, row.last().map_or(&[][..], Vec::as_slice));
                self.out.replace_range(at..at + plain.len(), &first);
                if n == 0 {
                    let last = widths.last().copied().unwrap_or_default().min(WIDTH - fixed);
                    self.out.push_str(&format!("{indent}{}\n", "-".repeat(fixed + last)));
                }
            } else if n > 0 {
                self.indent = format!("{indent}  ");
                for (at, cell) in row.iter().enumerate() {
                    let head = rows[0].get(at).map(|head| painted_cell(head)).unwrap_or_default();
                    let words = cell.clone();
                    match at {
                        0 => self.lines(&indent, &words),
                        _ if words.is_empty() => (),
                        _ => {
                            let head = vec![(print::DIM, format!("{}:", strip_str(&head)))];
                            self.lines(&format!("{indent}  "), &[vec![head], words].concat());
                        }
                    }
                }
                self.out.push('\n');
            }
        }
        self.indent = indent;
        if fits {
            self.out.push('\n');
        }
    }
}

fn width_of(word: &Word) -> usize {
    word.iter().map(|(_, text)| text.chars().count()).sum()
}

fn width_of_cell(cell: &[Word]) -> usize {
    cell.iter().map(|word| width_of(word) + 1).sum::<usize>().saturating_sub(1)
}

fn painted_cell(cell: &[Word]) -> String {
    let word = |word: &Word| word.iter().map(|(style, text)| print::paint(*style, text)).collect::<String>();
    cell.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// Options that several commands share. Each command names them; they are described once.
struct Shared {
    /// The group of each setting, by the setting's name.
    settings: BTreeMap<String, String>,
    groups: usize,
}

/// The heading of the options that select a running hub.
const HUB: &str = "Hub";

/// The manual of all commands. Settings and the options that select a hub are named in it and not repeated.
fn commands_as_markdown(program: &Command) -> String {
    let mut program = program.clone();
    program.build();
    let settings: BTreeMap<String, String> = reference().into_iter().map(|s| (s.name, s.heading)).collect();
    let groups = settings.values().collect::<BTreeSet<_>>().len();
    let (mut made, shared) = (String::new(), Shared { settings, groups });
    program.get_subcommands().for_each(|c| command(&mut made, c, "notihub", 2, &shared));
    made
}

fn command(made: &mut String, of: &Command, above: &str, level: usize, shared: &Shared) {
    if of.get_name() == "help" || of.is_hide_set() {
        return;
    }
    let path = format!("{above} {}", of.get_name());
    made.push_str(&format!("{} {path}\n\n", "#".repeat(level)));
    if let Some(about) = of.get_long_about().or(of.get_about()) {
        made.push_str(&format!("{}\n\n", generated::sentence(&about.to_string())));
    }
    let usage = of.clone().render_usage().to_string();
    made.push_str(&format!("```text\n{}\n```\n\n", usage.trim_start_matches("Usage: ").trim()));
    let (mut groups, mut own, mut calls_a_hub) = (Vec::new(), String::new(), false);
    for arg in of.get_arguments().filter(|arg| !arg.is_hide_set() && !arg.is_global_set()) {
        let setting = arg.get_long().and_then(|name| shared.settings.get(name));
        match setting.filter(|_| arg.get_env().is_some()) {
            _ if arg.get_help_heading() == Some(HUB) => calls_a_hub = true,
            Some(group) if !groups.contains(&group.as_str()) => groups.push(group),
            Some(_) => (),
            None if matches!(arg.get_id().as_str(), "help" | "version") => (),
            None => own.push_str(&argument(arg)),
        }
    }
    if !own.is_empty() {
        made.push_str(&format!("{own}\n"));
    }
    if groups.len() == shared.groups {
        made.push_str("Takes every [setting](configuration.md).\n\n");
    } else if !groups.is_empty() {
        made.push_str(&format!("Takes the [settings](configuration.md) of {}.\n\n", groups.join(", ")));
    }
    if calls_a_hub {
        made.push_str("Calls a running hub: see [Which hub](#which-hub).\n\n");
    }
    if let Some(help) = of.get_after_long_help().or(of.get_after_help()) {
        made.push_str(&format!("```text\n{}\n```\n\n", help.to_string().trim()));
    }
    of.get_subcommands().for_each(|c| command(made, c, &path, level + 1, shared));
}

fn argument(arg: &clap::Arg) -> String {
    let takes_value = arg.get_action().takes_values();
    let value = arg.get_value_names().and_then(<[_]>::first).map(ToString::to_string).unwrap_or_default();
    let name = match arg.get_long() {
        Some(long) if takes_value => format!("--{long} {value}"),
        Some(long) => format!("--{long}"),
        None => value,
    };
    let variable = arg.get_env().and_then(|name| name.to_str()).map(|name| format!(" (`{name}`)")).unwrap_or_default();
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let default = arg.get_default_values().first().and_then(|v| v.to_str()).filter(|_| takes_value);
    let default = default.map(|default| format!(" Default: `{default}`.")).unwrap_or_default();
    let words: Vec<String> = match takes_value {
        true => arg
            .get_possible_values()
            .iter()
            .filter(|v| !v.is_hide_set())
            .map(|v| format!("`{}`", v.get_name()))
            .collect(),
        false => Vec::new(),
    };
    let words = if words.is_empty() { String::new() } else { format!(" One of {}.", words.join(", ")) };
    let help = match help.is_empty() {
        true => String::new(),
        false => format!(": {}", generated::sentence(&help.replace("\n\n", "\n"))),
    };
    format!("- `{name}`{variable}{help}{words}{default}\n")
}
