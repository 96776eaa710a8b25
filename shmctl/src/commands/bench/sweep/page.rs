//! One thing that grows: its table in Markdown and its plot.

use std::fmt::Write;

use super::svg::{Plot, Series};

/// A table, and the columns of it that are drawn.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) file: &'static str,
    pub(super) title: &'static str,
    /// What was measured how, in a sentence or two.
    pub(super) method: String,
    pub(super) columns: Vec<&'static str>,
    pub(super) rows: Vec<Vec<String>>,
    pub(super) x_label: &'static str,
    pub(super) y_label: &'static str,
    pub(super) series: Vec<Series>,
    /// What could not be measured, and why.
    pub(super) notes: Vec<String>,
}

impl Page {
    pub(super) fn markdown(&self) -> String {
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
        let _ = write!(text, "\n![{}]({})\n", self.title, self.file);
        text
    }

    pub(super) fn svg(&self) -> String {
        Plot { title: self.title, x_label: self.x_label, y_label: self.y_label, series: &self.series }.render()
    }

    /// Adds a point to the series of this name.
    pub(super) fn point(&mut self, name: &'static str, x: f64, y: f64) {
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
        page.point("a", 1.0, 2.0);
        page.point("a", 2.0, 3.0);
        page.point("b", 1.0, 5.0);
        let text = page.markdown();
        assert!(text.contains("| n | rate |\n| ---: | ---: |\n| 1 | 2/s |\n\n16: no room\n\n![More](x.svg)"), "{text}");
        assert_eq!(page.series.len(), 2);
        assert_eq!(page.svg().matches("<polyline").count(), 2);
    }
}
