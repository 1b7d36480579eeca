//! The documents that the program carries: one Markdown file for each topic, embedded when it is built. `notihub docs`
//! prints them, `GET /docs` serves them as pages (`ui::docs`).
//!
//! A line `{{name}}` in a document stands for text that is made from the code (`ui::generated`), so that it cannot be
//! out of date. Links between topics are written as `[lifecycle](lifecycle.md)`: they work in the repository, and pages
//! lead to `/docs/lifecycle`.

/// One document.
#[derive(Debug, Clone, Copy)]
pub struct Topic {
    /// Its name in links, in `/docs/{name}` and in `notihub docs NAME`.
    pub name: &'static str,
    /// The Markdown as it is written, placeholders included.
    pub source: &'static str,
}

/// Topics that are read together, in reading order.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    pub title: &'static str,
    pub topics: &'static [Topic],
}

macro_rules! topic {
    ($name:literal) => {
        Topic { name: $name, source: include_str!(concat!($name, ".md")) }
    };
}

/// Every document there is. Adding one: its file, and its line here.
pub const GROUPS: [Group; 5] = [
    Group { title: "Start", topics: &[topic!("quickstart"), topic!("concepts"), topic!("lifecycle")] },
    Group {
        title: "Use it",
        topics: &[
            topic!("sending"),
            topic!("channels"),
            topic!("users"),
            topic!("inbox"),
            topic!("rooms"),
            topic!("live"),
            topic!("live-protocol"),
            topic!("webhooks"),
            topic!("verify-webhooks"),
            topic!("sql-intake"),
            topic!("errors"),
        ],
    },
    Group {
        title: "Run it",
        topics: &[
            topic!("operations"),
            topic!("configuration"),
            topic!("providers"),
            topic!("receipts-and-fallback"),
            topic!("access"),
            topic!("privacy"),
            topic!("metrics-and-alerts"),
        ],
    },
    Group { title: "Look it up", topics: &[topic!("cli"), topic!("simulators"), topic!("benchmarks")] },
    Group { title: "Change it", topics: &[topic!("architecture"), topic!("contributing"), topic!("requirements")] },
];

/// The commands of the program, as Markdown. It is made by `notihub docs --generate src/docs`, because the layer that
/// knows the commands stands above the one that serves pages; a test keeps it fresh.
pub const COMMANDS: &str = include_str!("commands.txt");

/// All topics in reading order.
pub fn topics() -> impl Iterator<Item = &'static Topic> {
    GROUPS.iter().flat_map(|group| group.topics)
}

/// The topic of this name; `None` if there is none.
pub fn find(name: &str) -> Option<&'static Topic> {
    topics().find(|topic| topic.name == name)
}

impl Topic {
    /// The heading of the document.
    pub fn title(&self) -> &'static str {
        self.source.lines().next().unwrap_or_default().trim_start_matches("# ")
    }

    /// The first paragraph below the heading, on one line: what the document is about.
    pub fn summary(&self) -> String {
        let lines = self.source.lines().skip(1).skip_while(|line| line.is_empty());
        lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
    }
}
