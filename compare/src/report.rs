//! Where measurements write their tables: to stdout at once, and in `compare all` to BENCHMARKS.md and docs/plots too.
//!
//! A plot is made of the columns of the last table, so that it cannot say anything else than the table does. The file is
//! written anew after each section: what has been measured is kept if a later measurement fails or is interrupted.

mod machine;
mod plot;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// The narrowest column where tables are printed, and the first one.
const COLUMN: usize = 10;
const FIRST: usize = 40;

/// What measurements found.
pub struct Report {
    /// Where it is kept, if it is.
    kept: Option<PathBuf>,
    markdown: String,
    table: Table,
}

#[derive(Default)]
struct Table {
    heads: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Report {
    /// Printed alone.
    pub fn printed() -> Report {
        Report { kept: None, markdown: String::new(), table: Table::default() }
    }

    /// Printed, and kept in BENCHMARKS.md and docs/plots of a directory.
    pub fn kept_in(directory: &Path) -> Report {
        let mut report = Report { kept: Some(directory.to_owned()), ..Report::printed() };
        report.markdown = format!("# Benchmarks\n\n{}\n", machine::described());
        report
    }

    /// Begins a section, and keeps those before.
    pub fn section(&mut self, title: &str) {
        self.keep();
        println!("\n== {title}");
        let _ = write!(self.markdown, "\n## {title}\n");
    }

    /// A paragraph. It ends a table.
    pub fn say(&mut self, text: impl AsRef<str>) {
        println!("{}", text.as_ref());
        let _ = write!(self.markdown, "\n{}\n", text.as_ref());
    }

    /// Says that something is not measured, and why. The tests look for lines that begin like this one.
    pub fn skip(&mut self, what: &str, reason: impl AsRef<str>) {
        self.say(format!("SKIP {what}: {}", reason.as_ref()));
    }

    /// Begins a table with these columns. The first names the row.
    pub fn table(&mut self, heads: &[&str]) {
        let heads: Vec<String> = heads.iter().map(|&head| head.to_owned()).collect();
        self.print(&heads, &heads);
        let _ = writeln!(self.markdown, "\n| {} |", heads.join(" | "));
        let _ = writeln!(self.markdown, "| --- |{}", " ---: |".repeat(heads.len().saturating_sub(1)));
        self.table = Table { heads, rows: Vec::new() };
    }

    /// A row of the last table.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.cells(cells.into());
    }

    /// A row of the last table, where the number of columns is not known before.
    pub fn cells(&mut self, cells: Vec<String>) {
        self.print(&self.table.heads, &cells);
        let _ = writeln!(self.markdown, "| {} |", cells.join(" | "));
        self.table.rows.push(cells);
    }

    fn print(&self, heads: &[String], cells: &[String]) {
        let mut line = String::new();
        for (number, (head, cell)) in heads.iter().zip(cells).enumerate() {
            let _ = match number {
                0 => write!(line, "{cell:<FIRST$}"),
                _ => write!(line, "  {cell:>width$}", width = head.chars().count().max(COLUMN)),
            };
        }
        println!("{}", line.trim_end());
    }

    /// Plots two columns of the last table against each other, a point a row.
    pub fn scatter(&mut self, name: &str, across: &str, up: &str) {
        let (x, y) = (self.table.numbers(across), self.table.numbers(up));
        let points: Vec<_> = self
            .table
            .names()
            .zip(x.into_iter().zip(y))
            .filter_map(|(name, (x, y))| Some((name, x?, y?)))
            .collect();
        let shown = self
            .plot(name, &format!("{up} against {across}"), |file| plot::scatter(file, across, up, &points));
        self.markdown.push_str(&shown);
    }

    /// Plots columns of the last table beside one another, a group a row.
    pub fn bars(&mut self, name: &str, columns: &[&str]) {
        let values: Vec<_> = columns.iter().map(|column| self.table.numbers(column)).collect();
        let groups: Vec<_> = self.table.names().collect();
        let shown = self.plot(name, &columns.join(", "), |file| plot::bars(file, columns, &groups, &values));
        self.markdown.push_str(&shown);
    }

    /// Draws it, where the report is kept, and returns the line that shows it.
    fn plot(&self, name: &str, what: &str, draw: impl FnOnce(&Path) -> Result<(), String>) -> String {
        let Some(directory) = &self.kept else { return String::new() };
        let plots = directory.join("docs/plots");
        let drawn = fs::create_dir_all(&plots).map_err(|error| error.to_string());
        drawn
            .and_then(|()| draw(&plots.join(format!("{name}.svg"))))
            .unwrap_or_else(|error| panic!("{}: {name}.svg: {error}", plots.display()));
        format!("\n![{what}](docs/plots/{name}.svg)\n")
    }

    /// Writes what there is so far to its file, if it is kept.
    pub fn keep(&self) {
        if let Some(directory) = &self.kept {
            let file = directory.join("BENCHMARKS.md");
            fs::create_dir_all(directory)
                .and_then(|()| fs::write(&file, &self.markdown))
                .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        }
    }
}

impl Table {
    fn names(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().map(|row| row[0].as_str())
    }

    /// The numbers that the cells of a column begin with; `None` where a cell has none.
    fn numbers(&self, head: &str) -> Vec<Option<f64>> {
        let column = self.heads.iter().position(|it| it == head).expect("a plot shows columns of the table");
        let number = |cell: &String| cell.split_whitespace().next()?.parse().ok();
        self.rows.iter().map(|row| row.get(column).and_then(number)).collect()
    }
}
