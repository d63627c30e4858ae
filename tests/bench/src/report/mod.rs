//! What came out: a table on stdout as it goes, and at the end a JSON file, a table and a plot.

mod json;
mod plot;
mod table;

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{error::BenchError, machine::Machine, rounds::Outcome};

pub(crate) use table::Columns;

/// The results of one command.
#[derive(Debug)]
pub(crate) struct Report {
    /// File name without its end.
    name: String,
    title: &'static str,
    command: String,
    columns: Columns,
    machine: Machine,
    outcomes: Vec<Outcome>,
    out: PathBuf,
}

impl Report {
    /// Prints what stands above the table. The files will be `NAME.json`, `.md` and `.svg` in `out`.
    pub(crate) fn begin(
        name: &str,
        title: &'static str,
        columns: Columns,
        command: &str,
        out: &Path,
    ) -> Self {
        let report = Self {
            name: name.to_owned(),
            title,
            columns,
            command: command.to_owned(),
            machine: Machine::here(),
            outcomes: Vec::new(),
            out: out.to_owned(),
        };
        print!("{}", report.head());
        report
    }

    fn head(&self) -> String {
        format!(
            "# {}\n\nCommand: `{}`. Machine: {}.\n\n{}",
            self.title,
            self.command,
            self.machine.line(),
            self.columns.head()
        )
    }

    /// Prints the rows of a case.
    pub(crate) fn add(&mut self, outcome: Outcome) {
        print!("{}", self.columns.rows(&outcome));
        self.outcomes.push(outcome);
    }

    /// Writes the files.
    pub(crate) fn finish(self) -> Result<(), BenchError> {
        fs::create_dir_all(&self.out)
            .map_err(BenchError::system(format!("making {}", self.out.display())))?;
        let rows: String = self
            .outcomes
            .iter()
            .map(|it| self.columns.rows(it))
            .collect();
        let notes: String = self.outcomes.iter().map(table::failures).collect();
        print!("{notes}");
        self.write("md", format!("{}{rows}{notes}", self.head()))?;
        self.write("json", json::text(&self))?;
        let plot = self.path("svg");
        plot::draw(
            &plot,
            self.title,
            &self.machine,
            &self.command,
            &self.outcomes,
        )?;
        eprintln!(
            "    {}, .md and .svg are written",
            self.path("json").display()
        );
        Ok(())
    }

    fn path(&self, end: &str) -> PathBuf {
        self.out.join(format!("{}.{end}", self.name))
    }

    fn write(&self, end: &str, text: String) -> Result<(), BenchError> {
        let path = self.path(end);
        fs::write(&path, text).map_err(BenchError::system(format!("writing {}", path.display())))
    }
}
