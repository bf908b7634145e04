//! What a comparison found, as rows of text: made in one place, printed in another.

/// A table.
pub struct Table {
    pub title: String,
    pub columns: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
    pub notes: Vec<String>,
}

impl Table {
    pub fn new(title: String, columns: &[&'static str]) -> Table {
        Table { title, columns: columns.to_vec(), rows: Vec::new(), notes: Vec::new() }
    }

    /// Adds a row, and shows it to who waits: a table can take minutes.
    pub fn push(&mut self, row: Vec<String>) {
        eprintln!("{}", row.join("  "));
        self.rows.push(row);
    }

    pub fn print(&self) {
        println!("{}\n", self.title);
        let width = |at: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(at)).map(String::as_str);
            let all = cells.chain(self.columns.get(at).copied());
            all.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let line = |cells: &[&str]| {
            let padded: Vec<_> =
                cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            println!("{}", padded.join("  ").trim_end());
        };
        line(&self.columns);
        for row in &self.rows {
            line(&row.iter().map(String::as_str).collect::<Vec<_>>());
        }
        println!();
        for note in &self.notes {
            println!("- {note}");
        }
        println!();
    }
}
