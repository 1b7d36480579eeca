//! Renders Markdown as HTML. Headings get anchors, links between topics lead to their pages, and HTML in a document is
//! shown as text.

use std::collections::BTreeMap;

use pulldown_cmark::{CowStr, Event, HeadingLevel, LinkType, Options, Parser, Tag, TagEnd, html};

/// A document as HTML.
pub struct Rendered {
    pub body: String,
    /// The headings of the second and third level, in order.
    pub headings: Vec<Heading>,
}

/// A heading that links can lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heading {
    pub level: u8,
    /// The anchor for links, derived from the title as GitHub does.
    pub anchor: String,
    pub title: String,
}

/// Renders a document. A link to `NAME.md#ANCHOR` leads to `/docs/NAME#ANCHOR`.
pub fn render(text: &str) -> Rendered {
    let mut events: Vec<Event<'_>> = Vec::new();
    let (mut headings, mut taken) = (Vec::new(), BTreeMap::new());
    let mut open: Option<(usize, String)> = None;
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        if let (Some((_, title)), Event::Text(text) | Event::Code(text)) = (&mut open, &event) {
            title.push_str(text);
        }
        match event {
            Event::Start(Tag::Heading { .. }) => {
                open = Some((events.len(), String::new()));
                events.push(event);
            }
            Event::End(TagEnd::Heading(level)) => {
                if let Some((at, title)) = open.take() {
                    let anchor = unique(&mut taken, anchor(&title));
                    events[at] = Event::Start(Tag::Heading {
                        level,
                        id: Some(CowStr::from(anchor.clone())),
                        classes: Vec::new(),
                        attrs: Vec::new(),
                    });
                    if matches!(level, HeadingLevel::H2 | HeadingLevel::H3) {
                        headings.push(Heading { level: level as u8, anchor, title });
                    }
                }
                events.push(event);
            }
            Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
                let dest_url = if matches!(link_type, LinkType::Email) { dest_url } else { page_of(&dest_url).into() };
                events.push(Event::Start(Tag::Link { link_type, dest_url, title, id }));
            }
            Event::Html(text) | Event::InlineHtml(text) => events.push(Event::Text(text)),
            // A wide table scrolls by itself: the page keeps the width of the screen.
            Event::Start(Tag::Table(_)) => {
                events.push(Event::Html("<div class=\"wide\" tabindex=\"0\">".into()));
                events.push(event);
            }
            Event::End(TagEnd::Table) => {
                events.push(event);
                events.push(Event::Html("</div>\n".into()));
            }
            event => events.push(event),
        }
    }
    let mut body = String::with_capacity(text.len() * 2);
    html::push_html(&mut body, events.into_iter());
    Rendered { body, headings }
}

/// The target on a page for a link in a document.
fn page_of(target: &str) -> String {
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let Some(topic) = file.strip_suffix(".md").filter(|name| !name.contains('/')) else { return target.to_owned() };
    match anchor {
        Some(anchor) => format!("/docs/{topic}#{anchor}"),
        None => format!("/docs/{topic}"),
    }
}

/// A heading's anchor: lower case, blanks as dashes, other signs left out.
fn anchor(title: &str) -> String {
    let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>().to_lowercase()
}

/// The second heading of the same words gets `-1`, the third `-2`.
fn unique(taken: &mut BTreeMap<String, u32>, anchor: String) -> String {
    let times = taken.entry(anchor.clone()).or_default();
    *times += 1;
    if *times == 1 { anchor } else { format!("{anchor}-{}", *times - 1) }
}

/// Text as HTML shows it, in elements and in attributes between double quotes.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_pages_and_headings_get_the_anchors_of_github() {
        let text = "# T\n\n## What a `claim` does, twice\n\n## What a `claim` does, twice\n\n[a](lifecycle.md#the-end) \
                    [b](#here) [c](https://example.com/x.md)\n";
        let rendered = render(text);
        let anchors: Vec<&str> = rendered.headings.iter().map(|h| h.anchor.as_str()).collect();
        assert_eq!(anchors, ["what-a-claim-does-twice", "what-a-claim-does-twice-1"]);
        for link in ["\"/docs/lifecycle#the-end\"", "\"#here\"", "\"https://example.com/x.md\""] {
            assert!(rendered.body.contains(link), "{link}: {}", rendered.body);
        }
    }

    #[test]
    fn html_in_a_document_is_text() {
        let rendered = render("a <b>x</b>\n\n<script>alert(1)</script>\n\n| a | b |\n|---|---|\n| <i> | `<u>` |\n");
        assert!(!rendered.body.contains("<b>") && !rendered.body.contains("<script>"), "{}", rendered.body);
        assert!(!rendered.body.contains("<i>") && !rendered.body.contains("<u>"), "{}", rendered.body);
    }
}
