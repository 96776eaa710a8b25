//! Colours, for those who want them.

pub(crate) use shm_cli::colours_are_wanted as wanted;

/// What a text is to stand out as. The words say the same without the colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    /// Something is wrong.
    Red,
    /// Something may become wrong.
    Yellow,
    /// A heading.
    Bold,
    /// An error's first word.
    BoldRed,
}

impl Colour {
    /// The text with the codes around it.
    pub(crate) fn paint(self, text: &str) -> String {
        let code = match self {
            Colour::Red => "31",
            Colour::Yellow => "33",
            Colour::Bold => "1",
            Colour::BoldRed => "1;31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}
