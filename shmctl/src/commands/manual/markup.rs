//! Text in Markdown, as far as the tables use it, for pages: `code` becomes bold, and a link its text.

use clap_mangen::roff::{Inline, bold, roman};

/// The pieces of a line of text.
pub(super) fn inlines(text: &str) -> Vec<Inline> {
    let mut pieces = Vec::new();
    for (place, part) in without_links(text).split('`').enumerate() {
        if !part.is_empty() {
            pieces.push(if place % 2 == 1 { bold(part) } else { roman(part) });
        }
    }
    pieces
}

/// `[words](#where)` is only the words.
fn without_links(text: &str) -> String {
    let (mut plain, mut rest) = (String::new(), text);
    while let Some((before, link)) = rest.split_once('[') {
        let Some((words, behind)) = link.split_once("](") else {
            plain += before;
            plain.push('[');
            rest = link;
            continue;
        };
        if words.contains('[') {
            plain += before;
            plain.push('[');
            rest = link;
            continue;
        }
        plain += before;
        plain += words;
        rest = behind.split_once(')').map_or("", |(_, rest)| rest);
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_bold_and_links_are_their_words() {
        assert_eq!(inlines("a `b` c"), [roman("a "), bold("b"), roman(" c")]);
        assert_eq!(inlines("`ring` or [`handoff`](#handoff-channels)"), [bold("ring"), roman(" or "), bold("handoff")]);
        assert_eq!(without_links("see [Sources](#sources). [default: x]"), "see Sources. [default: x]");
        assert_eq!(without_links("[[channel]] [a](b)"), "[[channel]] a");
        assert_eq!(inlines(""), []);
    }
}
