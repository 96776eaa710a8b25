//! The text behind the options in `--help`, taken apart: paragraphs, and blocks with a heading.

/// A part of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Block {
    Paragraph(String),
    /// `Examples:` and the lines below it, without the colon.
    Listed(String, Vec<Item>),
}

/// A line of a list, with the lines that belong to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Item {
    /// A command may take several lines.
    pub(super) term: Vec<String>,
    pub(super) text: String,
}

/// The parts of a text. A list is indented by two columns below a line that ends in a colon. In a list, two blanks separate a term from
/// its text, deeper lines go on with the text, and a term that ends in a backslash goes on in the next line.
pub(super) fn blocks(text: &str) -> Vec<Block> {
    text.split("\n\n").filter(|part| !part.trim().is_empty()).map(block).collect()
}

fn block(part: &str) -> Block {
    let lines: Vec<&str> = part.trim_matches('\n').lines().collect();
    match lines.split_first() {
        Some((heading, list))
            if heading.ends_with(':') && !list.is_empty() && list.iter().all(|line| line.starts_with("  ")) =>
        {
            Block::Listed(heading.trim_end_matches(':').to_owned(), items(list))
        }
        _ => Block::Paragraph(lines.join(" ")),
    }
}

fn items(lines: &[&str]) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    for line in lines.iter().map(|line| &line[2..]) {
        let goes_on =
            |item: &&mut Item| item.text.is_empty() && item.term.last().is_some_and(|term| term.ends_with('\\'));
        if let Some(item) = items.last_mut().filter(goes_on) {
            item.term.push(line.to_owned());
        } else if let Some(item) = items.last_mut().filter(|_| line.starts_with(' ')) {
            if !item.text.is_empty() {
                item.text.push(' ');
            }
            item.text += line.trim();
        } else {
            let (term, text) = line.split_once("  ").unwrap_or((line, ""));
            items.push(Item { term: vec![term.to_owned()], text: text.trim().to_owned() });
        }
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(term: &[&str], text: &str) -> Item {
        Item { term: term.iter().map(|&line| line.to_owned()).collect(), text: text.to_owned() }
    }

    #[test]
    fn paragraphs_and_lists_are_told_apart() {
        let text = "One paragraph\nin two lines.\n\nExamples:\n  shmctl read             what comes\n  shmctl read --last 10\n     \
                    the last ten\n  printf x | \\\n      shmctl write\n\nNo list:\nhere.";
        let examples = vec![
            item(&["shmctl read"], "what comes"),
            item(&["shmctl read --last 10"], "the last ten"),
            item(&["printf x | \\", "    shmctl write"], ""),
        ];
        assert_eq!(
            blocks(text),
            [
                Block::Paragraph("One paragraph in two lines.".into()),
                Block::Listed("Examples".into(), examples),
                Block::Paragraph("No list: here.".into()),
            ]
        );
        assert_eq!(blocks(""), []);
    }
}
