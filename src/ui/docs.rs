//! The documents as pages: `/docs`, a page and the Markdown of each topic, and `/llms.txt`. They need no sign-in,
//! because they contain nothing about this installation.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::body::Bytes;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::generated;
use super::markdown::{self, Heading, escaped};
use crate::docs::{self, GROUPS, Topic};

/// A page loads its style sheet and nothing else; no script runs, and no other site may frame it.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// The documents change only with the program's version.
const CACHED: (HeaderName, &str) = (header::CACHE_CONTROL, "public, max-age=300");

/// All pages, made on first use.
struct Pages {
    /// The HTML and the Markdown of each topic.
    topics: BTreeMap<&'static str, (Bytes, Bytes)>,
    index: Bytes,
    missing: Bytes,
    llms: Bytes,
}

static PAGES: LazyLock<Pages> = LazyLock::new(|| {
    let made = |topic: &'static Topic| {
        let text = generated::text(topic);
        (topic.name, (page_of(topic, &text).into(), text.into()))
    };
    Pages {
        topics: docs::topics().map(made).collect(),
        index: index_page().into(),
        missing: missing_page().into(),
        llms: llms().into(),
    }
});

/// `GET /docs`: the list of all topics.
pub async fn index() -> Response {
    page(StatusCode::OK, PAGES.index.clone())
}

/// `GET /docs/{topic}`: the page of a topic; with `.md` behind its name, the Markdown. An unknown topic is answered
/// with 404 and a page that lists all topics.
pub async fn topic(path: Result<Path<String>, PathRejection>) -> Response {
    let name = path.map(|Path(name)| name).unwrap_or_default();
    let (name, as_text) = name.strip_suffix(".md").map_or((name.as_str(), false), |name| (name, true));
    match PAGES.topics.get(name) {
        Some((_, text)) if as_text => plain("text/markdown; charset=utf-8", text.clone()),
        Some((html, _)) => page(StatusCode::OK, html.clone()),
        None => page(StatusCode::NOT_FOUND, PAGES.missing.clone()),
    }
}

/// `GET /docs/style.css`.
pub async fn style() -> Response {
    plain("text/css; charset=utf-8", Bytes::from_static(include_bytes!("docs.css")))
}

/// `GET /llms.txt`: what the program is, and where the Markdown of each document is, for language models.
pub async fn llms_txt() -> Response {
    plain("text/plain; charset=utf-8", PAGES.llms.clone())
}

fn page(status: StatusCode, html: Bytes) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        CACHED,
    ];
    (status, headers, html).into_response()
}

fn plain(kind: &'static str, body: Bytes) -> Response {
    ([(header::CONTENT_TYPE, kind), CACHED], body).into_response()
}

fn page_of(topic: &Topic, text: &str) -> String {
    let rendered = markdown::render(text);
    let body = format!(
        "<article>\n{}</article>\n<footer>notihub {} · <a href=\"/docs/{}.md\">this page as Markdown</a> · \
         <a href=\"/openapi.json\">OpenAPI</a></footer>",
        with_contents(&rendered.body, &rendered.headings),
        env!("CARGO_PKG_VERSION"),
        topic.name,
    );
    frame(topic.title(), Some(topic.name), &body)
}

/// The list of headings goes below the first paragraph. Those of the third level are left out where there are many.
fn with_contents(body: &str, headings: &[Heading]) -> String {
    let deepest = if headings.len() > 30 { 2 } else { 3 };
    let shown: Vec<&Heading> = headings.iter().filter(|heading| heading.level <= deepest).collect();
    let (Some(end), true) = (body.find("</p>"), shown.len() > 1) else { return body.to_owned() };
    let item = |heading: &&Heading| {
        let (level, anchor, title) = (heading.level, &heading.anchor, escaped(&heading.title));
        format!("<li class=\"level{level}\"><a href=\"#{anchor}\">{title}</a></li>\n")
    };
    let items: String = shown.iter().map(item).collect();
    let (summary, rest) = body.split_at(end + "</p>".len());
    format!("{summary}\n<nav class=\"contents\" aria-label=\"On this page\"><ul>\n{items}</ul></nav>{rest}")
}

fn index_page() -> String {
    let mut body = format!(
        "<article>\n<h1>notihub</h1>\n<p>The documents of version {}. On a terminal: <code>notihub docs \
            TOPIC</code>.</p>\n",
        env!("CARGO_PKG_VERSION")
    );
    for group in &GROUPS {
        body += &format!("<h2>{}</h2>\n<ul class=\"topics\">\n", escaped(group.title));
        for topic in group.topics {
            let summary = markdown::render(&topic.summary()).body;
            let summary = summary.trim().trim_start_matches("<p>").trim_end_matches("</p>");
            let (name, title) = (topic.name, escaped(topic.title()));
            body += &format!("<li><a href=\"/docs/{name}\">{title}</a><br>{summary}</li>\n");
        }
        body += "</ul>\n";
    }
    frame("Documents", None, &(body + "</article>"))
}

fn missing_page() -> String {
    let body = "<article>\n<h1>There is no such document</h1>\n<p>The list of all documents is at <a \
        href=\"/docs\">/docs</a>.\
                </p>\n</article>";
    frame("There is no such document", None, body)
}

/// A page around its content: beside it the list of topics, which a narrow screen shows folded above it.
fn frame(title: &str, current: Option<&str>, content: &str) -> String {
    let mut topics = "<a class=\"home\" href=\"/docs\">notihub</a>\n".to_owned();
    for group in &GROUPS {
        topics += &format!("<p>{}</p>\n<ul>\n", escaped(group.title));
        for topic in group.topics {
            let mark = if current == Some(topic.name) { " aria-current=\"page\"" } else { "" };
            let (name, title) = (topic.name, escaped(topic.title()));
            topics += &format!("<li><a href=\"/docs/{name}\"{mark}>{title}</a></li>\n");
        }
        topics += "</ul>\n";
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{} · notihub</title>\n\
         <link rel=\"stylesheet\" href=\"/docs/style.css\">\n</head>\n<body>\n\
         <details class=\"narrow\"><summary>All documents</summary>\n<nav>{topics}</nav></details>\n\
         <nav class=\"side\" aria-label=\"All documents\">{topics}</nav>\n<main>\n{content}\n</main>\n</body>\n\
         </html>\n",
        escaped(title)
    )
}

/// The form of llmstxt.org: a title, a summary, and lists of links to Markdown.
fn llms() -> String {
    let mut made =
        "# notihub\n\n> A self-hosted notification hub: services POST a message, PostgreSQL keeps it with one \
                    delivery per recipient and channel, workers send each delivery and record its outcome.\n\n\
                    The API is described by [/openapi.json](/openapi.json).\n"
            .to_owned();
    for group in &GROUPS {
        made += &format!("\n## {}\n\n", group.title);
        for topic in group.topics {
            made += &format!("- [{}](/docs/{}.md): {}\n", topic.title(), topic.name, plain_text(&topic.summary()));
        }
    }
    made
}

/// A summary without the targets of its links, which are written for documents beside it.
fn plain_text(summary: &str) -> String {
    let mut plain = String::with_capacity(summary.len());
    let mut rest = summary;
    while let Some((before, after)) = rest.split_once('[') {
        plain.push_str(before);
        match after.split_once("](").and_then(|(title, rest)| Some((title, rest.split_once(')')?.1))) {
            Some((title, after)) => {
                plain.push_str(title);
                rest = after;
            }
            None => {
                plain.push('[');
                rest = after;
            }
        }
    }
    plain + rest
}
