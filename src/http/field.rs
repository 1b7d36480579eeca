//! Parses header values (RFC 9110 5.6): lists, parameters, tokens and quoted strings.

/// Splits `text` at each `separator` outside of quoted strings. The parts keep their blanks and quotes.
pub fn split_unquoted(text: &str, separator: char) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(|c| {
        let separates = c == separator && !quoted;
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => (),
        }
        separates
    })
    .collect()
}

/// The content of a quoted string, with its escapes resolved; a text without quotes is returned as it is. None if the
/// quotes do not match.
pub fn unquote(value: &str) -> Option<String> {
    let Some(inner) = value.strip_prefix('"') else { return Some(value.to_owned()) };
    let (mut content, mut chars) = (String::new(), inner.strip_suffix('"')?.chars());
    while let Some(c) = chars.next() {
        match c {
            '"' => return None,
            '\\' => content.push(chars.next()?),
            c => content.push(c),
        }
    }
    Some(content)
}

/// Whether `text` is a token (RFC 9110 5.6.2).
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))
}

/// Parses a value with parameters (RFC 9110 5.6.6): the value, and each parameter's name in lower case with its
/// unquoted value. None if a parameter is malformed.
pub fn parse_parameters(text: &str) -> Option<(&str, Vec<(String, String)>)> {
    let mut parts = split_unquoted(text, ';').into_iter().map(|part| part.trim_matches([' ', '\t']));
    let value = parts.next()?;
    let read = |part: &str| {
        let (name, value) = part.split_once('=')?;
        let is_right = is_token(name) && (is_token(value) || value.starts_with('"'));
        Some((name.to_ascii_lowercase(), unquote(value)?)).filter(|_| is_right)
    };
    Some((value, parts.filter(|part| !part.is_empty()).map(read).collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_in_every_form_are_read() {
        let of = |text: &str| {
            let (value, parameters) = parse_parameters(text)?;
            let parameters: Vec<_> = parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
            Some(format!("{value}|{}", parameters.join("|")))
        };
        for (text, read) in [
            ("a/b", "a/b|"),
            (" a/b ;; ", "a/b|"),
            ("a/b;x=1\t;\tY=z", "a/b|x=1|y=z"),
            (r#"a/b; x="1;\"2\\";y=2"#, r#"a/b|x=1;"2\|y=2"#),
            ("a/b; x=\"\"", "a/b|x="),
        ] {
            assert_eq!(of(text).as_deref(), Some(read), "{text}");
        }
        for text in
            ["a/b; x", "a/b; x=", "a/b; =1", "a/b; x =1", "a/b; x= 1", "a/b; x=\"1", "a/b; x=\"1\"2", "a/b; x=1 2"]
        {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
