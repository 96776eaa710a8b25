//! The tables of all commands here, in Markdown, and the plots that may belong to them.

use std::fmt::Write;

use crate::svg::{Plot, Series};

/// A table, and the series of its plot.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// The file of the plot; empty for a table alone.
    pub(crate) file: &'static str,
    pub(crate) title: &'static str,
    /// What was measured and how, in a sentence or two.
    pub(crate) method: String,
    pub(crate) columns: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
    pub(crate) x_label: &'static str,
    pub(crate) y_label: &'static str,
    pub(crate) series: Vec<Series>,
    /// What could not be measured, and why.
    pub(crate) notes: Vec<String>,
}

impl Page {
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("\n## {}\n\n{}\n\n", self.title, self.method);
        let mut line = |cells: &mut dyn Iterator<Item = &str>| {
            let _ = writeln!(text, "| {} |", cells.collect::<Vec<_>>().join(" | "));
        };
        line(&mut self.columns.iter().copied());
        line(&mut self.columns.iter().map(|_| "---:"));
        for row in &self.rows {
            line(&mut row.iter().map(String::as_str));
        }
        for note in &self.notes {
            let _ = write!(text, "\n{note}\n");
        }
        if !self.file.is_empty() {
            let _ = write!(text, "\n![{}]({})\n", self.title, self.file);
        }
        text
    }

    pub(crate) fn svg(&self) -> String {
        Plot { title: self.title, x_label: self.x_label, y_label: self.y_label, series: &self.series }.render()
    }

    /// Adds a point to the series of this name.
    pub(crate) fn point(&mut self, name: &'static str, x: f64, y: f64) {
        match self.series.iter_mut().find(|series| series.name == name) {
            Some(series) => series.points.push((x, y)),
            None => self.series.push(Series { name, points: vec![(x, y)] }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_a_table_and_a_plot_of_the_same() {
        let mut page = Page {
            file: "x.svg",
            title: "More",
            method: "Measured.".to_owned(),
            columns: vec!["n", "rate"],
            rows: vec![vec!["1".to_owned(), "2/s".to_owned()]],
            notes: vec!["16: no room".to_owned()],
            ..Page::default()
        };
        let table = Page { file: "", ..Page::default() };
        assert!(!table.markdown().contains("!["), "{}", table.markdown());
        page.point("a", 1.0, 2.0);
        page.point("a", 2.0, 3.0);
        page.point("b", 1.0, 5.0);
        let text = page.markdown();
        assert!(text.contains("| n | rate |\n| ---: | ---: |\n| 1 | 2/s |\n\n16: no room\n\n![More](x.svg)"), "{text}");
        assert_eq!(page.series.len(), 2);
        assert_eq!(page.svg().matches("<polyline").count(), 2);
    }
}
